"""Send: from a chosen route out of a link: MTU, rules, neighbour, the wire, the other end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from podwire.model.overlay import NUD_PERMANENT
from podwire.trace import arp, fib, segment
from podwire.trace.cursor import Cursor, cause_at, hop_at
from podwire.trace.passage import Passage
from podwire.trace.policy import judge, onward
from podwire.trace.schema import Disposition, Path, Question, Step
from podwire.trace.segment import refuse_unmodelled
from podwire.trace.space import Lacking
from podwire.trace.tunnel import encapsulate_ipip, encapsulate_vxlan
from podwire.trace.world import Port

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.model.route import NextHop
    from podwire.trace.fib import Decision
    from podwire.trace.segment import Arrival, Crossing, Reach
    from podwire.trace.world import World

VLAN_BYTES = 4
"""A device takes frames of its MTU plus one VLAN tag (is_skb_forwardable)."""


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
            return [encapsulate_vxlan(world, cursor, link, target)]
        case "ipip":
            return [encapsulate_ipip(world, cursor, link, target)]
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
    found = _resolve(world, cursor, port, target)
    if isinstance(found, Path):
        return [found]
    mac, cursor = found
    cursor = cursor.with_hop(hop_at(world, port, "out", cursor.packet))
    reached = segment.reach(world, port, mac)
    arrival = next((each for each in reached.arrivals if each.port.link.mac == mac), None)
    if arrival is None and not reached.unseen and len(reached.arrivals) == 1:
        arrival = reached.arrivals[0]
    if arrival is None:
        return [_nowhere(world, cursor, port, mac, reached)]
    return _arrive(world, cursor, arrival, mac)


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


def _resolve(
    world: World, cursor: Cursor, port: Port, target: IPAddress
) -> tuple[str, Cursor] | Path:
    """The MAC the frame is sent to: from the neighbour table, else by asking."""
    cached = arp.cached_mac(port, target)
    if cached is not None and cached[1] & NUD_PERMANENT:
        step = Step(
            component="ARP",
            action="FORWARDED",
            text=f"neighbour {target} is {cached[0]} (permanent)",
            by={"neigh": f"{target} dev {port.link.name} lladdr {cached[0]} PERMANENT"},
        )
        return cached[0], cursor.with_step(step)
    asked = arp.ask(world, port, target, cursor.packet.source)
    if not asked.answers and cached is None:
        return _unanswered(world, cursor, port, asked)
    cursor = _note_answers(world, cursor, port, asked, cached)
    if cached is not None:
        return cached[0], cursor
    return asked.answers[0].port.link.mac or "", cursor


def _note_answers(
    world: World,
    cursor: Cursor,
    port: Port,
    asked: arp.Asked,
    cached: tuple[str, int] | None,
) -> Cursor:
    answer = asked.answers[0] if asked.answers else None
    late = answer is not None and answer.delay_s > 0
    if answer is None:
        said = "cached; nobody would answer now"
    else:
        said = f"answered by {answer.port.space.title}"
        said += " (proxy ARP)" if answer.kind == "proxy" else ""
        said += ", cached" if cached is not None else ""
    delay = int(answer.delay_s * 1000) if answer is not None and late else None
    question = Question(
        asker=f"{cursor.space.title} {port.link.name}",
        target=asked.target,
        replier=None if answer is None else answer.port.space.title,
        mac=cached[0] if cached is not None else (answer.port.link.mac if answer else None),
        kind="none" if answer is None else answer.kind,
        predicted=said,
        delay_ms=delay,
    )
    step = Step(
        component="ARP",
        action="FORWARDED",
        text=f"{question.mac}, {said}",
        detail={"target": str(asked.target), "mac": question.mac, "kind": question.kind},
    )
    cursor = cursor.with_question(question).with_step(step)
    if answer is not None and late and cached is None:
        name = answer.port.link.name
        cursor = cursor.with_remark(
            replace(
                cause_at(cursor, world, port.link, "proxy-delay", f"waits up to {delay} ms"),
                where=cursor.place(world, answer.port.link, answer.port.space),
                facts={
                    f"net.ipv4.neigh.{name}.proxy_delay": str(int(answer.delay_s * 100)),
                    "delay_ms": str(delay),
                },
            )
        )
    if len(asked.answers) > 1:
        names = ", ".join(each.port.space.title for each in asked.answers)
        text = f"{asked.target} is answered by several: {names}"
        remark = cause_at(cursor, world, port.link, "several-answers", text, {"answers": names})
        cursor = cursor.with_remark(remark)
    return cursor


def _unanswered(world: World, cursor: Cursor, port: Port, asked: arp.Asked) -> Path:
    """Nobody answers: say why, from whoever should have."""
    question = Question(
        asker=f"{cursor.space.title} {port.link.name}",
        target=asked.target,
        replier=None,
        mac=None,
        kind="none",
        predicted="nobody answers",
    )
    cursor = cursor.with_question(question)
    if asked.reach.unseen:
        unseen = asked.reach.unseen[0]
        text = f"who answers for {asked.target} on {port.link.name} of {cursor.space.title}"
        raise Lacking(unseen.what, unseen.why, decides=text)
    silence = next((each for each in asked.silences), None)
    code, facts = "arp-nobody", {"target": str(asked.target), "link": port.link.name}
    where = cursor.place(world, port.link)
    inode = cursor.space.inode
    if silence is not None and len(asked.silences) == 1:
        code = f"arp-{silence.code}"
        facts |= dict(silence.facts)
        where = cursor.place(world, silence.port.link, silence.port.space)
        inode = silence.port.space.inode
    asks = "ARP" if asked.target.version == 4 else "neighbour discovery"
    text = f"nobody answers {asks} for {asked.target} on {port.link.name} of {cursor.space.title}"
    cause = cause_at(cursor, world, port.link, code, text, facts)
    made_here = cursor.link is None and cursor.packet.inner is None
    unreachable = "3/1" if asked.target.version == 4 else "1/3"
    cause = replace(cause, where=where, inode=inode, icmp=None if made_here else unreachable)
    return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "ARP")


def _nowhere(world: World, cursor: Cursor, port: Port, mac: str, reached: Reach) -> Path:
    """The frame reaches nobody who takes it."""
    if reached.unseen:
        unseen = reached.unseen[0]
        text = f"the packet leaves {cursor.space.title} by {port.link.name}"
        raise Lacking(unseen.what, unseen.why, decides=f"what becomes of it: {text}")
    facts = {"mac": mac, "link": port.link.name}
    if reached.lost and not reached.arrivals:
        cause = cause_at(cursor, world, port.link, "link-down", reached.lost[0], facts)
        return cursor.dropped(Disposition.LOST_ON_LINK, cause, "Link")
    text = f"nobody behind {port.link.name} of {cursor.space.title} has the MAC {mac}"
    cause = cause_at(cursor, world, port.link, "mac-unknown", text, facts)
    return cursor.dropped(Disposition.NOT_FOR_ME, cause, "Link")


def _arrive(world: World, cursor: Cursor, arrival: Arrival, mac: str) -> list[Cursor | Path]:
    """In at the other end, past the bridge ports between."""
    ways: list[Cursor | Path] = [cursor]
    for crossing in arrival.crossings:
        ways = onward(ways, partial(_cross, world, crossing=crossing))
    there = arrival.port
    ports = [*(each.port for each in arrival.crossings), there]
    return onward(ways, lambda each: [_enter(world, each, there, ports, mac)])


def _enter(world: World, cursor: Cursor, there: Port, ports: list[Port], mac: str) -> Cursor | Path:
    packet = cursor.packet
    for port in ports:
        if packet.length > port.link.mtu + VLAN_BYTES:
            return _too_narrow(world, cursor, port)
    if there.space is not cursor.space:
        packet = packet.apart()
    cursor = cursor.with_hop(hop_at(world, there, "in", packet))
    if there.link.mac is not None and there.link.mac != mac:
        return _for_another(world, cursor, there, mac)
    return replace(cursor, space=there.space, link=there.link, oif=None, packet=packet)


def _cross(world: World, cursor: Cursor, crossing: Crossing) -> list[Cursor | Path]:
    side = "in" if crossing.inbound else "out"
    cursor = cursor.with_hop(hop_at(world, crossing.port, side, cursor.packet, role="port"))
    return [cursor] if crossing.inbound else _bridge(world, cursor, crossing)


def _bridge(world: World, cursor: Cursor, crossing: Crossing) -> list[Cursor | Path]:
    """Out of a bridge port; with br_netfilter the IP rules see bridged packets, too."""
    space, link = crossing.port.space, crossing.port.link
    step = Step(component="Link", action="FORWARDED", text=f"bridge: {crossing.reason}")
    cursor = cursor.with_step(step)
    version = cursor.packet.source.version
    switch = "bridge-nf-call-iptables" if version == 4 else "bridge-nf-call-ip6tables"
    # What the bridge itself sends has met the rules already.
    entered = [hop for hop in cursor.hops[-2:-1] if hop.role == "port" and hop.side == "in"]
    if space.sysctl(f"bridge.{switch}", "0") != "1" or link.master is None or not entered:
        return [cursor]
    bridge = space.links[link.master].name
    packet = cursor.packet if space is cursor.space else cursor.packet.apart()
    ways: list[Cursor | Path] = [replace(cursor, space=space, packet=packet)]
    for hook in ("prerouting", "forward", "postrouting"):
        ways = onward(ways, partial(_bridged, world, hook=hook, bridge=bridge))
    return onward(ways, lambda each: [replace(each, space=cursor.space)])


def _bridged(world: World, cursor: Cursor, hook: str, bridge: str) -> list[Cursor | Path]:
    before = cursor.packet
    passage = Passage(
        hook=hook,
        packet=before,
        iif=None if hook == "postrouting" else bridge,
        oif=None if hook == "prerouting" else bridge,
        bridged=True,
    )
    ways = judge(world, cursor, passage)
    for way in ways:
        if isinstance(way, Cursor) and way.packet.destination != before.destination:
            what = f"bridged packet to {before.destination} in {cursor.space.title}"
            raise Lacking(what, "its destination is translated, which is not modelled")
    return ways


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
    there = replace(cursor, space=port.space)
    cause = cause_at(there, world, port.link, "wrong-mac", text, {"mac": mac})
    return cursor.dropped(Disposition.NOT_FOR_ME, cause, "Link")
