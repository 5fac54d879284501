"""By which address a node is known, and which addresses its pods never get."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.ipam.affinity import walk
from podwire.model import codec, keys
from podwire.model.pool import IPReservation
from podwire.model.resource import Metadata
from tests.kernel.agent_cluster import AgentNode, Cluster, Make, PodOnNode, clusters, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def known_as(cluster: Cluster, node: AgentNode) -> str:
    key = keys.node_key(node.name)
    entry = cluster.store.get(key)
    assert entry is not None
    return str(codec.decode_node(key, entry.value).address)


def add_wire(node: AgentNode) -> None:
    node.ip("link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    node.ip("addr", "add", "172.16.0.1/24", "dev", "wan0")
    for device in ("wan0", "wan1"):
        node.ip("link", "set", device, "up")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "10.0.0.1/24"),
        ({"address": "10.0.0.9/24"}, "10.0.0.9/24"),
        ({"address": "172.16.0.1/24"}, "172.16.0.1/24"),
        ({"interface": "wan0"}, "172.16.0.1/24"),
    ],
    ids=str,
)
def test_the_address_is_the_one_that_was_given(
    make_cluster: Make, settings: dict[str, str], expected: str
) -> None:
    cluster = make_cluster()
    one = cluster.nodes[0]
    one.ip("addr", "add", "10.0.0.9/24", "dev", "ens32")
    add_wire(one)
    one.settings.update(settings)
    one.start()
    assert known_as(cluster, one) == expected


def test_the_default_routes_preferred_source_comes_first(make_cluster: Make) -> None:
    cluster = make_cluster()
    one, two = cluster.nodes
    one.ip("addr", "add", "10.0.0.9/24", "dev", "ens32")
    one.ip("route", "replace", "default", "via", "10.0.0.254", "src", "10.0.0.9")
    cluster.start()
    assert known_as(cluster, one) == "10.0.0.9/24"
    assert "via 10.0.0.9 dev ens32" in two.routes().values()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    assert "ttl=62" in there.ping(here.address, "-c", "1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "10.0.0.77/24"}, "no device carries the address 10.0.0.77"),
        ({"interface": "wan7"}, "no address"),
    ],
    ids=str,
)
def test_an_address_that_is_not_there_is_said(
    make_cluster: Make, settings: dict[str, str], words: str
) -> None:
    one = make_cluster().nodes[0]
    one.settings.update(settings)
    one.begin()
    until(words, lambda: words in " ".join((one.status() or {"reasons": ()})["reasons"]))
    assert one.routes() == {}


def test_reserved_addresses_are_never_given_to_pods(make_cluster: Make) -> None:
    cluster = make_cluster()
    one = cluster.nodes[0]
    block = next(walk(cluster.pool, one.name))
    reserved = ip_network(f"{block.network_address}/27")
    reservation = IPReservation(metadata=Metadata(name="printers"), reserved=(reserved,))
    cluster.store.create(codec.key_of(reservation), codec.encode(reservation))
    one.start()
    pods = [PodOnNode(one, f"pod-{number}").add() for number in range(4)]
    assert [pod.address for pod in pods] == [
        str(reserved.broadcast_address + n) for n in (1, 2, 3, 4)
    ]
