"""Faults as operations: what each changes in this very lab, and how that is undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.lab import faults_destination, faults_source, faults_tunnel
from podwire.lab.fault_facts import Impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.lab.fault import Fault
    from podwire.lab.fault_facts import Facts
    from podwire.lab.fault_operations import Operation

    Recipe = Callable[[Facts], Iterator[Operation]]

RECIPES: dict[str, Recipe] = {
    "no-default-route-in-pod": faults_source.no_default_route_in_pod,
    "no-link-route-in-pod": faults_source.no_link_route_in_pod,
    "proxy-arp-off": faults_source.proxy_arp_off,
    "no-default-route-on-node": faults_source.no_default_route_on_node,
    "veth-forwarding-off-cold": faults_source.veth_forwarding_off_cold,
    "veth-forwarding-off": faults_source.veth_forwarding_off,
    "proxy-delay": faults_source.proxy_delay,
    "host-veth-down": faults_source.host_veth_down,
    "pod-address-missing": faults_source.pod_address_missing,
    "forwarding-off": faults_source.forwarding_off,
    "no-route-to-block": faults_source.no_route_to_block,
    "missing-block-route": faults_source.missing_block_route,
    "blackhole-covers-pod": faults_source.blackhole_covers_pod,
    "unreachable-route": faults_source.unreachable_route,
    "prohibit-route": faults_source.prohibit_route,
    "missing-source-route": faults_source.missing_source_route,
    "duplicate-address": faults_source.duplicate_address,
    "forward-policy-drop": faults_source.forward_policy_drop,
    "egress-policy-drop": faults_source.egress_policy_drop,
    "egress-policy-reject": faults_source.egress_policy_reject,
    "legacy-firewall-drop": faults_source.legacy_firewall_drop,
    "route-loop": faults_tunnel.route_loop,
    "tunnel-neighbour-missing": faults_tunnel.tunnel_neighbour_missing,
    "fdb-entry-missing": faults_tunnel.fdb_entry_missing,
    "fdb-wrong-node": faults_tunnel.fdb_wrong_node,
    "vni-differs": faults_tunnel.vni_differs,
    "host-firewall-drops-tunnel": faults_tunnel.host_firewall_drops_tunnel,
    "node-shut-out": faults_tunnel.node_shut_out,
    "wire-drops-tunnel": faults_tunnel.wire_drops_tunnel,
    "next-hop-dead": faults_tunnel.next_hop_dead,
    "tunnel-mtu-too-large": faults_tunnel.tunnel_mtu_too_large,
    "mtu-too-big": faults_tunnel.mtu_too_big,
    "mtu-black-hole": faults_tunnel.mtu_black_hole,
    "tunnel-down": faults_tunnel.tunnel_down,
    "tunnel-address-twice": faults_tunnel.tunnel_address_twice,
    "missing-host-route": faults_destination.missing_host_route,
    "missing-host-route-blackholed": faults_destination.missing_host_route_blackholed,
    "strict-rpf": faults_destination.strict_rpf,
    "tunnel-forwarding-off": faults_destination.tunnel_forwarding_off,
    "pod-link-down": faults_destination.pod_link_down,
    "ingress-policy-drop": faults_destination.ingress_policy_drop,
    "port-closed": faults_destination.port_closed,
    "pod-ignores-ping": faults_destination.pod_ignores_ping,
    "no-route-back-in-pod": faults_destination.no_route_back_in_pod,
    "asymmetric-strict-rpf": faults_destination.asymmetric_strict_rpf,
    "reply-dropped-as-invalid": faults_destination.reply_dropped_as_invalid,
    "reply-dropped-by-rule": faults_destination.reply_dropped_by_rule,
    "veth-mtu-differs": faults_tunnel.veth_mtu_differs,
    "prohibiting-rule": faults_source.prohibiting_rule,
}
"""Name of the fault → what makes it."""


def operations(fault: Fault, facts: Facts) -> tuple[Operation, ...]:
    """What to do, in order.

    Raises:
        Impossible: not in this lab, or not between these pods; says why.
    """
    if fault.between_nodes and facts.source.node == facts.destination.node:
        raise Impossible(f"{fault.name} needs two pods on different nodes")
    if facts.encapsulation not in fault.encapsulations:
        wanted = " or ".join(sorted(one.value for one in fault.encapsulations))
        raise Impossible(
            f"{fault.name} needs encapsulation {wanted}; between {facts.source.node} and "
            f"{facts.destination.node} it is {facts.encapsulation.value}",
            fix=f"podwire lab up --encapsulation {wanted.split()[-1]}",
        )
    if fault.same_subnet and not facts.same_subnet:
        raise Impossible(f"{fault.name} needs two nodes in one subnet")
    if fault.program is not None and fault.program not in facts.programs:
        raise Impossible(f"{fault.name} needs {fault.program}, which is not installed")
    return tuple(RECIPES[fault.name](facts))


def probe(fault: Fault, facts: Facts) -> tuple[str, ...]:
    """Options of `trace` that show the fault; none where an ordinary ping does."""
    pod, uplink = str(facts.pod_mtu), str(facts.uplink_mtu)
    options = {
        "tunnel-mtu-too-large": ("--size", pod),
        "mtu-too-big": ("--size", uplink, "--df"),
        "mtu-black-hole": ("--size", uplink, "--df"),
        "veth-mtu-differs": ("--size", pod),
        "port-closed": ("--tcp", "81"),
    }
    return options.get(fault.name, ())
