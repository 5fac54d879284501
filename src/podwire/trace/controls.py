"""Control probes: what else is sent after a loss that no state explains, to cut it in two.

The same ends with another protocol or a small packet: does the way lose everything, or this only?
Between the nodes, a ping and the tunnel's own port: is it the wire as a whole, or what the tunnel
sends? One packet each, and only after a loss that is not certain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.fib import Decision
from podwire.trace.flow import EPHEMERAL_PORT, Flow, Protocol
from podwire.trace.observation import Role
from podwire.trace.schema import Control, ControlKind, Direction, Disposition, Evidence
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.model.addressing import IPAddress
    from podwire.trace.observation import Observation, Sighting
    from podwire.trace.schema import Fault, Hop, Path, Trace
    from podwire.trace.space import Space
    from podwire.trace.world import World

OPEN = frozenset(
    {
        Disposition.LOST_ON_LINK,
        Disposition.UNEXPLAINED,
        Disposition.DELIVERED_NO_ANSWER,
        Disposition.INSUFFICIENT_INFO,
    }
)
"""Where the states leave a question."""
SMALL = 256
"""Bytes up to which a packet's size is not what it is lost for."""
CLOSED_PORT = 33434
"""Where traceroute sends, too; a receiver refuses it, and that is an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One packet to be sent."""

    kind: ControlKind
    inode: int
    """Of the namespace that sends."""
    source: IPAddress
    destination: IPAddress
    flow: Flow
    place: tuple[int, str] | None = None
    """Namespace and link where it should come in; None: nobody watches there."""


def wanted(world: World, trace: Trace) -> tuple[Planned, ...]:
    """What should be sent after a trace; mostly nothing."""
    probing = trace.probing
    if probing is None or probing.answered or trace.disposition not in OPEN:
        return ()
    path = _furthest(trace)
    if trace.confidence == "certain" or path is None:
        return ()
    return (*_same_ends(world, trace), *_between_nodes(world, path))


def _furthest(trace: Trace) -> Path | None:
    """The path on which the packet, or else its answer, was seen last."""
    for direction in (Direction.RETURN, Direction.FORWARD):
        paths = [each for each in trace.paths if each.direction is direction and _seen(each)]
        if paths:
            return max(paths, key=lambda each: len(_seen(each)))
    return None


def _seen(path: Path) -> list[Hop]:
    return [hop for hop in path.hops if hop.observed is not None]


def _same_ends(world: World, trace: Trace) -> Iterable[Planned]:
    forward = next(each for each in trace.paths if each.direction is Direction.FORWARD)
    made = forward.made

    def planned(kind: ControlKind, flow: Flow) -> Planned:
        return Planned(
            kind=kind,
            inode=forward.hops[0].inode,
            source=made.source,
            destination=made.destination,
            flow=flow,
        )

    if trace.flow.length > SMALL:
        yield planned(ControlKind.SMALL, replace(trace.flow, size=None))
    if trace.flow.protocol is not Protocol.ICMP:
        yield planned(ControlKind.OTHER, Flow())
    elif trace.destination.ip is not None and world.owners(trace.destination.ip):
        # A port of a stranger's is not tried.
        flow = Flow(protocol=Protocol.TCP, port=CLOSED_PORT, source_port=trace.flow.source_port)
        yield planned(ControlKind.OTHER, flow)


def _between_nodes(world: World, path: Path) -> Iterable[Planned]:
    last = _seen(path)[-1]
    ends = _outer_ends(last) or _next_hop_ends(world, path, last)
    if ends is None:
        return
    source, destination = ends
    on_the_way = {hop.inode for hop in path.hops}
    senders = [port for port in world.owners(source) if port.space.inode in on_the_way]
    receivers = world.owners(destination)
    if not senders or any(port.space is senders[0].space for port in receivers):
        return
    place = (receivers[0].space.inode, receivers[0].link.name) if len(receivers) == 1 else None

    def planned(kind: ControlKind, flow: Flow) -> Planned:
        return Planned(
            kind=kind,
            inode=senders[0].space.inode,
            source=source,
            destination=destination,
            flow=flow,
            place=place,
        )

    yield planned(ControlKind.NODES, Flow())
    outer = None if last.observed is None else last.observed.packet
    if outer is not None and outer.inner is not None and outer.protocol is Protocol.UDP:
        port, own = outer.destination_port, outer.source_port or EPHEMERAL_PORT
        if port is not None and place is not None:
            flow = Flow(protocol=Protocol.UDP, port=port, source_port=own)
            yield planned(ControlKind.TUNNEL, flow)


def _outer_ends(last: Hop) -> tuple[IPAddress, IPAddress] | None:
    packet = None if last.observed is None else last.observed.packet
    if packet is None or packet.inner is None:
        return None
    return packet.source, packet.destination


def _next_hop_ends(world: World, path: Path, last: Hop) -> tuple[IPAddress, IPAddress] | None:
    """The last node's own address on the wire, and the next node's: the gateway of its route."""
    outs = [hop for hop in _seen(path) if hop.side == "out" and world.is_node(_space(world, hop))]
    if not outs or world.pod_in(_space(world, last)) is not None:
        return None
    node = outs[-1]
    decisions = [
        each.answer for each in path.lookups if each.inode == node.inode and each.iif is not None
    ]
    gateways = [
        hop.gateway
        for decision in decisions
        if isinstance(decision, Decision)
        for hop in decision.hops
        if hop.gateway is not None and hop.gateway.version == node.packet.source.version
    ]
    try:
        space = _space(world, node)
        link = space.links_by_name.get(node.where.interface or "")
        addresses = [] if link is None else space.addresses_of(link)
    except Lacking:
        return None
    if not gateways or not addresses:
        return None
    return addresses[0].interface.ip, gateways[-1]


def _space(world: World, hop: Hop) -> Space:
    return world.spaces[hop.inode]


def outcome(plan: Planned, observation: Observation) -> Control:
    """What became of one."""
    sent = observation.sent[0]
    arrived = None
    if plan.place is not None and sent.errno is None:
        arrived = any(
            (*_link(each.sighting), each.sighting.side) == (*plan.place, "in")
            for each in observation.of(Role.REQUEST, 0)
        )
    return Control(
        kind=plan.kind,
        source=plan.source,
        destination=plan.destination,
        flow=plan.flow,
        answered=observation.answered(0),
        arrived=arrived,
        refused=sent.reason,
    )


def _link(sighting: Sighting) -> tuple[int, str | None]:
    return sighting.inode, sighting.interface


def concluded(trace: Trace, controls: Sequence[Control]) -> Trace:
    """The trace with what the controls say."""
    if not controls:
        return trace
    found = {each.kind: each for each in controls if each.refused is None}
    said = "; ".join(_meanings(trace, found))
    evidence = tuple(
        Evidence(kind="packet", key=f"control {each.title}", value=each.outcome)
        for each in controls
    )
    errors = [fault for fault in trace.faults if fault.severity == "error"]
    first = errors[0] if errors and errors[0].confidence != "possible" else None
    trace = replace(trace, controls=tuple(controls), summary=_joined(trace.summary, said))
    if first is None:
        return trace
    sure = first.id == "link.lost" and _takes_the_tunnel_away(found) and _watched_well(trace)
    confidence = "certain" if sure else first.confidence
    better = replace(
        first,
        sentence=_joined(first.sentence, said),
        evidence=(*first.evidence, *evidence),
        confidence=confidence,
    )
    faults: tuple[Fault, ...] = tuple(better if each is first else each for each in trace.faults)
    return replace(trace, faults=faults, confidence="certain" if sure else trace.confidence)


def _joined(text: str, said: str) -> str:
    return f"{text}; {said}" if said else text


def _takes_the_tunnel_away(found: dict[ControlKind, Control]) -> bool:
    nodes, tunnel = found.get(ControlKind.NODES), found.get(ControlKind.TUNNEL)
    return nodes is not None and nodes.answered and tunnel is not None and tunnel.arrived is False


def _watched_well(trace: Trace) -> bool:
    """Whether what was not seen was not there, every time, in a network that held still."""
    probing = trace.probing
    gap = any(each.what.startswith("taps in") for each in trace.gaps)
    return probing is not None and probing.steadiness == "steady" and not (probing.changed or gap)


def _meanings(trace: Trace, found: dict[ControlKind, Control]) -> Iterable[str]:
    small, other = found.get(ControlKind.SMALL), found.get(ControlKind.OTHER)
    if small is not None and small.answered:
        yield f"the same with {small.flow.length} bytes is answered, so its size decides"
    if other is not None:
        if other.answered:
            yield (
                f"{other.flow.title} is answered there, so the way there and back is in order: "
                f"only {trace.flow.title} gets no answer"
            )
        else:
            yield f"{other.flow.title} gets no answer either"
    yield from _about_the_wire(found)


def _about_the_wire(found: dict[ControlKind, Control]) -> Iterable[str]:
    nodes, tunnel = found.get(ControlKind.NODES), found.get(ControlKind.TUNNEL)
    if nodes is None:
        return
    ends = f"{nodes.source} and {nodes.destination}"
    if not nodes.answered:
        yield f"between {ends} a ping gets no answer either"
    elif tunnel is None or tunnel.arrived is None:
        yield f"between {ends} a ping is answered"
    elif tunnel.arrived:
        yield f"between {ends} a ping is answered and {tunnel.flow.title} arrives"
    else:
        yield (
            f"between {ends} a ping is answered and {tunnel.flow.title} does not arrive: "
            "something between them takes it away"
        )
