"""What the caller types, and which end it means: two clusters on one host included."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from podwire.errors import BadInput
from podwire.model.route import RouteKind
from podwire.trace import ends
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition
from podwire.trace.world import World
from tests.fakes.drawn_network import Network, story

WEB = "demo/web-0"


def two_clusters() -> tuple[Network, Network]:
    """The same cluster twice, as two labs on one host are; other inodes, the same names."""
    one, other = story(), story()
    offset = 1000
    for drawn in other.drawn.values():
        drawn.inode += offset
        drawn.netns_ids = {key: inode + offset for key, inode in drawn.netns_ids.items()}
    return one, other


@pytest.mark.parametrize("name", [WEB, "web-0", "vms103"])
def test_a_name_that_two_have_is_refused_with_both(name: str) -> None:
    one, other = two_clusters()
    world = World((*one.states(), *other.states()))
    with pytest.raises(BadInput, match="is the name of 2 ") as refused:
        ends.resolve(world, name)
    ways = re.findall(r"netns:\d+", refused.value.fix or "")
    found = [ends.resolve(world, each).space for each in ways]
    wanted = "vms103" if name == "vms103" else "web-0"
    assert [each.inode for each in found if each is not None] == [
        one[wanted].inode, other[wanted].inode,
    ]  # fmt: skip
    if name != "vms103":
        assert "on vms103, 10.244.38.174" in str(refused.value.fix)


def test_the_number_of_a_namespace_is_an_end() -> None:
    one, other = two_clusters()
    states = (*one.states(), *other.states())
    for cluster in (one, other):
        trace = predict(
            states, f"netns:{cluster['web-0'].inode}", f"netns:[{cluster['web-1'].inode}]"
        )
        assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
        assert (trace.source.title, trace.destination.title) == (WEB, "demo/web-1")
        inodes = {drawn.inode for drawn in cluster.drawn.values()}
        assert {hop.inode for path in trace.paths for hop in path.hops} <= inodes


def test_a_pod_with_two_interfaces_is_one_pod() -> None:
    network = story()
    node, pod = network["vms103"], network["web-0"]
    network.cable(node, "califirst", pod, "net1")
    node.change("califirst", alias=f"podwire idweb {WEB} net1")
    end = ends.resolve(World(network.states()), WEB)
    assert end.space is not None
    assert (end.space.inode, end.interface) == (pod.inode, "eth0")


def namesake() -> Network:
    """Pods demo/db-0 and other/db-0; their namespaces are called otherwise, as a runtime does."""
    network = story()
    node = network["vms105"]
    network.pod(node, "other/cache", "10.244.169.70")
    node.change("calicache", alias="podwire idother other/db-0 eth0")
    network["db-0"].name, network["cache"].name = "cni-1", "cni-2"
    return network


def test_short_names_of_several_pods_are_refused_by_their_long_ones() -> None:
    world = World(namesake().states())
    with pytest.raises(BadInput, match="'db-0' is the name of 2 pods") as refused:
        ends.resolve(world, "db-0")
    assert refused.value.fix == "say which: demo/db-0, other/db-0"
    assert ends.resolve(world, "other/db-0").address == ip_address("10.244.169.70")


def test_a_namesake_that_was_not_read_makes_a_name_no_clearer() -> None:
    one, other = two_clusters()
    hidden = other["web-0"].inode
    states = [each for each in (*one.states(), *other.states()) if each.namespace.inode != hidden]
    with pytest.raises(BadInput, match="is the name of 2 pods") as refused:
        ends.resolve(World(states), WEB)
    assert "its namespace was not read" in str(refused.value.fix)


def test_between_the_families_there_is_no_packet() -> None:
    with pytest.raises(BadInput, match="no IPv6 address"):
        predict(story().states(), WEB, "fd00::1")


def test_a_link_local_address_of_ipv4_is_routed_as_any_other() -> None:
    trace = predict(story().states(), WEB, "169.254.169.254")
    assert trace.disposition is Disposition.NO_ROUTE
    assert trace.paths[0].hops[-1].where.node != "demo/web-0"


def test_a_broadcast_of_a_node_is_not_modelled() -> None:
    network = story()
    network["vms103"].route("192.168.26.255/32", kind=RouteKind.BROADCAST, dev="ens32")
    trace = predict(network.states(), "vms103", "192.168.26.255")
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "broadcast: not modelled" in trace.summary
