"""Deep: what the kernels themselves told of a probe, and which probe each word is about. Values.

A rule is the kernel's word about this very packet. A drop names neither namespace nor bytes: it is
tied to a probe by the address of the packet's buffer, which was at a link that a tap saw the probe
pass at the same moment. What cannot be tied so only happened meanwhile, and is told as that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.trace.flow import Protocol
from podwire.trace.observation import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podwire.model.addressing import IPAddress
    from podwire.trace.observation import Observation, Seen
    from podwire.trace.schema import Gap

QUEUED, RECEIVED, DROPPED = "queued", "received", "dropped"
"""A buffer is handed to a link, comes in by one, is thrown away."""
IPV4 = 0x0800
ETHERNET_HEADER = 14
NEAR_NS = 3_000_000
"""A tap and an event of one moment are microseconds apart; on a loaded machine, more."""
SOON_NS = 10_000_000
"""A packet is dropped in the moment after it was seen …"""
WAITING = "NEIGH_"
"""… but where these reasons say that it waited for its next hop's answer."""
OUR_OWN = frozenset({"SOCKET_FILTER"})
"""Reasons of drops that probe sockets themselves cause: they refuse copies of what they send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One rule, policy or return that a packet of the probe met."""

    inode: int
    id: int
    """The same for all words about one packet in one namespace; a later one can have it, too."""
    family: str
    table: str
    chain: str
    kind: str
    """rule, policy, return."""
    handle: int | None
    verdict: str
    target: str | None = None
    """Where a jump or goto leads."""
    iif: str | None = None
    oif: str | None = None
    role: Role | None = None
    """None: the packet around the probe, or one nobody can tell."""
    probe: int | None = None
    source: IPAddress | None = None
    destination: IPAddress | None = None
    ours: bool = False
    """Of the table that turned the trace on: the packet came by here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferEvent:
    """One thing that happened to a packet buffer, somewhere on this machine."""

    kind: str
    time_ns: int
    """Wall clock."""
    buffer: str
    """Its address, scrambled by the kernel, the same for all events of one buffer."""
    device: str | None = None
    length: int | None = None
    """Bytes: with the Ethernet header when queued, without it when received."""
    reason: str | None = None
    function: str | None = None
    protocol: int | None = None
    """Ethertype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Everything that was heard while the probes were on their way."""

    rulings: tuple[Ruling, ...] = ()
    listened: frozenset[int] = frozenset()
    """Inodes of the namespaces whose rules were traced, and nothing of it lost."""
    nft: bool = False
    """Rules were traced in each namespace on the way."""
    tracefs: bool = False
    """Drops were watched."""
    events: tuple[BufferEvent, ...] = ()
    """In the order of time."""
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tied:
    """A drop of a packet that was seen before, and where it was seen last."""

    event: BufferEvent
    last: Seen


def tied_drops(observation: Observation, events: Iterable[BufferEvent]) -> Iterator[Tied]:
    """The drops of buffers that carried a probe or its answer when they were seen last."""
    moments = _Moments.of(observation)
    latest: dict[str, Seen | None] = {}
    for event in events:
        if event.kind != DROPPED:
            latest[event.buffer] = moments.take(event, latest.get(event.buffer))
            continue
        seen = latest.pop(event.buffer, None)
        if seen is not None and _goes_with(event, seen):
            yield Tied(event=event, last=seen)


def _goes_with(drop: BufferEvent, seen: Seen) -> bool:
    """Whether the buffer still holds the packet: one that is used again may pass links unheard."""
    later = drop.time_ns - seen.sighting.timestamp_ns
    waited = (drop.reason or "").startswith(WAITING)
    right = drop.protocol == IPV4 and drop.reason not in OUR_OWN
    return right and (waited or later <= SOON_NS)


@dataclass(slots=True)
class _Moments:
    """Sightings of probes and answers by link and side, in the order of time; each taken once."""

    groups: dict[tuple[str | None, str], list[Seen]]
    taken: set[int]

    @classmethod
    def of(cls, observation: Observation) -> _Moments:
        groups: dict[tuple[str | None, str], list[Seen]] = defaultdict(list)
        for seen in observation.seen:
            if seen.role in {Role.REQUEST, Role.REPLY} and seen.probe is not None:
                groups[seen.sighting.interface, seen.sighting.side].append(seen)
        for group in groups.values():
            group.sort(key=lambda seen: seen.sighting.timestamp_ns)
        return cls(groups, set())

    def take(self, event: BufferEvent, before: Seen | None) -> Seen | None:
        """The sighting of the same moment at a link of that name, of a frame as long.

        Of several the one whose packet this buffer carried when it was seen before.
        """
        side = "out" if event.kind == QUEUED else "in"
        group = self.groups.get((event.device, side), [])
        times = [seen.sighting.timestamp_ns for seen in group]
        start = bisect_left(times, event.time_ns - NEAR_NS)
        end = bisect_right(times, event.time_ns + NEAR_NS)

        def rank(seen: Seen) -> tuple[bool, int]:
            other = before is not None and (seen.probe, seen.role) != (before.probe, before.role)
            return other, abs(seen.sighting.timestamp_ns - event.time_ns)

        near = (
            seen
            for seen in group[start:end]
            if id(seen) not in self.taken and _as_long(seen, event)
        )
        found = min(near, key=rank, default=None)
        if found is not None:
            self.taken.add(id(found))
        return found


def _as_long(seen: Seen, event: BufferEvent) -> bool:
    header = ETHERNET_HEADER if seen.sighting.ethernet and event.kind == RECEIVED else 0
    return event.length is None or event.length == seen.sighting.length - header


def loose_drops(
    observation: Observation, events: Iterable[BufferEvent], lost: tuple[int, ...]
) -> dict[tuple[str, str], int]:
    """Reason and function of what happened meanwhile to IPv4 packets, and for how many probes.

    A drop is counted for a probe that was lost when it came after that probe was sent; each is
    counted once. Reasons of another protocol than the probe's are left out.
    """
    sent = sorted(each.time_ns for each in observation.sent if each.probe in lost)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        reason = event.reason or ""
        if event.kind == DROPPED and event.protocol == IPV4 and _may_be(observation, reason):
            groups[reason, event.function or "?"].append(event.time_ns)
    found = {}
    for key, times in groups.items():
        number = 0
        for time in times:
            if number < len(sent) and time >= sent[number]:
                number += 1
        if number:
            found[key] = number
    return found


def _may_be(observation: Observation, reason: str) -> bool:
    protocol = observation.series.protocol
    others = [each for each in (Protocol.TCP, Protocol.UDP) if each is not protocol]
    foreign = any(reason.startswith(f"{each.upper()}_") for each in others)
    return not foreign and not reason.startswith("UNIX_") and reason not in OUR_OWN
