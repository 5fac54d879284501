"""Status: what the agent says of itself. A plain value, made anew by each turn."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from podwire.desired.bgp import PeerType
from podwire.desired.entries import Table
from podwire.desired.reflectors import advice
from podwire.model.endpoint import parse_link_alias
from podwire.model.pool import Encapsulation
from podwire.model.route import Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.agent.apply import Applier
    from podwire.agent.loopworld import AgentWorld
    from podwire.agent.picture import Picture
    from podwire.desired.bgp import BirdConfig
    from podwire.model.link import Link

SHOWN = 20
"""Concerns of one kind that are spelt out; of more only the number is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MTUs:
    """What packets may measure, in bytes; None while it is not known."""

    pod: int
    """Of a new pod."""
    underlay: int | None = None
    """Of this node's way to the others."""
    cluster: int | None = None
    """The smallest of all nodes' underlays."""
    narrowest: str | None = None
    """The node that has it; None where all are alike."""
    live_pods: Mapping[str, int] = field(default_factory=dict)
    """Pods that have another MTU than a new one would get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the agent fares."""

    ready: bool = False
    held: bool = False
    reasons: tuple[str, ...] = ("starting",)
    """Why it is not ready; empty when it is."""
    concerns: tuple[str, ...] = ()
    """What is wrong with single objects: conflicts, refusals, unreadable resources."""
    tables: Mapping[str, int] = field(default_factory=dict)
    """How many entries of ours each kernel table should hold."""
    mtus: MTUs | None = None


def describe(
    world: AgentWorld, picture: Picture, why_not: tuple[str, ...], left_out: tuple[str, ...] = ()
) -> Status:
    """Say how the agent fares.

    `why_not` is what the loop itself is still waiting for, `left_out` what BIRD is not told.
    """
    reasons = (*why_not, *_not_ready(world, picture))
    concerns = (
        *(*_conflicts(picture), *_failures(world), *_unreadable(picture), *_too_wide(picture)),
        *_misnamed(picture),
        *left_out,
    )
    return Status(
        ready=not reasons,
        held=world.hold.is_asked(),
        reasons=reasons,
        concerns=concerns,
        tables={table.value: len(picture.kernel.trackers[table].desired) for table in Table},
        mtus=describe_mtus(picture),
    )


def describe_mtus(picture: Picture) -> MTUs:
    """Say which MTU is in use, why, and which pods still have another."""
    here = picture.here
    live = {_title(size.host): size.host.mtu for size in picture.sizes()}
    if here is None:
        return MTUs(pod=picture.pod_mtu(), live_pods=live)
    narrowest = picture.place.narrowest_other
    if narrowest is not None and here.underlay.mtu <= here.others_mtu:
        narrowest = here.node.name if here.underlay.mtu < here.others_mtu else None
    return MTUs(
        pod=picture.pod_mtu(),
        underlay=here.underlay.mtu,
        cluster=here.mtu,
        narrowest=narrowest,
        live_pods=live,
    )


def _title(link: Link) -> str:
    """A pod's name; of an interface that is not its first, with the interface's."""
    owner = parse_link_alias(link.alias)
    if owner is None:
        return link.name
    return owner.title if owner.interface == "eth0" else f"{owner.title} {owner.interface}"


def as_json(world: AgentWorld, status: Status, applier: Applier) -> dict[str, Any]:
    """What `podwire agent status` prints, but for what the agent itself has to say of its parts."""
    counters, bird = applier.counters, bird_json(world)
    return {
        "node": world.config.node,
        "pid": os.getpid(),
        "held": world.hold.is_asked(),
        "heldFor": world.hold.remaining_s(),
        "socket": world.config.agent_socket,
        "datastore": world.config.datastore.place,
        "endpoints": len(world.endpoints.all()),
        "tables": dict(status.tables),
        "mtu": mtu_json(status.mtus),
        "routing": "agent" if bird is None else "bird",
        "bird": bird,
        "counters": {
            **asdict(counters),
            "storeWrites": world.registrar.writes + world.publisher.writes,
            "waits": world.publisher.waits,
            "waitTimeouts": world.publisher.timeouts,
        },
    }


def mtu_json(mtus: MTUs | None) -> dict[str, Any] | None:
    """The MTUs; None before the first turn."""
    if mtus is None:
        return None
    return {
        "pod": mtus.pod,
        "underlay": mtus.underlay,
        "cluster": mtus.cluster,
        "narrowest": mtus.narrowest,
        "livePods": dict(mtus.live_pods),
    }


def bird_json(world: AgentWorld) -> dict[str, Any] | None:
    """How BIRD fares; None where it has nothing to do."""
    wish, report = world.bird.wish, world.bird.report
    if wish is None or wish.config is None:
        return None
    return {
        "socket": world.config.bird_socket,
        "version": report.version,
        "sessions": report.sessions,
        "established": report.established,
        "configured": report.told is wish,
        "problem": None if report.refused is None else str(report.refused),
        "advice": advice(len(wish.nodes), mesh=_has_mesh(wish.config)),
    }


def _has_mesh(config: BirdConfig) -> bool:
    return any(peer.type is PeerType.MESH for peer in config.peers)


def _not_ready(world: AgentWorld, picture: Picture) -> Iterator[str]:
    away = picture.mirror.away if picture.mirror.in_sync else {}
    for reason in sorted(set(away.values())):
        yield f"the datastore is away: {reason}"
    problems = dict(world.registrar.problems)
    yield from dict.fromkeys(map(str, problems.values()))  # a store that is away fails every step
    if not problems and not world.registrar.ready:
        yield "the node is being registered"
    for tunnel in picture.tunnels():
        if tunnel.name not in picture.kernel.links:
            failure = world.failures.find(tunnel.name)
            yield f"{tunnel.name} is missing" if failure is None else str(failure.error)


def _conflicts(picture: Picture) -> Iterator[str]:
    for table in Table:
        conflicts = picture.kernel.trackers[table].pending.conflicts
        for entry in islice(conflicts.values(), SHOWN):
            if isinstance(entry, Route):
                yield (
                    f"route {entry.key.destination} is held by protocol {entry.protocol};"
                    " ours is not written"
                )
            else:
                yield f"{table.value}: {entry} is not ours; ours is not written"
        if len(conflicts) > SHOWN:
            yield f"{len(conflicts) - SHOWN} more conflicts in {table.value}"


def _failures(world: AgentWorld) -> Iterator[str]:
    failures = world.failures.all()
    for failure in islice(failures.values(), SHOWN):
        if failure.attempts > 1:
            yield str(failure.error)
    if len(failures) > SHOWN:
        yield f"{len(failures) - SHOWN} more objects are refused"


def _unreadable(picture: Picture) -> Iterator[str]:
    yield from picture.mirror.unreadable.values()


def _too_wide(picture: Picture) -> Iterator[str]:
    wanted, fitting = picture.pod_mtu(), picture.fitting_mtu()
    if picture.here is not None and wanted > fitting:
        yield (
            f"mtu {wanted} of the configuration is more than the {fitting} bytes that get through"
            " between all nodes: set it to that, or leave it out"
        )


def _misnamed(picture: Picture) -> Iterator[str]:
    here = picture.here
    kinds = {pool.encapsulation for pool in picture.mirror.pools.values()}
    if here is None or here.node.address is None or Encapsulation.IPIP not in kinds:
        return
    found, own = picture.place.misnamed(here.underlay), here.node.address.ip
    if found:
        yield (
            f"IPIP to {', '.join(found[:SHOWN])} does not leave with the node's address {own}, so"
            f" it may be refused there: let the routes to the nodes have `src {own}`"
        )
