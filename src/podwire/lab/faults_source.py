"""Faults of the sending pod, its first hop and its node. Numbers are rows of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.lab.fault_facts import prefix_of
from podwire.lab.fault_operations import (
    Operation,
    add_firewall,
    add_policy,
    conf,
    delete_route,
    forget_neighbours,
    remember_gateway,
    replace_route,
    set_down,
    set_sysctl,
    stop_forwarding,
    words,
)
from podwire.model.addressing import POD_GATEWAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault_facts import Facts

TWIN = "fault-twin"
"""Namespace of the second owner of an address."""
TWIN_VETH = "califaulttwin"


def no_default_route_in_pod(facts: Facts) -> Iterator[Operation]:
    """Row 1."""
    pod = facts.source_pod
    yield delete_route(pod, pod.route_to("default"), "default")


def no_link_route_in_pod(facts: Facts) -> Iterator[Operation]:
    """Row 2: the default route was checked against it once, and never again."""
    pod = facts.source_pod
    gateway = str(POD_GATEWAY)
    yield delete_route(pod, pod.route_to(gateway), gateway)


def proxy_arp_off(facts: Facts) -> Iterator[Operation]:
    """Row 3."""
    yield set_sysctl(facts.source_node, conf(facts.source.host_interface, "proxy_arp"), "0")
    yield forget_neighbours(facts.source)


def no_default_route_on_node(facts: Facts) -> Iterator[Operation]:
    """Row 4."""
    node = facts.source_node
    yield delete_route(node, node.route_to("default"), "default")
    yield forget_neighbours(facts.source)


def veth_forwarding_off_cold(facts: Facts) -> Iterator[Operation]:
    """Row 5."""
    yield set_sysctl(facts.source_node, conf(facts.source.host_interface, "forwarding"), "0")
    yield forget_neighbours(facts.source)


def veth_forwarding_off(facts: Facts) -> Iterator[Operation]:
    """Row 6."""
    yield remember_gateway(facts, facts.source)
    yield set_sysctl(facts.source_node, conf(facts.source.host_interface, "forwarding"), "0")


def proxy_delay(facts: Facts) -> Iterator[Operation]:
    """Row 7."""
    name = f"net/ipv4/neigh/{facts.source.host_interface}/proxy_delay"
    yield set_sysctl(facts.source_node, name, "80")
    yield forget_neighbours(facts.source)


def host_veth_down(facts: Facts) -> Iterator[Operation]:
    """Row 9."""
    yield set_down(facts.source_node, facts.source.host_interface)


def pod_address_missing(facts: Facts) -> Iterator[Operation]:
    """Row 11. With its last address a device loses its routes, too."""
    pod = facts.destination_pod
    device = pod.device(facts.destination.interface)
    routes = sorted(pod.routes_by(device.name), key=lambda line: " via " in line)
    for address in device.addresses:
        yield Operation(
            place=pod.place,
            do=words(f"ip addr del {address} dev {device.name}"),
            undo=(
                words(f"ip addr replace {address} dev {device.name}"),
                *(words(f"ip route replace {line}") for line in routes),
            ),
        )


def forwarding_off(facts: Facts) -> Iterator[Operation]:
    """Row 12."""
    yield remember_gateway(facts, facts.source)
    yield stop_forwarding(facts.source_node)


def no_route_to_block(facts: Facts) -> Iterator[Operation]:
    """Row 13. Without a default route proxy ARP is silent: the pod must know its gateway."""
    node = facts.source_node
    block = node.block_route_of(facts.destination)
    yield remember_gateway(facts, facts.source)
    yield delete_route(node, block, str(facts.destination.ip))
    yield delete_route(node, node.route_to("default"), "default")


def missing_block_route(facts: Facts) -> Iterator[Operation]:
    """Row 14."""
    node = facts.source_node
    yield delete_route(node, node.block_route_of(facts.destination), str(facts.destination.ip))


def blackhole_covers_pod(facts: Facts) -> Iterator[Operation]:
    """Row 15."""
    return _refusing(facts, "blackhole")


def unreachable_route(facts: Facts) -> Iterator[Operation]:
    """Row 16."""
    return _refusing(facts, "unreachable")


def prohibit_route(facts: Facts) -> Iterator[Operation]:
    """Row 16, the other way."""
    return _refusing(facts, "prohibit")


def _refusing(facts: Facts, kind: str) -> Iterator[Operation]:
    node = facts.source_node
    block = prefix_of(node.block_route_of(facts.destination))
    yield replace_route(node, f"{kind} {block} proto 80")


def missing_source_route(facts: Facts) -> Iterator[Operation]:
    """Row 18. Who asks for his gateway is validated as well: the pod must know it."""
    node = facts.source_node
    address = str(facts.source.ip)
    yield remember_gateway(facts, facts.source)
    yield delete_route(node, node.route_to(address), address)


def duplicate_address(facts: Facts) -> Iterator[Operation]:
    """Row 21."""
    node, address = facts.source.node, facts.destination.ip

    def step(do: str, *undo: str) -> Operation:
        return Operation(place=node, do=words(do), undo=tuple(words(one) for one in undo))

    yield step(f"ip netns add {TWIN}", f"ip netns del {TWIN}")
    yield step(
        f"ip link add {TWIN_VETH} type veth peer name eth0 netns {TWIN}",
        f"ip link del {TWIN_VETH}",
    )
    yield step(f"ip link set {TWIN_VETH} up")
    yield step(f"sysctl -w {conf(TWIN_VETH, 'proxy_arp')}=1")
    yield step(f"sysctl -w net/ipv4/neigh/{TWIN_VETH}/proxy_delay=0")
    yield step(f"ip -n {TWIN} link set eth0 up")
    yield step(f"ip -n {TWIN} addr add {address}/32 dev eth0")
    yield step(f"ip -n {TWIN} route add {POD_GATEWAY} dev eth0 scope link")
    yield step(f"ip -n {TWIN} route add default via {POD_GATEWAY} dev eth0")
    yield replace_route(facts.kernels[node], f"{address} dev {TWIN_VETH} scope link")


def forward_policy_drop(facts: Facts) -> Iterator[Operation]:
    """Row 22."""
    chain = "FORWARD { type filter hook forward priority filter; policy drop; }"
    return add_firewall(facts.source.node, "forward-policy", chain)


def egress_policy_drop(facts: Facts) -> Iterator[Operation]:
    """Row 23."""
    end = facts.source
    rule = f"iifname {end.host_interface} ip daddr {facts.destination.ip} counter drop"
    return add_policy(end.node, "egress-drop", f'{rule} comment "default/deny-egress"')


def egress_policy_reject(facts: Facts) -> Iterator[Operation]:
    """Row 24."""
    end = facts.source
    rule = f"iifname {end.host_interface} ip daddr {facts.destination.ip} counter reject"
    return add_policy(end.node, "egress-reject", f'{rule} comment "default/refuse-egress"')


def legacy_firewall_drop(facts: Facts) -> Iterator[Operation]:
    """Row 26."""
    rule = f"FORWARD -s {facts.source.ip} -d {facts.destination.ip} -j DROP"
    yield Operation(
        place=facts.source.node,
        do=words(f"iptables-legacy -w -I {rule}"),
        undo=(words(f"iptables-legacy -w -D {rule}"),),
    )


def prohibiting_rule(facts: Facts) -> Iterator[Operation]:
    """A rule speaks before all tables but that of the own addresses."""
    rule = f"priority 100 from {facts.source.ip} to {facts.destination.ip} prohibit"
    yield Operation(
        place=facts.source.node,
        do=words(f"ip rule add {rule}"),
        undo=(words(f"ip rule del {rule}"),),
    )
