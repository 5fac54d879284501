"""Send: from a chosen route out of a link: MTU, rules, neighbour, device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from podwire.trace import arp, fib, segment
from podwire.trace.crossing import Ride, follow, leave
from podwire.trace.cursor import Cursor, cause_at
from podwire.trace.passage import Frame, Passage
from podwire.trace.policy import judge, onward
from podwire.trace.resolve import resolve
from podwire.trace.schema import Disposition, Path, Step
from podwire.trace.segment import refuse_unmodelled
from podwire.trace.space import Lacking
from podwire.trace.tunnel import encapsulate_ipip, encapsulate_vxlan
from podwire.trace.world import Port

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.model.route import NextHop
    from podwire.trace.fib import Decision
    from podwire.trace.world import World


def send(world: World, cursor: Cursor, decision: Decision, hop: NextHop) -> list[Cursor | Path]:
    """Out by one next hop, up to the namespace at the other end.

    Raises:
        Lacking: something that decides was not read or is not modelled.
    """
    link = fib.out_link(cursor.space, hop)
    refuse_unmodelled(cursor.space, link)
    assert decision.route is not None
    if decision.route.not_modelled:
        what = ", ".join(sorted(decision.route.not_modelled))
        subject = f"route {decision.route.key.destination} of {cursor.space.title}"
        raise Lacking(subject, f"{what} is not modelled")
    fitted = _fit(world, cursor, link, decision.route.mtu or link.mtu)
    passed: list[Cursor | Path] = [fitted]
    for hook in ("postrouting",) if cursor.link is None else ("forward", "postrouting"):
        passed = onward(passed, partial(_judged, world, hook=hook, link=link, hop=hop))
    return onward(passed, lambda each: _out(world, each, link, hop.gateway))


def _judged(
    world: World, cursor: Cursor, hook: str, link: Link, hop: NextHop
) -> list[Cursor | Path]:
    iif = None if cursor.link is None else cursor.link.name
    passage = Passage(
        hook=hook,
        packet=cursor.packet,
        iif=iif,
        oif=link.name,
        next_hop=hop.gateway,
        local=cursor.link is None,
    )
    return judge(world, cursor, passage)


def _out(
    world: World, cursor: Cursor, link: Link, gateway: IPAddress | None
) -> list[Cursor | Path]:
    target = gateway or cursor.packet.destination
    match link.kind:
        case "vxlan":
            return encapsulate_vxlan(world, cursor, link, target)
        case "ipip":
            return encapsulate_ipip(world, cursor, link, target)
        case _:
            return _transmit(world, cursor, Port(space=cursor.space, link=link), target)


def _fit(world: World, cursor: Cursor, link: Link, mtu: int) -> Cursor | Path:
    """Compare the packet with the MTU; without DF it is cut (in IPv6 by its sender alone)."""
    packet = cursor.packet
    if packet.length <= mtu:
        return cursor
    facts = {"mtu": str(mtu), "length": str(packet.length), "link": link.name}
    version = packet.source.version
    if packet.df or (version == 6 and cursor.link is not None):
        why = ", and DF is set" if packet.df else ""
        text = f"{packet.length} bytes do not fit the MTU {mtu} of {link.name}{why}"
        cause = cause_at(cursor, world, link, "too-big", text, facts)
        made_here = cursor.link is None and packet.inner is None
        cause = replace(cause, icmp=None if made_here else "3/4" if version == 4 else "2/0")
        return cursor.dropped(Disposition.TOO_BIG, cause, "MTU")
    text = f"{packet.length} bytes are cut to fit the MTU {mtu} of {link.name}"
    code = "fragments" if packet.inner is None else "outer-fragments"
    cut = cursor.with_remark(cause_at(cursor, world, link, code, text, facts))
    cut = cut.with_step(Step(component="MTU", action="FORWARDED", text=text, by=facts))
    return replace(cut, packet=replace(packet, length=mtu))


def _transmit(world: World, cursor: Cursor, port: Port, target: IPAddress) -> list[Cursor | Path]:
    """Out of a veth, a bridge or a network card."""
    if not (port.link.up and port.link.carrier):
        return [_down(world, cursor, port, target)]
    found = resolve(world, cursor, port, target)
    if isinstance(found, Path):
        return [found]
    mac, cursor = found
    ride = Ride(frame=Frame(source=port.link.mac, destination=mac), goal=port, resolve=resolve)

    def wired(each: Cursor) -> list[Cursor | Path]:
        reached = segment.reach(world, port, mac, each.heard_at)
        return follow(world, each, port, reached, ride)

    return onward(leave(world, cursor, port, ride.frame), wired)


def _down(world: World, cursor: Cursor, port: Port, target: IPAddress) -> Path:
    state = "has no carrier: its other end is down" if port.link.up else "is down"
    text = f"{port.link.name} of {cursor.space.title} {state}"
    cause = cause_at(
        cursor,
        world,
        port.link,
        "link-down",
        text,
        {f"{port.link.name} operstate": port.link.operstate},
    )
    known = arp.cached_mac(port, target) is not None
    lost = Disposition.LOST_ON_LINK if known else Disposition.NEIGHBOR_FAILED
    return cursor.dropped(lost, cause, "Link")
