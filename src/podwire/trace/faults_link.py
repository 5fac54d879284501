"""Faults of neighbours, links, tunnels, sizes, rules and receivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.addressing import POD_GATEWAY
from podwire.trace import intent
from podwire.trace.schema import Fix

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault


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
            text = f"give it back inside the pod: {target}/32 dev {pod.interface}"
            command = f"ip addr add {target}/32 dev {pod.interface}"
            return case.fault(
                "pod.address-missing", 11, sentence, fix=Fix(text=text, command=command)
            )
    return _dead_next_hop(case, target, asked_on)


def _no_proxy(case: Case, target: str) -> Fault:
    """The node does not answer a pod's question for its gateway."""
    name, node = case.interface, case.here
    match case.cause.code:
        case "arp-proxy-arp-off":
            return case.fault(
                "arp.proxy-off",
                3,
                f"{node} does not answer ARP for {target} on {name}: proxy_arp is 0 there",
                fix=Fix(text="set it to 1", command=f"sysctl -w net/ipv4/conf/{name}/proxy_arp=1"),
            )
        case "arp-no-route":
            return case.fault(
                "arp.no-route",
                4,
                f"{node} answers ARP only for what it could route elsewhere, and it has no route "
                f"that covers {target} (no default route)",
                fix=Fix(
                    text=f"give {node} a default route, or a route to {POD_GATEWAY} by its network",
                    command=f"ip route add {target} dev INTERFACE scope link",
                ),
            )
        case "arp-forwarding-off":
            off = case.cause.facts.get("net.ipv4.ip_forward") == "0"
            what = "ip_forward=0" if off else f"forwarding=0 on {name}"
            return case.fault(
                "forwarding.off" if off else "arp.forwarding-off",
                12 if off else 5,
                f"{node} does not answer ARP for {target} on {name}: {what} switches proxy ARP off",
                fix=Fix(
                    text="switch it on",
                    command="sysctl -w net/ipv4/ip_forward=1"
                    if off
                    else f"sysctl -w net/ipv4/conf/{name}/forwarding=1",
                ),
            )
        case "arp-rpf":
            back = case.cause.facts.get("route back", "none")
            return case.fault(
                "rpf.failed",
                18,
                f"{node} does not answer ARP on {name}: rp_filter is on, and the route back to "
                f"{case.origin} is: {back}",
                fix=_host_route_fix(case),
            )
        case _:
            sentence = f"nobody answers {target} on {name} of {node}: {case.cause.text}"
            return case.fault("arp.unanswered", None, sentence)


def _host_route_fix(case: Case) -> Fix | None:
    wanted = intent.host_route(case.world, case.space, case.origin)
    if wanted is None:
        return None
    return Fix(text="the agent of this node owns it", command=f"ip route replace {wanted.route}")


def _dead_next_hop(case: Case, target: str, link: str) -> Fault:
    packet = case.path.hops[-1].packet
    asker = case.path.hops[-1].where.netns or "?"
    if packet.vni is not None or (packet.inner is not None and case.path.hops[-1].role == "tunnel"):
        sentence = (
            f"the tunnel of {asker} sends to {target}, which nobody on {link} has: the forwarding "
            f"entry or the node's address is wrong"
        )
        return case.fault("fdb.wrong-node", 30, sentence)
    outer = case.path.hops[-1].role == "tunnel"
    name = "fdb.wrong-node" if outer else "neighbour.next-hop-unreachable"
    sentence = f"{asker} sends {case.called(case.target)} by {target}, which nobody on {link} has"
    return case.fault(name, 30 if outer else 36, sentence)


def link_down(case: Case) -> Fault:
    """A veth, or its other end, is down."""
    for pod in case.world.pods.values():
        space = case.world.spaces.get(pod.inode or 0)
        inner = None if space is None else space.links_by_name.get(pod.interface)
        names = {(pod.host.space.inode, pod.host.link.name), (pod.inode, pod.interface)}
        if (case.cause.inode, case.cause.where.interface) not in names:
            continue
        if not pod.host.link.up:
            name, where, number = pod.host.link.name, pod.host.space.title, 9
        elif inner is not None and not inner.up:
            name, where, number = inner.name, pod.title, 49
        else:
            break
        sentence = f"{name} of {where} is down (administratively)"
        fix = Fix(text="set it up", command=f"ip link set {name} up")
        return case.fault("link.down", number, sentence, fix=fix)
    fix = Fix(text="set it up", command=f"ip link set {case.interface} up")
    return case.fault("link.down", None, case.cause.text, fix=fix)


def tunnel_down(case: Case) -> Fault:
    """The tunnel device is down or not there."""
    ipip = case.cause.code == "no-ipip" or case.interface == "tunl0"
    return case.fault("tunnel.down", 41 if ipip else None, case.cause.text)


def vtep_missing(case: Case) -> Fault:
    """No permanent neighbour for the tunnel address."""
    target = case.cause.facts["target"]
    sentence = (
        f"{case.here} does not know the tunnel MAC of {target}: no neighbour entry on "
        f"{case.interface}"
    )
    return case.fault(
        "neighbour.vtep-missing", 28, sentence, fix=Fix(text="the agent of this node owns it")
    )


def fdb_missing(case: Case) -> Fault:
    """A MAC without a node behind it."""
    mac, via = case.cause.facts["mac"], case.cause.facts["via"]
    sentence = f"{case.here} has the MAC {mac} of {via}, but not the node behind it (FDB)"
    return case.fault("fdb.missing", 29, sentence, fix=Fix(text="the agent of this node owns it"))


def vtep_mac(case: Case) -> Fault:
    """The inner frame is for another VTEP."""
    return case.fault("fdb.wrong-node", 30, case.cause.text)


def vni(case: Case) -> Fault:
    """The two ends differ in their VNI."""
    sent, here = case.cause.facts["sent"], case.cause.facts["here"]
    sentence = f"the sender uses VNI {sent}, {case.interface} of {case.here} has VNI {here}"
    return case.fault("tunnel.vni-differs", 32, sentence)


def too_big(case: Case) -> Fault:
    """DF is set and the packet does not fit."""
    mtu, length = case.cause.facts["mtu"], case.cause.facts["length"]
    sentence = (
        f"{length} bytes with DF do not fit: the MTU of {case.interface} on {case.here} is {mtu}"
    )
    return case.fault("mtu.too-big", 39, sentence, fix=Fix(text=f"send no more than {mtu} bytes"))


def peer_mtu(case: Case) -> Fault:
    """The two ends of a veth differ in their MTU: lost without a word."""
    return case.fault("mtu.ends-differ", None, f"{case.cause.text}: dropped without an ICMP error")


def outer_fragments(case: Case) -> Fault:
    """Full packets are cut outside the tunnel."""
    mtu, length = case.cause.facts["mtu"], case.cause.facts["length"]
    sentence = (
        f"works, but full packets are cut: {length} bytes with the tunnel's header, "
        f"{case.interface} of {case.here} takes {mtu}"
    )
    return case.fault("mtu.tunnel-too-large", 38, sentence, severity="warning")


def proxy_delay(case: Case) -> Fault:
    """The first packet waits."""
    delay = case.cause.facts["delay_ms"]
    name = case.interface
    sentence = (
        f"the first packet waits up to {delay} ms for the proxy-ARP answer: proxy_delay is not 0 "
        f"on {name}"
    )
    fix = Fix(text="set it to 0", command=f"sysctl -w net/ipv4/neigh/{name}/proxy_delay=0")
    return case.fault("arp.proxy-delay", 7, sentence, fix=fix, severity="warning")


def rule(case: Case) -> Fault:
    """A firewall rule."""
    if case.cause.code == "rule-reject":
        sentence = f"refused, not lost: {case.cause.text}"
        return case.fault("policy.rejected", 24, sentence)
    by_policy = "(policy)" in case.cause.text
    return case.fault("policy.denied", 22 if by_policy else 23, f"dropped: {case.cause.text}")


def echo_ignored(case: Case) -> Fault:
    """The receiver does not answer ping."""
    sentence = f"{case.here} gets the packet and does not answer ping (icmp_echo_ignore_all=1)"
    return case.fault("pod.ignores-ping", 52, sentence, fix=Fix(text="try --tcp PORT"))


def port_closed(case: Case) -> Fault:
    """Nobody listens."""
    return case.fault("socket.closed", 51, f"{case.here} is reached; {case.cause.text}")


def duplicate(case: Case) -> Fault:
    """An address twice."""
    warning = case.cause.code == "several-answers"
    severity = "warning" if warning else "error"
    return case.fault("address.duplicate", 21, case.cause.text, severity=severity)
