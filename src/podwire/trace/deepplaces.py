"""Where what the kernels told belongs: rules and drops at the places of a trace."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace.observation import OTHERHOST, Role
from podwire.trace.schema import Direction, Dropped, Ruled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.trace.deep import Ruling, Tied
    from podwire.trace.observation import Observation
    from podwire.trace.schema import Hop, Path, Trace

Spot = tuple[int, int]
"""Indices of a path and of a hop on it."""


def met_at(paths: tuple[Path, ...], rulings: tuple[Ruling, ...]) -> list[tuple[Spot, Ruling]]:
    """The place of each ruling; what belongs to no predicted or seen place is left out."""
    found = []
    latest: dict[tuple[int, int], Spot] = {}
    for ruling in rulings:
        if ruling.role is Role.ERROR:
            continue
        key = (ruling.inode, ruling.id)
        spot = _spot(paths, ruling)
        if spot is None:
            spot = latest.get(key)
        if spot is not None:
            latest[key] = spot
            found.append((spot, ruling))
    return found


def _spot(paths: tuple[Path, ...], ruling: Ruling) -> Spot | None:
    """The place by direction, link and addresses; rules change addresses, so these come last."""
    best: tuple[tuple[object, ...], Spot] | None = None
    for number, path in enumerate(paths):
        if ruling.role is not None and path.direction is not _direction(ruling.role):
            continue
        for index, hop in enumerate(path.hops):
            if hop.inode != ruling.inode:
                continue
            addressed = (hop.packet.source, hop.packet.destination) == (
                ruling.source,
                ruling.destination,
            )
            if ruling.role is None and not addressed:
                continue
            rank = (_distance(hop, ruling), not addressed, hop.observed is None)
            if best is None or rank < best[0]:
                best = rank, (number, index)
    return None if best is None else best[1]


def _direction(role: Role) -> Direction:
    return Direction.FORWARD if role is Role.REQUEST else Direction.RETURN


def _distance(hop: Hop, ruling: Ruling) -> int:
    """0: the link it came in by, or for a packet made here goes out by; 2: another."""
    link = hop.where.interface
    if hop.side == "in" and ruling.iif is not None and link == ruling.iif:
        return 0
    if hop.side == "out" and link == ruling.oif:
        return 1 if ruling.iif is not None else 0
    return 2


def with_rules(trace: Trace, met: list[tuple[Spot, Ruling]]) -> Trace:
    """The trace with the rules at the places where they were met."""
    found: dict[Spot, dict[Ruled, list[Ruling]]] = defaultdict(lambda: defaultdict(list))
    for spot, ruling in met:
        # The end of a chain is told as a rule without a number.
        nameless = ruling.kind == "rule" and ruling.handle is None
        if not ruling.ours and not nameless:
            found[spot][ruled_as(ruling)].append(ruling)
    return _replaced(
        trace,
        {
            spot: {
                "ruled": tuple(
                    replace(each, count=packets(rulings)) for each, rulings in group.items()
                )
            }
            for spot, group in found.items()
        },
    )


def packets(same: list[Ruling]) -> int:
    """How many packets met one rule; buffers, and so the kernel's numbers of them, are reused."""
    probes = {each.probe for each in same}
    return len(same) if None in probes else len(probes)


def ruled_as(ruling: Ruling) -> Ruled:
    """The rule, without which packet met it."""
    return Ruled(
        family=ruling.family,
        table=ruling.table,
        chain=ruling.chain,
        handle=ruling.handle,
        kind=ruling.kind,
        verdict=ruling.verdict,
        target=ruling.target,
    )


def ended(tied: Tied, observation: Observation, lost: frozenset[int]) -> bool:
    """Whether the drop ended a probe or its answer: nothing of it was seen later."""
    seen = tied.last
    if seen.probe not in lost or seen.role is None:
        return False
    if seen.role is Role.REQUEST and observation.of(Role.REPLY, seen.probe):
        return False
    return not any(
        other.sighting.timestamp_ns > tied.event.time_ns
        and other.sighting.packet_type != OTHERHOST
        and other is not seen
        for other in observation.of(seen.role, seen.probe)
    )


def steady(drops: list[Tied], lost: frozenset[int]) -> list[Tied]:
    """What befell most of the probes that were lost: one may be tied to it by chance."""
    groups: dict[Dropped, set[int | None]] = defaultdict(set)
    for tied in drops:
        groups[dropped_as(tied)].add(tied.last.probe)
    return [tied for tied in drops if 2 * len(groups[dropped_as(tied)]) > len(lost)]


def with_drops(trace: Trace, drops: list[Tied]) -> Trace:
    """The trace with the drops at the places where their packets were seen last."""
    found: dict[Spot, dict[Dropped, set[int | None]]] = defaultdict(lambda: defaultdict(set))
    for tied in drops:
        spot = place_of(trace.paths, tied)
        if spot is not None:
            found[spot][dropped_as(tied)].add(tied.last.probe)
    return _replaced(
        trace,
        {
            spot: {"dropped": tuple(replace(each, count=len(ids)) for each, ids in group.items())}
            for spot, group in found.items()
        },
    )


def dropped_as(tied: Tied) -> Dropped:
    """The drop, without whose it was."""
    return Dropped(reason=tied.event.reason or "?", function=tied.event.function or "?")


def place_of(paths: tuple[Path, ...], tied: Tied) -> Spot | None:
    """Where the packet was seen last; None: at no place of the trace."""
    sighting = tied.last.sighting
    key = (sighting.inode, sighting.interface, sighting.side)
    for number, path in enumerate(paths):
        if path.direction is not _direction(tied.last.role):
            continue
        for index, hop in enumerate(path.hops):
            if (hop.inode, hop.where.interface, hop.side) == key and hop.observed is not None:
                return number, index
    return None


def _replaced(trace: Trace, found: Mapping[Spot, Mapping[str, tuple[object, ...]]]) -> Trace:
    paths = []
    for number, path in enumerate(trace.paths):
        hops = [
            replace(hop, **found.get((number, index), {}))  # type: ignore[arg-type]
            for index, hop in enumerate(path.hops)
        ]
        paths.append(replace(path, hops=tuple(hops)))
    return replace(trace, paths=tuple(paths))
