"""Faults of ARP: a proxy that may not answer, a pod without its address, a dead next hop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.addressing import POD_GATEWAY
from podwire.trace import intent
from podwire.trace.case import plain, warning
from podwire.trace.faults import mending
from podwire.trace.schema import Evidence, Fix, Where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.trace.case import Case
    from podwire.trace.schema import Fault
    from podwire.trace.world import Pod


def unanswered(case: Case) -> Fault:
    """Nobody answers ARP: a proxy that may not, a pod without its address, or a dead next hop."""
    facts = case.cause.facts
    target = facts.get("target", "?")
    asker_pod = case.world.pod_in(case.world.spaces[case.path.hops[-1].inode])
    if asker_pod is not None:
        return _no_proxy(case, target)
    asked_on = facts.get("link", "")
    for pod in case.world.pods.values():
        asker = case.path.hops[-1].inode
        if pod.host.link.name == asked_on and pod.host.space.inode == asker:
            sentence = (
                f"{pod.title} does not have {target}: {pod.host.space.title} asks for it on "
                f"{asked_on} and nobody answers"
            )
            return _address_missing(case, pod, target, sentence, (_asked(case),))
    return _dead_next_hop(case, target, asked_on)


def address_missing(case: Case) -> Fault:
    """The packet reaches a pod that has lost its address."""
    pod, target = case.pod_here, str(case.target)
    if pod is None:
        return plain(case)
    sentence = f"{pod.title} has lost its address {target}: the packet gets there and is not for it"
    return _address_missing(case, pod, target, sentence, ())


def _address_missing(
    case: Case, pod: Pod, target: str, sentence: str, evidence: tuple[Evidence, ...]
) -> Fault:
    absent = Evidence(kind="address", key=f"{target} dev {pod.interface}", value=None, ns=pod.title)
    return case.without("address").fault(
        "pod.address-missing",
        11,
        sentence,
        fix=Fix(
            text="give the pod its address back",
            command=f"ip addr add {target}/32 dev {pod.interface}{mending.pod_routes(case, pod)}",
        ),
        evidence=(absent, *evidence),
        where=Where(
            node=case.world.node_of(pod.host.space), netns=pod.title, interface=pod.interface
        ),
    )


def _asked(case: Case) -> Evidence:
    """The question nobody answered."""
    facts, asker = case.cause.facts, case.path.hops[-1].where.netns
    key = f"{facts.get('target')} dev {facts.get('link')}"
    return Evidence(kind="neigh", key=key, value="no answer", ns=asker)


def _no_proxy(case: Case, target: str) -> Fault:
    """The node does not answer a pod's question for its gateway."""
    name, number, why, fix = _why_silent(case, target)
    sentence = f"{case.here} does not answer ARP for {target} on {case.interface}: {why}"
    evidence: tuple[Evidence, ...] = (_asked(case),)
    if case.cause.code == "arp-no-route":
        absent = Evidence(kind="route", key=f"route to {target}", value=None, ns=case.here)
        evidence = (absent, *evidence)
    return case.fault(name, number, sentence, fix=fix, evidence=evidence)


def _why_silent(case: Case, target: str) -> tuple[str, int | None, str, Fix | None]:
    """Name, number, reason and fix, by what silenced the proxy."""
    name, facts = case.interface, case.cause.facts
    conf = f"net/ipv4/conf/{name}"
    match case.cause.code:
        case "arp-proxy-arp-off":
            fix = Fix(text="set it to 1", command=f"sysctl -w {conf}/proxy_arp=1")
            return "arp.proxy-off", 3, "proxy_arp is 0 there", fix
        case "arp-no-route":
            fix = mending.default_route(case) or Fix(
                text=f"give {case.here} a default route, or one to {POD_GATEWAY} by its network",
                command=f"ip route add {target} dev {_uplink(case)} scope link",
            )
            why = "it answers only for what it could route elsewhere, and has no default route"
            return "arp.no-route", 4, why, fix
        case "arp-forwarding-off" if facts.get("net.ipv4.ip_forward") == "0":
            fix = Fix(text="switch it on", command="sysctl -w net/ipv4/ip_forward=1")
            return "forwarding.off", 12, "ip_forward=0 switches proxy ARP off", fix
        case "arp-forwarding-off":
            fix = Fix(text="switch it on", command=f"sysctl -w {conf}/forwarding=1")
            return "arp.forwarding-off", 5, "forwarding=0 there switches proxy ARP off", fix
        case "arp-rpf":
            back = facts.get("route back", "none")
            why = f"rp_filter is on, and the route back to {case.origin} is: {back}"
            return "rpf.failed", 18, why, _host_route_fix(case)
        case code:
            return "arp.unanswered", None, _silenced(code.removeprefix("arp-"), facts), None


def _silenced(code: str, facts: Mapping[str, str]) -> str:
    """Why a proxy keeps still, where no setting of its own is to blame."""
    routed = "it answers only for what it could route elsewhere, and"
    match code:
        case "blackhole" | "unreachable" | "prohibit":
            return f"{routed} a {code} route or rule covers it"
        case "same-link":
            return f"{routed} its own route to it leaves by that very link"
        case "arp-ignore":
            return f"arp_ignore is {facts.get('arp_ignore')} there"
        case "own-source":
            return "the one who asks has an address of its own"
        case _:
            return "nobody there has it"


def _uplink(case: Case) -> str:
    """The link of a node that has an address of a network."""
    for index, addresses in sorted(case.space.addresses.items()):
        link = case.space.links[index]
        wide = any(each.interface.network.prefixlen < 32 for each in addresses)
        if wide and not link.loopback and link.kind not in {"vxlan", "ipip"}:
            return link.name
    return "INTERFACE"


def _host_route_fix(case: Case) -> Fix | None:
    wanted = intent.host_route(case.world, case.space, case.origin)
    if wanted is None:
        return None
    return mending.agents(f"ip route replace {wanted.route}")


def _dead_next_hop(case: Case, target: str, link: str) -> Fault:
    """A node sends to an address of the wire that nobody there has."""
    last = case.path.hops[-1]
    asker = last.where.netns or "?"
    if last.role == "tunnel":
        sentence = (
            f"{last.where.interface} of {asker} sends what is for {case.called(case.target)} to "
            f"{target}, which nobody on {link} has"
        )
        place, fix = mending.true_node(case, destination=target)
        evidence = (*_wrong_entry(case, target, fix), _asked(case))
        return case.fault(
            "tunnel.wrong-node", 30, sentence, fix=fix, evidence=evidence, where=place
        )
    sentence = f"{asker} sends {case.called(case.target)} by {target}, which nobody on {link} has"
    fix = mending.block_route(case, case.world.spaces[last.inode])
    place = Where(node=last.where.node, netns=last.where.netns, interface=link)
    return case.fault(
        "neighbour.next-hop-dead", 36, sentence, fix=fix, evidence=(_asked(case),), where=place
    )


def _wrong_entry(case: Case, target: str, fix: Fix | None) -> tuple[Evidence, ...]:
    """The forwarding entry that names the address, and what it should name."""
    words = [] if fix is None or fix.command is None else fix.command.split()
    if words[:3] != ["bridge", "fdb", "replace"]:
        return ()
    mac, expected = words[3], words[words.index("dst") + 1]
    key = f"fdb {mac} dev {words[words.index('dev') + 1]}"
    return (
        Evidence(kind="fdb", key=key, value=f"dst {target}", expected=f"dst {expected}",
                 ns=case.path.hops[-1].where.netns),
    )  # fmt: skip


def proxy_delay(case: Case) -> Fault:
    """The first packet waits."""
    delay = case.cause.facts["delay_ms"]
    name = case.interface
    sentence = (
        f"a packet whose gateway has to be asked for waits up to {delay} ms for the proxy-ARP "
        f"answer: proxy_delay is not 0 on {name}"
    )
    fix = Fix(text="set it to 0", command=f"sysctl -w net/ipv4/neigh/{name}/proxy_delay=0")
    return warning(case.fault("arp.proxy-delay", 7, sentence, fix=fix))
