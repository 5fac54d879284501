"""Keys are Calico's, and reading one gives back what it was built from."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.model import keys
from tests.fakes.model_values import NAMES, NETWORKS

BLOCK = ip_network("192.168.221.64/26")
BLOCK6 = ip_network("fd00::40/122")


@pytest.mark.parametrize(
    ("built", "key"),
    [
        (
            keys.pool_key("default-ipv4-ippool"),
            "/calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool",
        ),
        (keys.node_key("node-1"), "/calico/resources/v3/projectcalico.org/nodes/node-1"),
        (
            keys.endpoint_key("default", "node--1-k8s-web--0-eth0"),
            (
                "/calico/resources/v3/projectcalico.org/workloadendpoints/default/"
                "node--1-k8s-web--0-eth0"
            ),
        ),
        (keys.cluster_key(), "/calico/resources/v3/projectcalico.org/clusterinformations/default"),
        (keys.block_key(BLOCK), "/calico/ipam/v2/assignment/ipv4/block/192.168.221.64-26"),
        (keys.block_key(BLOCK6), "/calico/ipam/v2/assignment/ipv6/block/fd00::40-122"),
        (
            keys.affinity_key("node-1", BLOCK),
            "/calico/ipam/v2/host/node-1/ipv4/block/192.168.221.64-26",
        ),
        (
            keys.handle_key("k8s-pod-network.0a1b2c\rrest"),
            "/calico/ipam/v2/handle/k8s-pod-network.0a1b2c",
        ),
        (keys.handle_key("a/b%c"), "/calico/ipam/v2/handle/a%2fb%25c"),
        (keys.applied_key("node-1"), "/podwire/v1/applied/node-1"),
    ],
)
def test_a_key_is_spelled_as_calico_spells_it(built: str, key: str) -> None:
    assert built == key


@given(NAMES, NAMES, NETWORKS)
def test_every_key_reads_back(name: str, other: str, block: object) -> None:
    assert isinstance(block, type(BLOCK) | type(BLOCK6))
    assert keys.parse_pool_key(keys.pool_key(name)) == name
    assert keys.parse_node_key(keys.node_key(name)) == name
    assert keys.parse_reservation_key(keys.reservation_key(name)) == name
    assert keys.parse_cluster_key(keys.cluster_key(name)) == name
    assert keys.parse_endpoint_key(keys.endpoint_key(name, other)) == (name, other)
    assert keys.parse_block_key(keys.block_key(block)) == block
    assert keys.parse_affinity_key(keys.affinity_key(name, block)) == (name, block)
    assert keys.affinity_key(name, block).startswith(keys.affinity_prefix(name))
    assert keys.parse_handle_key(keys.handle_key(name)) == name
    assert keys.parse_applied_key(keys.applied_key(name)) == name


PARSERS = (
    keys.parse_pool_key,
    keys.parse_node_key,
    keys.parse_endpoint_key,
    keys.parse_block_key,
    keys.parse_affinity_key,
    keys.parse_handle_key,
)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/calico/ipam/v2/host/node-1",  # the bare host marker
        "/calico/ipam/v2/host/node-1/ipv4/block/192.168.221.65-26",
        "/calico/ipam/v2/host/node-1/ipv6/block/192.168.221.64-26",
        "/calico/ipam/v2/virtual/load-balancer/ipv4/block/172.20.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/block/nonsense",
        "/calico/resources/v3/projectcalico.org/workloadendpoints/lonely",
        "/calico/resources/v3/projectcalico.org/ippools/",
        "/calico/resources/v3/projectcalico.org/nodes/a/b",
    ],
)
def test_a_strange_key_is_none(key: str) -> None:
    assert [parse(key) for parse in PARSERS] == [None] * len(PARSERS)


@given(st.text())
def test_any_text_is_read_without_failing(text: str) -> None:
    for prefix in ("", keys.BLOCKS4, keys.AFFINITIES, keys.ENDPOINTS, keys.HANDLES):
        for parse in PARSERS:
            parse(prefix + text)
