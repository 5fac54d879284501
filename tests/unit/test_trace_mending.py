"""Fixes that need more than one table to be told: a tunnel's, a router's, an older firewall's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from podwire.model.kernelstate import Read
from podwire.model.link import Address
from podwire.trace.counterproof import Question, prove
from podwire.trace.flow import Flow
from podwire.trace.schema import Disposition, Fault, Trace
from tests.fakes.drawn_network import Network, story

BLOCK = "10.244.169.64/26"
TUNNELS = {"ipip": "tunl0", "vxlan": "vxlan.calico"}


def traced(network: Network) -> Trace:
    asked = Question(
        states=network.states(), source="demo/web-0", destination="demo/db-0", flow=Flow()
    )
    return prove(asked.predict(), asked)


def checked(network: Network) -> Fault:
    """The first fault, whose fix makes the prediction good."""
    fault = traced(network).faults[0]
    assert fault.fix is not None
    assert fault.fix.verified_by == "counterproof"
    return fault


def tunnel_down(kind: str) -> Network:
    network, name = story(kind), TUNNELS[kind]
    node = network["vms103"]
    node.change(name, up=False, carrier=False)
    node.unroute(BLOCK)
    return network


def test_a_tunnel_that_is_down_took_its_route_along() -> None:
    fault = checked(tunnel_down("ipip"))
    assert (fault.id, fault.number, fault.where.interface) == ("tunnel.down", 41, "tunl0")
    assert fault.fix is not None
    assert fault.fix.command == (
        f"ip link set tunl0 up && ip route replace {BLOCK} via 192.168.26.105 dev tunl0 onlink"
    )


def test_a_link_local_address_that_both_nodes_have_is_no_next_hop() -> None:
    network = tunnel_down("ipip")
    for name in ("vms103", "vms105"):
        node = network[name]
        veth = next(link for link in node.links.values() if link.name.startswith("cali"))
        local = ip_interface("fe80::ecee:eeff:feee:eeee/64")
        node.addresses.insert(0, Address(device=veth.index, interface=local, scope=253))
    fault = checked(network)
    assert fault.fix is not None
    assert str(fault.fix.command).endswith(f" {BLOCK} via 192.168.26.105 dev tunl0 onlink")


def test_a_vxlan_tunnel_that_is_down_is_no_row_of_the_list() -> None:
    fault = checked(tunnel_down("vxlan"))
    assert (fault.id, fault.number) == ("tunnel.down", None)


def test_the_tunnel_device_that_every_namespace_has_is_not_meant() -> None:
    network = story("vxlan")
    for name in ("vms103", "vms105"):
        network.ipip(network[name], "192.0.2.1")
        network[name].change("tunl0", up=False, carrier=False)
        network[name].addresses.pop()
    network["vms103"].unroute(BLOCK)
    assert checked(network).id == "route.missing-block-route"


def test_a_device_with_a_wrong_vni_is_made_anew_with_all_that_hung_on_it() -> None:
    network = story("vxlan")
    settings = network["vms105"].links["vxlan.calico"].vxlan
    assert settings is not None
    network["vms105"].change("vxlan.calico", vxlan=replace(settings, vni=5000))
    command = str(getattr(checked(network).fix, "command", None))
    assert command.startswith("ip link del vxlan.calico && ip link add vxlan.calico index ")
    assert " id 4096 " in command
    for verb in ("ip addr add", "bridge fdb replace", "ip neigh replace", "ip route replace"):
        assert verb in command


@pytest.mark.parametrize("known", ["by its neighbour", "by itself"])
def test_a_default_route_is_given_back_by_the_router(known: str) -> None:
    network = story("none")
    network["vms103"].unroute("0.0.0.0/0")
    if known == "by itself":
        network["vms105"].unroute("0.0.0.0/0")
    fault = checked(network)
    assert fault.id == "arp.no-route"
    assert fault.fix is not None
    assert fault.fix.command == "ip route add default via 192.168.26.2 dev ens32"


def test_a_rule_of_the_older_firewall_is_deleted_as_it_was_saved() -> None:
    network = story("none")
    rule = 'FORWARD -s 10.244.38.174/32 -m comment --comment "no way" -j DROP'
    saved = (
        f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.1/32 -j DROP\n-A {rule}\nCOMMIT\n"
    )
    network["vms103"].missing["iptables_legacy"] = Read(saved)
    fault = checked(network)
    assert (fault.id, fault.number) == ("policy.denied", 26)
    assert fault.fix is not None
    assert fault.fix.command == f"iptables-legacy -t filter -D {rule}"


def test_a_loop_is_blamed_on_the_node_that_sends_its_own_pod_away() -> None:
    network = story("none")
    network["vms105"].unroute("10.244.169.66/32")
    network["vms105"].route("10.244.169.66/32", via="192.168.26.103", dev="ens32")
    trace = traced(network)
    assert trace.disposition is Disposition.LOOP
    fault = checked(network)
    assert (fault.number, fault.where.netns) == (27, "vms105")
