"""Topologies check themselves, and say which node is where."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.lab.router import Make
from podwire.lab.topology import STORY_BLOCKS, Topology, default_mode
from podwire.lab.tor import parse_rib
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation, Mode


def test_the_storys_nodes_come_first_and_vms104_never() -> None:
    nodes = Topology(size=7).nodes
    assert [node.name for node in nodes] == [
        "vms100", "vms101", "vms102", "vms103", "vms105", "vms106", "vms107",
    ]  # fmt: skip
    assert str(nodes[3].address) == "192.168.26.103/24"
    assert str(nodes[3].gateway) == "192.168.26.2"


def test_with_two_subnets_nodes_alternate() -> None:
    nodes = Topology(size=4, subnets=2).nodes
    assert [str(node.address.ip) for node in nodes] == [
        "192.168.26.100", "192.168.27.101", "192.168.26.102", "192.168.27.103",
    ]  # fmt: skip
    assert str(nodes[1].gateway) == "192.168.27.2"


@given(st.integers(1, 154), st.integers(1, 2))
def test_names_and_addresses_are_unique_and_on_their_subnet(size: int, subnets: int) -> None:
    topology = Topology(size=size, subnets=subnets)
    assert len({node.name for node in topology.nodes}) == size
    assert len({node.address.ip for node in topology.nodes}) == size
    for node in topology.nodes:
        assert node.gateway in node.address.network
        assert node.address.ip != node.gateway
        assert topology.node(node.name) is node


def test_the_storys_blocks_lie_in_the_default_pool() -> None:
    topology = Topology()
    assert topology.story_blocks == STORY_BLOCKS
    for block in topology.story_blocks.values():
        assert block.subnet_of(topology.pool)
    assert set(Topology(size=2).story_blocks) == {"vms100", "vms101"}
    assert Topology(block_size=27).story_blocks == {}
    assert Topology(pool=IPv4Network("10.1.0.0/16")).story_blocks == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 0}, "--nodes 0"),
        ({"size": 155}, "--nodes 155"),
        ({"subnets": 3}, "--subnets 3"),
        ({"block_size": 33}, "--block-size 33"),
        ({"block_size": 15}, "--block-size 15"),
        ({"pool": IPv4Network("192.168.0.0/16")}, "overlaps 192.168.26.0/24"),
        ({"pool": IPv4Network("224.0.0.0/8")}, "overlaps 224.0.0.0/3"),
        ({"pool": IPv4Network("10.0.0.0/26"), "size": 2}, "holds 1 blocks"),
        ({"name": "../x"}, "cannot name a lab"),
        ({"encapsulation": Encapsulation.NONE}, "mode Always does not go with"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_fix(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        Topology(**changes)  # type: ignore[arg-type]
    assert caught.value.fix


def test_encapsulation_only_between_subnets_where_there_are_two() -> None:
    assert default_mode(Encapsulation.VXLAN, 1) is Mode.ALWAYS
    assert default_mode(Encapsulation.IPIP, 2) is Mode.CROSS_SUBNET
    assert default_mode(Encapsulation.NONE, 2) is Mode.NEVER


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tor": Make.FRR}, "--tor needs nodes that speak BGP"),
        ({"reflectors": 1}, "--reflectors needs nodes that speak BGP"),
        ({"reflectors": 4, "size": 3, "routing": Routing.BIRD}, "--reflectors 4 is out of range"),
    ],
)
def test_routers_and_reflectors_need_bird(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Topology(**options)


def test_what_gobgp_shows_becomes_routes() -> None:
    text = """{"10.244.1.0/26": [
        {"best": false, "attrs": [{"type": 1}, {"type": 3, "nexthop": "10.0.0.9"}]},
        {"best": true, "attrs": [{"type": 3, "nexthop": "10.0.0.1"}]}],
      "198.51.100.0/24": [{"best": true, "attrs": [{"type": 3, "nexthop": "0.0.0.0"}]}]}"""
    assert parse_rib(text) == {IPv4Network("10.244.1.0/26"): IPv4Address("10.0.0.1")}
    assert parse_rib("failed to connect") == {}
