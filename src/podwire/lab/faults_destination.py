"""Faults of the receiving node and pod, and of the way back. Numbers are rows of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.lab.fault_facts import prefix_of
from podwire.lab.fault_operations import (
    FORWARD,
    Operation,
    add_firewall,
    add_policy,
    conf,
    delete_route,
    replace_route,
    set_down,
    set_sysctl,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault_facts import Facts


def missing_host_route(facts: Facts) -> Iterator[Operation]:
    """Row 44."""
    yield from missing_host_route_blackholed(facts)
    node = facts.destination_node
    yield delete_route(node, node.block_route_of(facts.destination), "its block")


def missing_host_route_blackholed(facts: Facts) -> Iterator[Operation]:
    """Row 45."""
    node = facts.destination_node
    address = str(facts.destination.ip)
    yield delete_route(node, node.route_to(address), address)


def _plain_way_back(facts: Facts) -> Operation:
    """The other node answers beside the tunnel; that works as long as nobody validates."""
    node = facts.destination_node
    block = prefix_of(node.block_route_of(facts.source))
    gateway = facts.addresses[facts.source.node].ip
    return replace_route(node, f"{block} via {gateway} dev {facts.uplink} proto 80")


def strict_rpf(facts: Facts) -> Iterator[Operation]:
    """Row 46."""
    yield _plain_way_back(facts)
    yield set_sysctl(facts.destination_node, conf(facts.tunnel, "rp_filter"), "1")


def tunnel_forwarding_off(facts: Facts) -> Iterator[Operation]:
    """Row 47."""
    yield set_sysctl(facts.destination_node, conf(facts.tunnel, "forwarding"), "0")


def pod_link_down(facts: Facts) -> Iterator[Operation]:
    """Row 49."""
    yield set_down(facts.destination_pod, facts.destination.interface)


def ingress_policy_drop(facts: Facts) -> Iterator[Operation]:
    """Row 50."""
    end = facts.destination
    rule = f"oifname {end.host_interface} ip saddr {facts.source.ip} counter drop"
    return add_policy(end.node, "ingress-drop", f'{rule} comment "default/deny-ingress"')


def port_closed(_: Facts) -> Iterator[Operation]:
    """Row 51: the probe does it all."""
    return iter(())


def pod_ignores_ping(facts: Facts) -> Iterator[Operation]:
    """Row 52."""
    yield set_sysctl(facts.destination_pod, "net/ipv4/icmp_echo_ignore_all", "1")


def no_route_back_in_pod(facts: Facts) -> Iterator[Operation]:
    """Row 53."""
    pod = facts.destination_pod
    yield delete_route(pod, pod.route_to("default"), "default")


def asymmetric_strict_rpf(facts: Facts) -> Iterator[Operation]:
    """Row 55."""
    yield _plain_way_back(facts)
    yield set_sysctl(facts.source_node, conf(facts.uplink, "rp_filter"), "1")


def reply_dropped_as_invalid(facts: Facts) -> Iterator[Operation]:
    """Row 56."""
    end = facts.source
    return add_firewall(
        end.node,
        "reply-invalid",
        "raw { type filter hook prerouting priority raw; }",
        f"raw iifname {end.host_interface} counter notrack",
        FORWARD,
        "forward ct state invalid counter drop",
    )


def reply_dropped_by_rule(facts: Facts) -> Iterator[Operation]:
    """Row 56, the other way."""
    end = facts.source
    rule = f"forward oifname {end.host_interface} ip saddr {facts.destination.ip} counter drop"
    return add_firewall(end.node, "reply-drop", FORWARD, rule)
