"""Faults of routes: missing, swallowed, refusing, refused by source validation, looping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.addressing import POD_GATEWAY
from podwire.trace import intent
from podwire.trace.faults import mending
from podwire.trace.schema import Evidence, Fault, Fix, Where

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.case import Case
    from podwire.trace.intent import Wanted
    from podwire.trace.schema import Hop, Path, Step
    from podwire.trace.space import Space
    from podwire.trace.world import World

NO_WAY_BACK = frozenset({"none", "blackhole", "unreachable", "prohibit", "throw"})


def nothing_leaves(case: Case) -> Fault:
    """The sender itself has no route."""
    pod = case.pod_here
    if pod is None:
        return no_route(case)
    end = "cannot answer: it" if case.is_return else "cannot send:"
    sentence = (
        f"{case.here} {end} has no default route"
        if case.is_return
        else f"{case.here} has no default route and none to {case.target}: nothing left it"
    )
    return case.fault(
        "route.pod-default-missing",
        53 if case.is_return else 1,
        sentence,
        fix=Fix(
            text="give the pod its default route back",
            command=f"ip route add default via {POD_GATEWAY} dev {pod.interface} onlink",
        ),
    )


def no_route(case: Case) -> Fault:
    """A node has no route at all."""
    outer = _outer_destination(case)
    if outer is not None:
        sentence = f"{case.here} has no route to {outer}, the node behind its tunnel"
        fix, place = mending.default_route(case), case.path.hops[-1].where
        return case.fault("route.missing", 13, sentence, fix=fix, where=place)
    wanted = _wanted(case.world, case.space, case.target)
    if wanted is None:
        return case.fault("route.missing", 13, f"{case.here} has no route to {case.target}")
    gone = _gone_with_tunnel(case.world, case.space, case.target, wanted)
    if gone is not None:
        return gone
    local = wanted.destination.endswith("/32")
    name = "route.missing-host-route" if local else "route.missing-block-route"
    sentence = f"{case.here} has no route {wanted.destination} for {case.called(case.target)}"
    return case.fault(
        name,
        44 if local else 13,
        sentence,
        fix=_add(wanted),
        evidence=_evidence(case.here, wanted),
    )


def _outer_destination(case: Case) -> str | None:
    """Where the outer packet of a tunnel was to go, if it is that one which has no route."""
    last = case.path.hops[-1] if case.path.hops else None
    if last is None or last.role != "tunnel" or last.side != "out":
        return None
    step = next((each for each in last.steps if each.action == "ENCAPSULATED"), None)
    return None if step is None else str(step.detail.get("outerDst"))


def blackhole(case: Case) -> Fault:
    """A blackhole covers the destination."""
    prefix = case.cause.facts.get("prefix", "?")
    wanted = intent.host_route(case.world, case.space, case.target)
    if wanted is not None:
        veth = wanted.route.split()[2]
        sentence = (
            f"{case.here} drops its block {prefix} (blackhole) and has no {wanted.destination} "
            f"for the veth {veth} of {case.called(case.target)}"
        )
        number: int | None = 45
        name = "route.missing-host-route"
    else:
        sentence = (
            f"{case.here} throws away what is for {case.called(case.target)}: the longest prefix "
            f"that covers it is a blackhole, {prefix}"
        )
        number, name = 15, "route.blackhole"
        fix = mending.block_route(case, case.space, prefix)
        block = intent.block_route(case.world, case.space, case.target)
        evidence = () if block is None else _evidence(case.here, block)[1:]
        return case.fault(name, number, sentence, fix=fix, evidence=evidence)
    return case.fault(
        name, number, sentence, fix=_add(wanted), evidence=_evidence(case.here, wanted)
    )


def refusing_route(case: Case) -> Fault:
    """An unreachable or prohibit route, or a rule that says so."""
    facts = case.cause.facts
    route = facts.get("route", "none")
    reason = f"ip rule {facts['ip rule']}" if "ip rule" in facts else route
    sentence = f"{case.here} refuses what is for {case.called(case.target)}: {reason}"
    return case.fault("route.refusing", 16, sentence, fix=mending.allow_route(case, route))


def reverse_path(case: Case) -> Fault:
    """Source validation."""
    facts = case.cause.facts
    back = facts.get("route back", "none")
    pod = intent.pod_of(case.world, case.origin)
    local = pod is not None and pod.host.space is case.space
    sentence = (
        f"{case.here} drops {'the answer' if case.is_return else 'it'}: rp_filter on "
        f"{case.interface} wants the route back to {case.called(case.origin)} to leave by that "
        f"link, and it is: {back}"
    )
    number = 18 if local else 55 if case.is_return else 46
    wanted = _wanted(case.world, case.space, case.origin)
    fix = _add(wanted) if wanted is not None and local else None
    if fix is None:
        fix = Fix(
            text=f"make the route back leave by {case.interface}, or loosen rp_filter there",
            command=f"sysctl -w {' '.join(_loosened(case))}",
        )
    return case.fault("rpf.failed", number, sentence, fix=fix)


def _loosened(case: Case) -> list[str]:
    """Settings that let it pass, as few as possible; the larger of `all` and the link's counts."""
    facts, name = case.cause.facts, case.interface
    own = f"net/ipv4/conf/{name}/rp_filter"
    link = case.space.links_by_name.get(name)
    # Loose asks only for some route back, but is strict on a link without an address.
    has_route = facts.get("route back", "none").partition(" ")[0] not in NO_WAY_BACK
    if link is not None and case.space.addresses_of(link) and has_route:
        return [f"{own}=2"]
    everywhere = [] if facts.get("net.ipv4.conf.all.rp_filter") == "0" else ["all"]
    names = [*everywhere, *([] if facts.get(f"net.ipv4.conf.{name}.rp_filter") == "0" else [name])]
    return [f"net/ipv4/conf/{each}/rp_filter=0" for each in names] or [f"{own}=0"]


def forwarding_off(case: Case) -> Fault:
    """ip_forward, or the switch of one link."""
    if case.cause.facts.get("net.ipv4.ip_forward") == "0":
        sentence = f"{case.here} does not forward IPv4 (ip_forward=0)"
        fix = Fix(text="switch it on", command="sysctl -w net/ipv4/ip_forward=1")
        return case.fault("forwarding.off", 12, sentence, fix=fix)
    owner = any(pod.host.link.name == case.interface for pod in case.world.pods.values())
    sentence = (
        f"forwarding is off on {case.interface} of {case.here}: what comes in there is dropped"
    )
    fix = Fix(text="switch it on", command=f"sysctl -w net/ipv4/conf/{case.interface}/forwarding=1")
    return case.fault("forwarding.off-interface", 6 if owner else 47, sentence, fix=fix)


def loop(case: Case) -> Fault:
    """The packet goes round, or its TTL is spent."""
    round_trip = _names(case.path.hops)
    if case.cause.code == "ttl":
        return case.fault("ttl.expired", 27, f"the TTL ends at {case.here} (way: {round_trip})")
    sentence = f"{case.called(case.target)} is routed in a circle: {round_trip}"
    pod = intent.pod_of(case.world, case.target)
    space = case.space if pod is None else pod.host.space
    # The pod's own node has seen it and sent it on: it is to blame.
    turn = next((hop for hop in case.path.hops if hop.inode == space.inode and _routed(hop)), None)
    evidence = _circle(case)
    if turn is None:
        return case.fault("route.loop", 27, sentence, evidence=evidence)
    wanted = _wanted(case.world, space, case.target)
    fix = None if wanted is None else _add(wanted)
    return case.fault("route.loop", 27, sentence, fix=fix, evidence=evidence, where=turn.where)


def _circle(case: Case) -> tuple[Evidence, ...]:
    """The routes that lead it round, each once."""
    steps = (
        (hop.where.netns, _routed(hop))
        for hop in case.path.hops
        if hop.packet.inner is None and case.world.pod_in(case.world.spaces[hop.inode]) is None
    )
    found = (
        Evidence(kind="route", key="route", value=step.text, ns=place)
        for place, step in steps
        if step is not None and step.action == "FORWARDED"
    )
    return tuple(dict.fromkeys(found))


def _routed(hop: Hop) -> Step | None:
    """What the FIB said of the packet itself at a place."""
    if hop.role == "tunnel" and hop.side == "out":
        return None  # What is said there is about the outer packet.
    return next((each for each in hop.steps if each.component == "Routing"), None)


def _names(hops: tuple[Hop, ...]) -> str:
    names: list[str] = []
    for hop in hops:
        if hop.role != "port" and (not names or names[-1] != hop.where.netns):
            names.append(hop.where.netns or "?")
    return " → ".join(names)


def swallowed(world: World, path: Path) -> Fault | None:
    """A default route took a packet for which there should have been a better one.

    Only namespaces that route for others, or nodes, are asked: a pod's default route is its way.
    Nor is it a fault where the router behind it knows better.
    """
    for number, hop in enumerate(path.hops):
        space = world.spaces[hop.inode]
        if world.pod_in(space) is not None or hop.packet.inner is not None:
            continue
        step = _routed(hop)
        if step is None or step.detail.get("matched") != "0.0.0.0/0":
            continue
        target = hop.packet.destination
        wanted = _wanted(world, space, target)
        if wanted is None:
            continue
        gone = _gone_with_tunnel(world, space, target, wanted)
        if gone is not None:
            return gone
        # Without a next hop of its own the route is the router's affair.
        at_home = intent.host_route(world, space, target) is not None
        if wanted.route and (at_home or not _leads_home(world, path.hops[number:], target)):
            return _swallowed_at(world, hop, target, wanted, str(step.detail.get("nexthop")))
    return None


def _gone_with_tunnel(
    world: World, space: Space, target: IPAddress, wanted: Wanted
) -> Fault | None:
    """A tunnel that was set down took its routes with it; the route alone could not come back."""
    lost = intent.lost_tunnel(world, space, target)
    if lost is None:
        return None
    link, via = lost
    sentence = (
        f"{link.name} of {space.title} is down, and the route {wanted.destination} went with it"
    )
    state = Evidence(kind="link", key=link.name, value="down", expected="up", ns=space.title)
    command = f"ip link set {link.name} up && ip route replace {wanted.destination} {via}"
    return Fault(
        id="tunnel.down",
        number=41 if link.kind == "ipip" else None,
        where=Where(node=world.node_of(space), netns=space.title, interface=link.name),
        sentence=sentence,
        evidence=(state, *_evidence(space.title, wanted)),
        fix=mending.agents(command if via else f"ip link set {link.name} up"),
    )


def _leads_home(world: World, hops: tuple[Hop, ...], target: IPAddress) -> bool:
    """Whether the way by the default route is a good one: a router there knows the block.

    Then the packet comes to the pod's node, or to a namespace with a route to its block.
    """
    pod = intent.pod_of(world, target)
    for hop in hops:
        if hop.inode == hops[0].inode:
            continue
        if pod is not None and hop.inode == pod.host.space.inode:
            return True
        step = _routed(hop)
        matched = None if step is None else step.detail.get("matched")
        if matched not in {None, "0.0.0.0/0"}:
            return True
    return False


def _swallowed_at(world: World, hop: Hop, target: IPAddress, wanted: Wanted, gateway: str) -> Fault:
    here = hop.where.netns or "?"
    local = wanted.destination.endswith("/32")
    pod = intent.pod_of(world, target)
    whose = "" if pod is None else f" ({pod.title})"
    sentence = (
        f"{target}{whose} follows the default route of {here} to {gateway}: "
        f"the route {wanted.destination} is missing there"
    )
    route = Evidence(kind="route", key="matched", value=f"default via {gateway}", ns=here)
    return Fault(
        id="route.missing-host-route" if local else "route.missing-block-route",
        number=44 if local else 14,
        where=Where(node=hop.where.node, netns=hop.where.netns, interface=hop.where.interface),
        sentence=sentence,
        evidence=(route, *_evidence(here, wanted)),
        fix=_add(wanted),
    )


def _wanted(world: World, space: Space, address: IPAddress) -> Wanted | None:
    return intent.host_route(world, space, address) or intent.block_route(world, space, address)


def _add(wanted: Wanted) -> Fix:
    command = f"ip route replace {wanted.route}" if wanted.route else None
    return mending.agents(command)


def _evidence(here: str, wanted: Wanted) -> tuple[Evidence, ...]:
    return (
        Evidence(kind="route", key=wanted.destination, value=None, expected=wanted.route, ns=here),
        Evidence(kind="route", key="seen elsewhere", value=wanted.evidence),
    )
