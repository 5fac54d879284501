"""Predict: both directions of a flow, by the model alone, and what they add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.trace import complaints, ends, faults, fib, intake
from podwire.trace.cursor import Cursor
from podwire.trace.fib import Query
from podwire.trace.flow import Flow, Packet, Protocol
from podwire.trace.positions import with_positions
from podwire.trace.schema import (
    Cause,
    Direction,
    Disposition,
    EndView,
    Fault,
    Gap,
    Path,
    Trace,
)
from podwire.trace.space import Lacking, Space
from podwire.trace.walk import walk
from podwire.trace.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.model.addressing import IPAddress
    from podwire.model.kernelstate import KernelState
    from podwire.trace.ends import End

SYN_ACK_BYTES = 60
NOT_ROUTED = frozenset(
    {Disposition.NO_ROUTE, Disposition.NULL_ROUTED, Disposition.ROUTE_UNREACHABLE}
)


def predict(
    states: Iterable[KernelState], source: str, destination: str, flow: Flow | None = None
) -> Trace:
    """Say what would become of one packet from `source` to `destination`, and of its answer.

    The ends are addresses, `namespace/pod`, pod names, nodes or network namespaces.

    Raises:
        BadInput: an end is unknown or ambiguous, or the two are of different families.
    """
    world = World(states)
    wanted = flow or Flow()
    try:
        start, goal = ends.resolve(world, source), ends.resolve(world, destination)
    except Lacking as gap:
        return _unknown_end(wanted, source, destination, gap)
    if start.space is None:
        raise BadInput(
            f"no namespace that is visible here carries {source}",
            fix="name a pod, node or namespace of this host as the source",
        )
    try:
        _refuse_other_family(start, goal)
        there = _there(world, start, goal, wanted)
    except Lacking as gap:
        return _without_walk(world, wanted, start, goal, gap)
    there = tuple(complaints.with_complaint(world, path) for path in there)
    back = tuple(complaints.with_complaint(world, path) for path in _back(world, there))
    return _conclude(world, wanted, start, goal, (*there, *back))


def _there(world: World, start: End, goal: End, flow: Flow) -> tuple[Path, ...]:
    space = start.space
    assert space is not None
    if goal.address is None:
        raise Lacking(f"address of {goal.title}", "it has none, and no route tells which one")
    if goal.address.version == 6 and goal.address.is_link_local:
        raise Lacking(f"{goal.address}", "link-local destinations are not modelled")
    source = _source_address(space, start, goal.address)
    packet = Packet(
        source=source,
        destination=goal.address,
        protocol=flow.protocol,
        source_port=None if flow.port is None else flow.source_port,
        destination_port=flow.port,
        ttl=space.default_ttl(goal.address.version),
        length=flow.length,
        df=flow.df,
    )
    return tuple(
        replace(path, sent=packet) for path in walk(world, Cursor(space=space, packet=packet))
    )


def _refuse_other_family(start: End, goal: End) -> None:
    """Between IPv4 and IPv6 there is no packet.

    Raises:
        BadInput: the source has no address of the destination's family.
        Lacking: its addresses were not read.
    """
    assert start.space is not None
    ours, theirs = start.address, goal.address
    if ours is None or theirs is None or ours.version == theirs.version:
        return
    if start.kind == "address" or _any_address(start.space, theirs.version) is None:
        raise BadInput(
            f"{start.title} has no IPv{theirs.version} address to send to {theirs} from",
            fix="name two ends of one family",
        )


def _source_address(space: Space, start: End, destination: IPAddress) -> IPAddress:
    """What the kernel would choose, unless the caller named an address."""
    if start.kind == "address" and start.address is not None:
        return start.address
    decision = fib.lookup(space, Query(destination=destination))
    found = intake.select_source(space, decision, destination)
    if found is None and start.address is not None:
        # Nothing will leave: any address of that family tells the story.
        found = start.address
        if found.version != destination.version:
            found = _any_address(space, destination.version)
    if found is None:
        raise Lacking(f"address of {start.title}", "it has none to send from")
    return found


def _back(world: World, there: tuple[Path, ...]) -> tuple[Path, ...]:
    """The ways of the answer, one walk for every receiver and connection."""
    receivers: dict[tuple[int, Packet], Path] = {}
    for path in there:
        answers = path.disposition is Disposition.DELIVERED_AND_ANSWERED
        if answers and path.reached is not None and path.arrived is not None:
            receivers.setdefault((path.reached, path.arrived), path)
    found: list[Path] = []
    for (inode, packet), path in receivers.items():
        space = world.spaces[inode]
        length = SYN_ACK_BYTES if packet.protocol is Protocol.TCP else packet.length
        ttl = space.default_ttl(packet.source.version)
        answer = replace(packet.answer(length), ttl=ttl, df=False)
        begin = Cursor(space=space, packet=answer, direction=Direction.RETURN, heard=path.heard)
        found += [_recognized(each, path.made) for each in walk(world, begin)]
    found += [path.complaint for path in there if _is_refused(path) and path.complaint is not None]
    return tuple(replace(path, branch=number) for number, path in enumerate(found))


def _is_refused(path: Path) -> bool:
    """Whether the receiver itself answers, with a refusal."""
    return path.cause is not None and path.cause.code == "port-closed"


def _any_address(space: Space, version: int) -> IPAddress | None:
    for link in space.links.values():
        for address in space.addresses_of(link, version):
            if address.scope == 0:
                return address.interface.ip
    return None


def _recognized(path: Path, sent: Packet) -> Path:
    """The sender takes an answer only from where it sent to; NAT may have changed that."""
    got = path.arrived
    if got is None or got.ends == sent.ends.turned():
        return path
    cause = Cause(
        code="answer-from-other",
        where=path.hops[-1].where,
        inode=path.hops[-1].inode,
        text=(
            f"the answer comes from {got.source}"
            f"{'' if got.source_port is None else f':{got.source_port}'}, not from "
            f"{sent.destination}: it was not translated back"
        ),
    )
    return replace(path, disposition=Disposition.ANSWERED_BY_OTHER, cause=cause)


def _conclude(world: World, flow: Flow, start: End, goal: End, paths: tuple[Path, ...]) -> Trace:
    assert start.space is not None
    source_inode = start.space.inode
    judged = tuple(
        _with_fate(_at_the_right_place(path, source_inode, goal), world, source_inode)
        for path in paths
    )
    worst = min(judged, key=_severity)
    disposition = _disposition(worst)
    named = faults.explain(world, judged, goal.address)
    gaps = tuple(path.gap for path in judged if path.gap is not None)
    return Trace(
        flow=flow,
        source=start.view(world),
        destination=goal.view(world),
        disposition=disposition,
        summary=_summary(disposition, worst, named, start, goal),
        confidence="possible" if disposition is Disposition.INSUFFICIENT_INFO else "likely",
        faults=named,
        paths=tuple(with_positions(path, start, goal) for path in _told(judged, worst)),
        gaps=tuple(dict.fromkeys(gaps)),
        path_mtu=_path_mtu(judged),
    )


def _with_fate(path: Path, world: World, source_inode: int) -> Path:
    """What is sent back about a loss, said at the step that causes it."""
    sender = path.hops[0].inode if path.direction is Direction.RETURN else source_inode
    said = complaints.fate(path, world, sender)
    if said is None or not path.hops or not path.hops[-1].steps:
        return path
    *hops, last = path.hops
    *steps, end = last.steps
    end = replace(end, detail={**end.detail, "sentBack": said})
    return replace(path, hops=(*hops, replace(last, steps=(*steps, end))))


def _severity(path: Path) -> tuple[int, int]:
    """Which path speaks for the whole: a loss before a gap before success; there before back."""
    back = path.direction is Direction.RETURN
    match path.disposition:
        case Disposition.DELIVERED_AND_ANSWERED:
            return (3, back)
        case Disposition.INSUFFICIENT_INFO:
            return (1, back)
        case _:
            return (0, back)


def _disposition(worst: Path) -> Disposition:
    unsent = all(hop.where.interface is None for hop in worst.hops)
    if worst.direction is Direction.RETURN and unsent and worst.disposition in NOT_ROUTED:
        # The receiver could not even begin to answer.
        return Disposition.DELIVERED_NO_ANSWER
    return worst.disposition


def _at_the_right_place(path: Path, source_inode: int, goal: End) -> Path:
    """A packet that is taken by somebody else is not delivered."""
    if path.reached is None or path.disposition is not Disposition.DELIVERED_AND_ANSWERED:
        return path
    if path.direction is Direction.RETURN:
        wanted: int | None = source_inode
    else:
        wanted = None if goal.space is None else goal.space.inode
    if wanted is None or path.reached == wanted or goal.others or _was_translated(path):
        return path
    last = path.hops[-1].where
    cause = Cause(
        code="taken-by-other",
        where=last,
        inode=path.reached,
        text=f"{last.netns} has the address {path.hops[-1].packet.destination}, too, and took it",
    )
    return replace(path, disposition=Disposition.ANSWERED_BY_OTHER, cause=cause)


def _was_translated(path: Path) -> bool:
    """Whether a rule on the way sent the packet to another receiver on purpose."""
    return any(step.component == "NAT" for hop in path.hops for step in hop.steps)


def _told(paths: tuple[Path, ...], worst: Path) -> tuple[Path, ...]:
    """A way there counts as answered only when the answer's way is known to be good."""
    if worst.direction is Direction.FORWARD:
        return paths
    unknown = worst.disposition is Disposition.INSUFFICIENT_INFO
    spoiled = Disposition.INSUFFICIENT_INFO if unknown else Disposition.DELIVERED_NO_ANSWER
    if worst.disposition is Disposition.DELIVERED_AND_ANSWERED:
        return paths
    return tuple(
        replace(path, disposition=spoiled) if path.direction is Direction.FORWARD else path
        for path in paths
    )


def _summary(
    disposition: Disposition, worst: Path, named: tuple[Fault, ...], start: End, goal: End
) -> str:
    errors = [fault for fault in named if fault.severity == "error"]
    if disposition is Disposition.DELIVERED_AND_ANSWERED:
        return f"{start.title} reaches {goal.title}, and the answer comes back"
    if disposition is Disposition.INSUFFICIENT_INFO and worst.gap is not None:
        gap = worst.gap
        beyond = f"; it would decide {gap.decides}" if gap.decides else ""
        return f"cannot say: {gap.what}: {gap.why}{beyond}"
    if errors:
        return errors[0].sentence
    return worst.cause.text if worst.cause is not None else str(disposition)


def _path_mtu(paths: tuple[Path, ...]) -> int | None:
    """The narrowest link on the way there, tunnels' headers taken off."""
    sizes = [
        hop.mtu - _overhead(hop.packet)
        for path in paths
        if path.direction is Direction.FORWARD and path.reached is not None
        for hop in path.hops
        if hop.mtu is not None
    ]
    return min(sizes, default=None)


def _overhead(packet: Packet) -> int:
    if packet.inner is None:
        return 0
    return (50 if packet.vni is not None else 20) + _overhead(packet.inner)


def _unknown_end(flow: Flow, source: str, destination: str, gap: Lacking) -> Trace:
    found = Gap(what=gap.what, why=gap.why, decides=gap.decides)
    return Trace(
        flow=flow,
        source=EndView(kind="pod", title=source, ip=None),
        destination=EndView(kind="pod", title=destination, ip=None),
        disposition=Disposition.INSUFFICIENT_INFO,
        summary=f"cannot say: {gap.what}: {gap.why}",
        confidence="possible",
        faults=(),
        paths=(),
        gaps=(found,),
    )


def _without_walk(world: World, flow: Flow, start: End, goal: End, gap: Lacking) -> Trace:
    trace = _unknown_end(flow, start.title, goal.title, gap)
    return replace(trace, source=start.view(world), destination=goal.view(world))
