"""Faults between the nodes: tunnel, wire, sizes. Numbers are rows of the catalogue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.lab.fault_facts import Impossible, prefix_of
from podwire.lab.fault_operations import (
    FORWARD,
    Operation,
    add_firewall,
    keep_fdb,
    keep_neighbour,
    recreate_vxlan,
    replace_route,
    set_down,
    set_mtu,
    words,
)
from podwire.lab.topology import UNDERLAY
from podwire.model.nftelement import TABLE
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault_facts import End, Facts

DEAD_HOST = 77
"""Last byte of an address that no node of a lab has."""
WRONG_VNI = 5000
NARROWER = 100
"""How many bytes less a narrowed link takes."""


def route_loop(facts: Facts) -> Iterator[Operation]:
    """Row 27."""
    node = facts.destination_node
    yield replace_route(node, f"{facts.destination.ip} {_way_to(facts, facts.source)} proto 80")


def _way_to(facts: Facts, end: End) -> str:
    """How the other node reaches an end's node: through the tunnel, or plainly."""
    if facts.encapsulation is Encapsulation.VXLAN:
        return f"via {facts.tunnel_address(end.node)} dev {facts.tunnel} onlink"
    if facts.encapsulation is Encapsulation.NONE and not facts.same_subnet:
        raise Impossible(f"{end.node} is not in the other node's subnet")
    address = facts.addresses[end.node].ip
    onlink = " onlink" if facts.encapsulation is Encapsulation.IPIP else ""
    return f"via {address} dev {facts.tunnel}{onlink}"


def _vtep(facts: Facts) -> str:
    """The permanent neighbour by which the source's node knows the other tunnel end."""
    address = facts.tunnel_address(facts.destination.node)
    line = facts.source_node.neighbour(address, facts.tunnel)
    if line is None:
        raise Impossible(f"{facts.source.node} has no neighbour {address} on {facts.tunnel}")
    return line


def tunnel_neighbour_missing(facts: Facts) -> Iterator[Operation]:
    """Row 28."""
    line = _vtep(facts)
    yield Operation(
        place=facts.source.node,
        do=words(f"ip neigh del {line.split()[0]} dev {facts.tunnel}"),
        undo=(keep_neighbour(line),),
    )


def _fdb(facts: Facts) -> str:
    words_of = _vtep(facts).split()
    mac = words_of[words_of.index("lladdr") + 1]
    for line in facts.source_node.fdb:
        if line.startswith(f"{mac} dst "):
            return keep_fdb(line, facts.tunnel)
    raise Impossible(f"{facts.source.node} has no forwarding entry for {mac}")


def fdb_entry_missing(facts: Facts) -> Iterator[Operation]:
    """Row 29."""
    entry = _fdb(facts)
    yield Operation(
        place=facts.source.node,
        do=words(f"bridge fdb del {entry.removesuffix(' permanent')}"),
        undo=(words(f"bridge fdb replace {entry}"),),
    )


def fdb_wrong_node(facts: Facts) -> Iterator[Operation]:
    """Row 30."""
    entry = _fdb(facts)
    before = entry.split()
    dst = before.index("dst") + 1
    after = " ".join([*before[:dst], _dead(facts), *before[dst + 1 :]])
    yield Operation(
        place=facts.source.node,
        do=words(f"bridge fdb replace {after}"),
        undo=(words(f"bridge fdb replace {entry}"),),
    )


def _dead(facts: Facts) -> str:
    """An address on the source node's subnet that nobody has."""
    return str(facts.addresses[facts.source.node].network.network_address + DEAD_HOST)


def vni_differs(facts: Facts) -> Iterator[Operation]:
    """Row 32."""
    node = facts.destination_node
    return recreate_vxlan(node, node.device(facts.tunnel), WRONG_VNI)


def _tunnel_packets(facts: Facts) -> str:
    source = facts.addresses[facts.source.node].ip
    if facts.encapsulation is Encapsulation.IPIP:
        return f"ip saddr {source} ip protocol 4 counter drop"
    port = facts.kernels[facts.source.node].device(facts.tunnel).details["port"]
    return f"ip saddr {source} udp dport {port} counter drop"


def host_firewall_drops_tunnel(facts: Facts) -> Iterator[Operation]:
    """Row 34."""
    chain = "input { type filter hook input priority filter; }"
    rule = f"input {_tunnel_packets(facts)}"
    return add_firewall(facts.destination.node, "host-firewall", chain, rule)


def node_shut_out(facts: Facts) -> Iterator[Operation]:
    """The destination's node takes the source's node for a stranger."""
    element = f"element ip {TABLE} nodes {{ {facts.addresses[facts.source.node].ip} }}"
    yield Operation(
        place=facts.destination.node,
        do=words(f"nft delete {element}"),
        undo=(words(f"nft add {element}"),),
    )


def wire_drops_tunnel(facts: Facts) -> Iterator[Operation]:
    """Row 35: at the switch, or at the router where there are two subnets."""
    family = "bridge" if facts.same_subnet else "ip"
    rule = f"forward {_tunnel_packets(facts)}"
    return add_firewall(UNDERLAY, "wire", FORWARD, rule, family=family)


def next_hop_dead(facts: Facts) -> Iterator[Operation]:
    """Row 36."""
    node = facts.source_node
    block = prefix_of(node.block_route_of(facts.destination))
    yield replace_route(node, f"{block} via {_dead(facts)} dev {facts.uplink} proto 80")


def tunnel_mtu_too_large(facts: Facts) -> Iterator[Operation]:
    """Row 38."""
    for kernel in (facts.source_node, facts.destination_node):
        narrow = set_mtu(kernel, facts.uplink, kernel.device(facts.uplink).mtu - NARROWER)
        # Who mends it narrows the tunnel; that is undone with it.
        tunnel = set_mtu(kernel, facts.tunnel, kernel.device(facts.tunnel).mtu)
        yield replace(narrow, undo=(*narrow.undo, *tunnel.undo))


def mtu_too_big(facts: Facts) -> Iterator[Operation]:
    """Row 39: the pod is told more than the tunnel takes; without one, the wire takes less."""
    pod, node = facts.source_pod, facts.source_node
    full = facts.uplink_mtu
    if facts.encapsulation is Encapsulation.NONE:
        yield set_mtu(node, facts.uplink, full - NARROWER)
    else:
        yield set_mtu(node, facts.source.host_interface, full)
        yield set_mtu(pod, facts.source.interface, full)


def mtu_black_hole(facts: Facts) -> Iterator[Operation]:
    """Row 40."""
    yield from mtu_too_big(facts)
    chain = "output { type filter hook output priority filter; }"
    rule = "output icmp type destination-unreachable counter drop"
    yield from add_firewall(facts.source.node, "no-icmp", chain, rule)


def tunnel_down(facts: Facts) -> Iterator[Operation]:
    """Row 41."""
    yield set_down(facts.source_node, facts.tunnel)


def tunnel_address_twice(facts: Facts) -> Iterator[Operation]:
    """Row 42."""
    address = f"{facts.tunnel_address(facts.source.node)}/32 dev {facts.tunnel}"
    yield Operation(
        place=facts.destination.node,
        do=words(f"ip addr add {address}"),
        undo=(words(f"ip addr del {address}"),),
    )


def veth_mtu_differs(facts: Facts) -> Iterator[Operation]:
    """A frame larger than the other end of a veth takes is dropped without a word."""
    node = facts.source_node
    yield set_mtu(node, facts.source.host_interface, facts.pod_mtu - NARROWER)
