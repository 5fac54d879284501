"""The walk: one packet through the namespaces, asking at each what its kernel would ask.

Order as in the kernel: prerouting → rules and FIB → source validation → forwarding switch → TTL →
MTU → forward → postrouting → device. Sending, tunnels and the wire are in `send`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from podwire.model.route import RouteKind
from podwire.trace import fib, intake
from podwire.trace.crossing import beside, leave
from podwire.trace.cursor import Cursor, cause_at, hop_at
from podwire.trace.fib import Query
from podwire.trace.flow import Protocol
from podwire.trace.intake import Refusal
from podwire.trace.passage import NO_FRAME, Passage
from podwire.trace.policy import judge, onward
from podwire.trace.receive import decapsulate, listening
from podwire.trace.schema import REFUSED, Cause, Disposition, Hop, Path, Step
from podwire.trace.send import send
from podwire.trace.space import Lacking
from podwire.trace.world import Port

if TYPE_CHECKING:
    from podwire.model.link import Link
    from podwire.model.route import NextHop
    from podwire.trace.fib import Decision
    from podwire.trace.world import World

MAX_BRANCHES = 64
"""Ways followed in one direction; several next hops at several places multiply."""


def walk(world: World, start: Cursor) -> tuple[Path, ...]:
    """All ways a packet can take from where it is; several with multipath routes."""
    todo = [start]
    done: list[Path] = []
    while todo and len(done) < MAX_BRANCHES:
        cursor = todo.pop(0)
        try:
            results = _advance(world, cursor)
        except Lacking as gap:
            results = [cursor.lacking(gap)]
        done += [each for each in results if isinstance(each, Path)]
        todo += [each for each in results if isinstance(each, Cursor)]
    return tuple(replace(path, branch=number) for number, path in enumerate(done))


def _advance(world: World, cursor: Cursor) -> list[Cursor | Path]:
    if cursor.link is None:
        return _originate(world, cursor)
    return _receive(world, cursor)


def _originate(world: World, cursor: Cursor) -> list[Cursor | Path]:
    """A packet made here: the program's, or a tunnel's outer one."""
    packet = cursor.packet
    if not cursor.hops:
        place = Hop(inode=cursor.space.inode, where=cursor.place(world), side="out", packet=packet)
        cursor = replace(cursor, hops=(place,))
    cursor, decision = _routed(cursor)
    links = _out_links(cursor, decision)
    if not links:
        return [_unroutable(world, cursor, decision)]
    found: list[Cursor | Path] = []
    for oif in links:
        passage = Passage(hook="output", packet=packet, oif=oif, local=True)
        only = _only(cursor, decision, oif)
        found += onward(judge(world, cursor, passage), partial(_sent, world, decision=only))
    return found


def _only(cursor: Cursor, decision: Decision, oif: str) -> Decision:
    """The decision with the next hops by one link."""
    if decision.kind is not RouteKind.UNICAST:
        return decision
    hops = [hop for hop in decision.hops if fib.out_link(cursor.space, hop).name == oif]
    return replace(decision, hops=tuple(hops))


def _routed(cursor: Cursor) -> tuple[Cursor, Decision]:
    """Ask the FIB for a packet made here."""
    packet = cursor.packet
    query = Query(destination=packet.destination, source=packet.source)
    query = fib.with_packet(query, packet)
    if packet.protocol is Protocol.IPIP:
        query = replace(query, mark=0)  # ipip asks with the mark of its device
    decision = fib.lookup(cursor.space, query)
    return cursor.with_lookup(query, decision), decision


def _out_links(cursor: Cursor, decision: Decision) -> list[str]:
    """Names of the links the packet may leave by; of each the rules of output may say otherwise."""
    if decision.kind is RouteKind.LOCAL:
        return [fib.LOOPBACK]
    if decision.kind is not RouteKind.UNICAST:
        return []
    return list(dict.fromkeys(fib.out_link(cursor.space, hop).name for hop in decision.hops))


def _unroutable(world: World, cursor: Cursor, decision: Decision) -> Path:
    if decision.kind is not None and decision.kind not in fib.END_OF_LOOKUP:
        raise _not_modelled(cursor, decision.kind)
    code = _code_of(decision)
    text = f"{cursor.space.title} itself has {_words(cursor, decision)}"
    cause = cause_at(cursor, world, None, f"source-{code}", text, _facts(cursor, decision))
    return cursor.dropped(REFUSED[code], cause, "Routing")


def _sent(world: World, cursor: Cursor, decision: Decision) -> list[Cursor | Path]:
    """After the output hook: routed anew when it changed what routes a packet."""
    if cursor.rerouted is not None:
        now = cursor.packet
        cursor, decision = _routed(replace(cursor, packet=cursor.rerouted))
        cursor = replace(cursor, packet=now)
    if decision.kind is RouteKind.LOCAL:
        return _loop_back(world, cursor, decision)
    if decision.kind is not RouteKind.UNICAST:
        return [_unroutable(world, cursor, decision)]
    return _each_hop(world, cursor, decision)


def _loop_back(world: World, cursor: Cursor, decision: Decision) -> list[Cursor | Path]:
    """To an address of this very namespace: over the loopback."""
    loopback = cursor.space.links_by_name.get(fib.LOOPBACK)
    if loopback is None or not loopback.up:
        cause = cause_at(cursor, world, loopback, "link-down", "the loopback is down")
        return [cursor.dropped(Disposition.LOST_ON_LINK, cause, "Link")]
    port = Port(space=cursor.space, link=loopback)

    def hook(each: Cursor, name: str) -> list[Cursor | Path]:
        out = name == "postrouting"
        passage = Passage(
            hook=name,
            packet=each.packet,
            iif=None if out else loopback.name,
            oif=loopback.name if out else None,
            local=True,
        )
        return judge(world, each, passage)

    def enter(each: Cursor) -> list[Cursor | Path]:
        sent = each.with_step(_routing(each, decision, None))
        sent = sent.with_hop(hop_at(world, port, "in", each.packet))
        return beside(world, replace(sent, link=loopback), "ingress", port, NO_FRAME)

    ways = onward(hook(cursor, "postrouting"), lambda each: leave(world, each, port, NO_FRAME))
    ways = onward(ways, enter)
    ways = onward(ways, lambda each: hook(each, "prerouting"))
    return onward(ways, lambda each: _deliver(world, each))


def _receive(world: World, cursor: Cursor) -> list[Cursor | Path]:
    space, link, packet = cursor.space, cursor.link, cursor.packet
    assert link is not None
    key = (space.inode, link.index, packet.destination, packet.layers)
    if key in cursor.seen:
        cause = cause_at(cursor, world, link, "loop", f"the packet comes by {link.name} again")
        return [cursor.dropped(Disposition.LOOP, cause, "Routing")]
    cursor = replace(cursor, seen=cursor.seen | {key})
    if cursor.prerouted:
        return _route(world, replace(cursor, prerouted=False), link)
    passage = Passage(hook="prerouting", packet=packet, iif=link.name)
    return onward(judge(world, cursor, passage), lambda each: _route(world, each, link))


def _route(world: World, cursor: Cursor, link: Link) -> list[Cursor | Path]:
    """After the prerouting hook: deliver, forward, or refuse."""
    space, packet = cursor.space, cursor.packet
    decision = intake.route_input(space, link, packet.source, packet.destination, packet)
    query = intake.input_query(link, packet.source, packet.destination, packet)
    cursor = cursor.with_lookup(query, decision)
    if isinstance(decision, Refusal):
        return [_refuse(world, cursor, decision)]
    if decision.kind is RouteKind.LOCAL:
        return _deliver(world, cursor)
    if decision.kind is not RouteKind.UNICAST:
        raise _not_modelled(cursor, decision.kind)
    if packet.ttl <= 1:
        text = f"the TTL of the packet ends at {space.title}"
        icmp = "11/0" if packet.source.version == 4 else "3/0"
        cause = replace(cause_at(cursor, world, link, "ttl", text), icmp=icmp)
        return [cursor.dropped(Disposition.TTL_EXPIRED, cause, "Forwarding")]
    cursor = replace(cursor, packet=replace(packet, ttl=packet.ttl - 1))
    return _each_hop(world, cursor, decision)


def _not_modelled(cursor: Cursor, kind: RouteKind | None) -> Lacking:
    """Routes of kinds that lead to more than one receiver."""
    word = "no route" if kind is None else kind.name.lower()
    subject = f"route to {cursor.packet.destination} of {cursor.space.title}"
    return Lacking(subject, f"{word}: not modelled")


def _refuse(world: World, cursor: Cursor, refusal: Refusal) -> Path:
    if refusal.code == "forwarding-off" and world.pod_in(cursor.space) is not None:
        # A pod routes for nobody: what it may not forward is a packet for an address it lacks.
        text = f"{cursor.packet.destination} is no address of {cursor.space.title}"
        facts = {"address": str(cursor.packet.destination)}
        cause = cause_at(cursor, world, cursor.link, "not-mine", text, facts)
        return cursor.dropped(Disposition.NOT_FOR_ME, cause, "Routing")
    facts = dict(refusal.facts)
    if refusal.decision is not None and refusal.code != "rpf":
        facts |= _facts(cursor, refusal.decision)
    text = _refusal_text(cursor, refusal)
    cause = cause_at(cursor, world, cursor.link, refusal.code, text, facts)
    component = {"rpf": "RPF", "own-source": "RPF", "forwarding-off": "Forwarding"}
    return cursor.dropped(
        REFUSED[refusal.code],
        replace(cause, icmp=refusal.icmp),
        component.get(refusal.code, "Routing"),
    )


def _refusal_text(cursor: Cursor, refusal: Refusal) -> str:
    title, packet = cursor.space.title, cursor.packet
    name = cursor.link.name if cursor.link is not None else "?"
    match refusal.code:
        case "forwarding-off":
            return f"{title} may not forward what comes in by {name}"
        case "rpf":
            back = refusal.facts.get("route back", "none")
            return f"source validation on {name}: the route back to {packet.source} is: {back}"
        case "own-source":
            return f"{packet.source} comes in by {name} and is an address of {title} itself"
        case "martian":
            return f"{packet.source} → {packet.destination} may not come in by {name}"
        case _:
            assert refusal.decision is not None
            return f"{title} has {_words(cursor, refusal.decision)}"


def _words(cursor: Cursor, decision: Decision) -> str:
    destination = cursor.packet.destination
    if decision.route is not None:
        return f"for {destination} only: {fib.describe(cursor.space, decision.route)}"
    if decision.rule is not None:
        return f"an ip rule {decision.rule.priority} that says {decision.rule.action}"
    return f"no route to {destination}"


def _facts(cursor: Cursor, decision: Decision) -> dict[str, str]:
    if decision.route is None and decision.rule is not None:
        return {"ip rule": fib.describe_rule(decision.rule)}
    if decision.route is None:
        return {"route": "none"}
    return {
        "route": fib.describe(cursor.space, decision.route),
        "prefix": str(decision.route.key.destination),
        "table": str(decision.route.key.table),
    }


def _code_of(decision: Decision) -> str:
    match decision.kind:
        case None:
            return "no-route"
        case RouteKind.BLACKHOLE | RouteKind.UNREACHABLE | RouteKind.PROHIBIT:
            return decision.kind.name.lower()
        case _:
            return "martian"


def _each_hop(world: World, cursor: Cursor, decision: Decision) -> list[Cursor | Path]:
    """Send by every usable next hop."""
    found: list[Cursor | Path] = []
    for hop in decision.hops:
        chosen = cursor.with_step(_routing(cursor, decision, hop if decision.hops[1:] else None))
        try:
            found += send(world, chosen, decision, hop)
        except Lacking as gap:
            found.append(chosen.lacking(gap))
    return found


def _routing(cursor: Cursor, decision: Decision, hop: NextHop | None) -> Step:
    assert decision.route is not None
    route = decision.route
    chosen = hop or (decision.hops[0] if decision.hops else None)
    detail: dict[str, object] = {
        "matched": str(route.key.destination),
        "table": route.key.table,
        "protocol": fib.protocol_name(route.protocol),
        "metric": route.key.metric,
        "nexthop": None if chosen is None or chosen.gateway is None else str(chosen.gateway),
        "dev": None if chosen is None else fib.out_link(cursor.space, chosen).name,
        "error": None,
        "branches": len(decision.hops),
    }
    return Step(
        component="Routing",
        action="FORWARDED",
        text=fib.describe(cursor.space, route, chosen),
        detail=detail,
        by={
            "route": fib.describe(cursor.space, route),
            "rule": None if decision.rule is None else decision.rule.priority,
        },
    )


def _deliver(world: World, cursor: Cursor) -> list[Cursor | Path]:
    """The packet is for this namespace: input hook, then tunnel or program."""
    assert cursor.link is not None
    passage = Passage(hook="input", packet=cursor.packet, iif=cursor.link.name)
    return onward(judge(world, cursor, passage), lambda each: _taken(world, each))


def _taken(world: World, cursor: Cursor) -> list[Cursor | Path]:
    packet = cursor.packet
    if packet.inner is not None:
        return decapsulate(world, cursor)
    taken = cursor.with_step(
        Step(
            component="Socket",
            action="DELIVERED",
            text=f"delivered: {packet.destination} is its own address",
            detail={"protocol": str(packet.protocol), "port": packet.destination_port},
        )
    )
    path = replace(
        taken.path(Disposition.DELIVERED_AND_ANSWERED),
        reached=cursor.space.inode,
        arrived=packet,
    )
    silent = None if packet.reply else _silence(world, taken)
    if silent is None:
        return [path]
    ended = taken.dropped(Disposition.DELIVERED_NO_ANSWER, silent, "Socket")
    return [replace(ended, reached=path.reached, arrived=packet)]


def _silence(world: World, cursor: Cursor) -> Cause | None:
    """Why the receiver would not answer; None when it does."""
    space, packet = cursor.space, cursor.packet
    if packet.protocol is Protocol.ICMP:
        version = packet.source.version
        name = "ipv4.icmp_echo_ignore_all" if version == 4 else "ipv6.icmp/echo_ignore_all"
        if int(space.sysctl(name, "0")):
            text = f"{space.title} does not answer ping"
            facts = {f"net.{name}": "1"}
            return cause_at(cursor, world, cursor.link, "echo-ignored", text, facts)
        return None
    if listening(space, packet):
        return None
    text = f"nothing listens on {packet.protocol}/{packet.destination_port} in {space.title}"
    cause = cause_at(cursor, world, cursor.link, "port-closed", text)
    if packet.protocol is Protocol.TCP:
        return replace(cause, reset=True)
    return replace(cause, icmp="3/3" if packet.source.version == 4 else "1/4")
