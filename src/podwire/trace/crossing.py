"""Crossing: a frame over cables and bridges, past the rules that sit below IP, to who takes it.

Order as in the kernel: out of a link its egress chains; into a link what is tapped there, then its
ingress chains; in a bridge prerouting → its decision → forward (output for its own) → postrouting,
or input. Where br_netfilter is on, IP's chains run inside those of bridges: prerouting and forward
after chains of priority 0 and less, postrouting last (net/bridge/br_netfilter_hooks.c).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.route import RouteKind
from podwire.trace import fib, intake, segment
from podwire.trace import ruleset as rulesets
from podwire.trace.cursor import Cursor, cause_at, hop_at
from podwire.trace.fib import Query
from podwire.trace.flow import Protocol
from podwire.trace.intake import Refusal
from podwire.trace.passage import HIGHEST, LOWEST, Frame, Layer, PacketType, Passage
from podwire.trace.policy import judge, onward
from podwire.trace.schema import REFUSED, Disposition, Path, Step
from podwire.trace.segment import PLAIN_PORT, Crossing, Lost, Reach
from podwire.trace.space import Lacking
from podwire.trace.world import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPAddress
    from podwire.trace.world import World

Ways: TypeAlias = "list[Cursor | Path]"
VLAN_BYTES = 4
"""A device takes frames of its MTU plus one VLAN tag (is_skb_forwardable)."""
BRIDGED_IP = 0
"""NF_BR_PRI_BRNF: chains of bridges up to this priority run before IP's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ride:
    """A frame on its way to one link."""

    frame: Frame
    goal: Port | Lost
    todo: tuple[Crossing, ...] = ()
    resolve: Callable[[World, Cursor, Port, IPAddress], tuple[str, Cursor] | Path] | None = None
    """How a MAC is found for a packet that is translated on a bridge."""
    came_by: Port | None = None
    """The port of the bridge in which it is."""
    filtered: bool = False
    """br_netfilter shows it to the rules of IP."""
    kind: int = PacketType.HOST
    """Its packet type inside the bridge, by the MAC with which it came."""


def bridge_of(port: Port) -> Port:
    """The bridge that a port belongs to."""
    assert port.link.master is not None
    return Port(space=port.space, link=port.space.links[port.link.master])


def leave(
    world: World, cursor: Cursor, port: Port, frame: Frame | None, role: str = "link"
) -> Ways:
    """Out of a link that its own namespace sends by: egress chains, then the place is passed."""
    ways = beside(world, cursor, "egress", port, frame)
    return onward(ways, lambda each: [each.with_hop(hop_at(world, port, "out", each.packet, role))])


def beside(
    world: World,
    cursor: Cursor,
    hook: str,
    port: Port,
    frame: Frame | None,
    kind: int | None = None,
) -> Ways:
    """The chains beside one link: family netdev, and inet's at ingress."""
    if Layer.LINK not in rulesets.of(cursor.space).layers:
        return [cursor]
    inwards = hook == "ingress"
    if kind is None:
        kind = frame.kind_for(port.link.mac) if inwards and frame else PacketType.HOST
    name = port.link.name
    passage = Passage(
        hook=hook,
        packet=cursor.packet,
        layer=Layer.LINK,
        iif=name if inwards else None,
        oif=None if inwards else name,
        local=cursor.link is None,
        frame=frame,
        kind=kind,
    )
    return judge(world, cursor, passage)


def follow(world: World, cursor: Cursor, port: Port, reached: Reach, ride: Ride) -> Ways:
    """To the one of all places a frame reaches that takes it, or to where it is lost.

    Raises:
        Lacking: it reaches something that was not read.
    """
    mac = ride.frame.destination
    arrival = next((each for each in reached.arrivals if each.port.link.mac == mac), None)
    arrival = arrival or next((each for each in reached.arrivals if each.up), None)
    lost = reached.obstacle(mac=mac)
    # Its owner cut off is the loss, not a copy that somebody else throws away.
    if arrival is None and lost is None and not reached.unseen and len(reached.arrivals) == 1:
        arrival = reached.arrivals[0]
    if arrival is not None:
        return go(world, cursor, replace(ride, goal=arrival.port, todo=arrival.crossings))
    if lost is None and reached.unseen:
        unseen = reached.unseen[0]
        text = f"the packet leaves {cursor.space.title} by {port.link.name}"
        raise Lacking(unseen.what, unseen.why, decides=f"what becomes of it: {text}")
    if lost is None and reached.lost and not reached.arrivals:
        lost = reached.lost[0]
    if lost is not None:
        return go(world, cursor, replace(ride, goal=lost, todo=lost.crossings))
    facts = {"mac": mac, "link": port.link.name}
    text = f"nobody behind {port.link.name} of {cursor.space.title} has the MAC {mac}"
    cause = cause_at(cursor, world, port.link, "mac-unknown", text, facts)
    return [cursor.dropped(Disposition.NOT_FOR_ME, cause, "Link")]


def go(world: World, cursor: Cursor, ride: Ride) -> Ways:
    """On from here: the next bridge port, or the end."""
    if ride.todo:
        crossing, rest = ride.todo[0], replace(ride, todo=ride.todo[1:])
        step = _into_bridge if crossing.inbound else _out_of_bridge
        return step(world, cursor, crossing, rest)
    if isinstance(ride.goal, Lost):
        return [_lost(world, cursor, ride.goal, ride.frame)]
    if ride.came_by is not None:
        return _up(world, cursor, ride.goal, ride)
    ways = _take_in(world, cursor, ride.goal, ride.frame, "link")
    return onward(ways, partial(_taken, world, ride=ride, there=ride.goal))


def _take_in(world: World, cursor: Cursor, port: Port, frame: Frame, role: str) -> Ways:
    """In at the other end of a cable."""
    if _is_too_long(cursor, port):
        return [_too_narrow(world, cursor, port)]
    packet = cursor.packet if port.space is cursor.space else cursor.packet.apart()
    cursor = replace(cursor, space=port.space, packet=packet, prerouted=False)
    cursor = cursor.with_hop(hop_at(world, port, "in", packet, role=role))
    return beside(world, cursor, "ingress", port, frame)


def _taken(world: World, cursor: Cursor, ride: Ride, there: Port) -> Ways:
    """The namespace has the frame; it drops what is for another MAC."""
    ports = (there,) if ride.came_by is None else (there, ride.came_by)
    macs = [each.link.mac for each in ports]
    if None not in macs and ride.frame.kind_for(*macs) == PacketType.OTHER:
        return [_for_another(world, cursor, there, ride.frame.destination)]
    return [replace(cursor, link=there.link, prerouted=ride.filtered)]


def _up(world: World, cursor: Cursor, bridge: Port, ride: Ride) -> Ways:
    """Out of a bridge into the namespace it is in."""
    assert ride.came_by is not None
    ways = _bridged(world, cursor, ride, "input", (ride.came_by.link.name, None))

    def arrive(each: Cursor) -> Ways:
        inside = each.with_hop(hop_at(world, bridge, "in", each.packet))
        ways = beside(world, inside, "ingress", bridge, ride.frame, ride.kind)
        return onward(ways, partial(_taken, world, ride=ride, there=bridge))

    return onward(ways, arrive)


# --- bridges ----------------------------------------------------------------------------------


def _into_bridge(world: World, cursor: Cursor, crossing: Crossing, ride: Ride) -> Ways:
    port = crossing.port
    kind = ride.frame.kind_for(bridge_of(port).link.mac, port.link.mac)
    ride = replace(ride, came_by=port, kind=kind)
    ways = _take_in(world, cursor, port, ride.frame, "port")
    return onward(ways, partial(_preroute, world, ride=ride))


def _preroute(world: World, cursor: Cursor, ride: Ride) -> Ways:
    """The hook before a bridge decides, IP's inside it; then what the bridge learns."""
    port = ride.came_by
    assert port is not None
    bridge = bridge_of(port)
    ride = replace(ride, filtered=_is_filtered(cursor, bridge))
    before = cursor.packet.destination
    name, names = bridge.link.name, (port.link.name, None)
    if ride.filtered:
        ways = _bridged(world, cursor, ride, "prerouting", names, highest=BRIDGED_IP)
        passage = partial(_ip, world, hook="prerouting", iif=name, oif=None)
        ways = onward(ways, passage)
        late = partial(_bridged, world, ride=ride, hook="prerouting", names=names)
        ways = onward(ways, partial(late, lowest=BRIDGED_IP + 1))
    else:
        ways = _bridged(world, cursor, ride, "prerouting", names)

    def decide(each: Cursor) -> Ways:
        if ride.frame.source is not None and (port.link.port or PLAIN_PORT).learning:
            each = each.with_heard((*bridge.key, ride.frame.source), port.link.index)
        if each.packet.destination != before:
            return _redirect(world, each, ride, bridge)
        return go(world, each, ride)

    return onward(ways, decide)


def _is_filtered(cursor: Cursor, bridge: Port) -> bool:
    """Whether br_netfilter takes the packet, for the namespace or for this bridge."""
    if cursor.packet.protocol is Protocol.ARP:
        return False
    six = cursor.packet.source.version == 6
    switch = "bridge-nf-call-ip6tables" if six else "bridge-nf-call-iptables"
    settings = bridge.link.bridge
    own = settings is not None and (settings.call_ip6tables if six else settings.call_iptables)
    return own or bridge.space.sysctl(f"bridge.{switch}", "0") == "1"


def _out_of_bridge(world: World, cursor: Cursor, crossing: Crossing, ride: Ride) -> Ways:
    port = crossing.port
    bridge = bridge_of(port)
    cursor = cursor.with_step(
        Step(component="Link", action="FORWARDED", text=f"bridge: {crossing.reason}")
    )
    came, out, name = ride.came_by, port.link.name, bridge.link.name
    names = (None if came is None else came.link.name, out)
    hook = "output" if came is None else "forward"
    if ride.filtered:
        ways = _bridged(world, cursor, ride, hook, names, highest=BRIDGED_IP)
        ways = onward(ways, partial(_ip, world, hook=hook, iif=name, oif=name))
        late = partial(_bridged, world, ride=ride, hook=hook, names=names)
        ways = onward(ways, partial(late, lowest=BRIDGED_IP + 1))
    else:
        ways = _bridged(world, cursor, ride, hook, names, bridge=name)
    post = partial(_bridged, world, ride=ride, hook="postrouting", names=(None, out), bridge=name)
    ways = onward(ways, post)
    if ride.filtered:
        ways = onward(ways, partial(_ip, world, hook="postrouting", iif=None, oif=name))

    rest = replace(ride, came_by=None, filtered=False, kind=PacketType.HOST)

    def out_by(each: Cursor) -> Ways:
        if _is_too_long(each, port):
            return [_too_narrow(world, each, port)]
        ways = beside(world, each, "egress", port, ride.frame, ride.kind)
        passed = (
            way.with_hop(hop_at(world, port, "out", way.packet, role="port"))
            if isinstance(way, Cursor)
            else way
            for way in ways
        )
        return onward(passed, partial(go, world, ride=rest))

    return onward(ways, out_by)


def _bridged(  # noqa: PLR0913  # one passage, told by its parts
    world: World,
    cursor: Cursor,
    ride: Ride,
    hook: str,
    names: tuple[str | None, str | None],
    *,
    lowest: int = LOWEST,
    highest: int = HIGHEST,
    bridge: str | None = None,
) -> Ways:
    """Chains of the family bridge; `names` are the ports it came by and leaves by."""
    if Layer.BRIDGE not in rulesets.of(cursor.space).layers:
        return [cursor]
    if bridge is None and ride.came_by is not None:
        bridge = bridge_of(ride.came_by).link.name
    passage = Passage(
        hook=hook,
        packet=cursor.packet,
        layer=Layer.BRIDGE,
        iif=names[0],
        oif=names[1],
        local=hook == "output",
        frame=ride.frame,
        kind=ride.kind,
        bridge=bridge,
        lowest=lowest,
        highest=highest,
    )
    return judge(world, cursor, passage)


def _ip(world: World, cursor: Cursor, hook: str, iif: str | None, oif: str | None) -> Ways:
    """IP's chains, for a packet that crosses a bridge."""
    next_hop = cursor.packet.destination if hook == "postrouting" else None
    passage = Passage(hook=hook, packet=cursor.packet, iif=iif, oif=oif, next_hop=next_hop)
    return judge(world, cursor, passage)


def _redirect(world: World, cursor: Cursor, ride: Ride, bridge: Port) -> Ways:
    """Its destination was translated on the bridge: routed anew (br_nf_pre_routing_finish).

    What leaves by the same bridge stays a bridged frame, with the MAC of its new receiver: it can
    go back to the port it came by only where that port is in hairpin mode.
    """
    space, packet, came_by = cursor.space, cursor.packet, ride.came_by
    assert came_by is not None
    decision = intake.route_input(space, bridge.link, packet.source, packet.destination, packet)
    if isinstance(decision, Refusal) and decision.code == "forwarding-off":
        # Bridged traffic needs no forwarding.
        other = fib.lookup(space, Query(destination=packet.destination))
        decision = other if _leaves_by(cursor, other, bridge) else decision
    if isinstance(decision, Refusal):
        text = f"{space.title} refuses the translated packet to {packet.destination}"
        cause = cause_at(cursor, world, bridge.link, decision.code, text, decision.facts)
        return [cursor.dropped(REFUSED[decision.code], cause, "Routing")]
    if not _leaves_by(cursor, decision, bridge):
        assert bridge.link.mac is not None
        frame = replace(ride.frame, destination=bridge.link.mac)
        ride = replace(ride, frame=frame, goal=bridge, todo=(), kind=PacketType.HOST)
        return go(world, cursor, ride)
    assert ride.resolve is not None
    found = ride.resolve(world, cursor, bridge, decision.hops[0].gateway or packet.destination)
    if isinstance(found, Path):
        return [found]
    mac, cursor = found
    # Unless the neighbour is fresh the bridge itself sends it; only the kernel knows.
    cursor = cursor.with_hop(hop_at(world, bridge, "out", cursor.packet, role="detour"))
    ride = replace(ride, frame=replace(ride.frame, destination=mac))
    reached = segment.reach_from(world, came_by, mac, cursor.heard_at)
    return follow(world, cursor, bridge, reached, ride)


def _leaves_by(cursor: Cursor, decision: fib.Decision, bridge: Port) -> bool:
    return decision.kind is RouteKind.UNICAST and all(
        fib.out_link(cursor.space, hop).index == bridge.link.index for hop in decision.hops
    )


# --- ends -------------------------------------------------------------------------------------


def _lost(world: World, cursor: Cursor, lost: Lost, frame: Frame) -> Path:
    there = replace(cursor, space=lost.port.space)
    facts = {"mac": frame.destination, f"{lost.port.link.name} operstate": lost.port.link.operstate}
    cause = cause_at(there, world, lost.port.link, lost.code, lost.text, facts)
    return cursor.dropped(Disposition.LOST_ON_LINK, cause, "Link")


def _is_too_long(cursor: Cursor, port: Port) -> bool:
    return cursor.packet.length > port.link.mtu + VLAN_BYTES


def _too_narrow(world: World, cursor: Cursor, port: Port) -> Path:
    length = cursor.packet.length
    text = f"{port.link.name} of {port.space.title} takes no frame of {length} bytes"
    facts = {"mtu": str(port.link.mtu), "length": str(length)}
    there = replace(cursor, space=port.space)
    cause = cause_at(there, world, port.link, "peer-mtu", text, facts)
    return cursor.dropped(Disposition.TOO_BIG, cause, "Link")


def _for_another(world: World, cursor: Cursor, port: Port, mac: str) -> Path:
    """The frame reaches a link that is not the one it is for."""
    text = f"the frame is for {mac}, and {port.link.name} of {port.space.title} is {port.link.mac}"
    cause = cause_at(cursor, world, port.link, "wrong-mac", text, {"mac": mac})
    return cursor.dropped(Disposition.NOT_FOR_ME, cause, "Link")
