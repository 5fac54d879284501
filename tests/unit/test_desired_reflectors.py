"""Who is elected to reflect routes, and that the way there and back is complete."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.desired.bgpcompute import compute_bird
from podwire.desired.reflectors import (
    CANDIDATES,
    LARGEST_MESH,
    Change,
    advice,
    elect,
    to_mesh,
    to_reflectors,
)
from podwire.errors import BadInput
from podwire.model.bgp import BGPConfiguration, BGPPeer, SecretKey
from podwire.model.node import Node
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

if TYPE_CHECKING:
    from podwire.model.resource import Stored

PASSWORD = SecretKey(name="bgp", key="mesh")


def node(number: int, **labels: str) -> Node:
    return Node(
        metadata=Metadata(name=f"n{number:03}", labels=labels),
        address=ip_interface(f"10.0.{number // 200}.{number % 200 + 1}/16"),
    )


CLUSTER = [node(n, **({"podwire.io/route-reflector": ""} if n % 2 else {})) for n in range(8)]


def names(nodes: list[Node]) -> list[str]:
    return [each.name for each in nodes]


def test_only_candidates_with_an_address_are_chosen() -> None:
    homeless = Node(metadata=Metadata(name="a", labels={"podwire.io/route-reflector": ""}))
    assert names(elect([homeless, *CLUSTER])) == ["n001", "n003", "n005"]
    with pytest.raises(BadInput, match="matches 4 nodes with an address, and 5"):
        elect(CLUSTER, count=5)


def test_they_are_spread_over_zones() -> None:
    cluster = [node(n, zone="ab"[n // 5], **{"podwire.io/route-reflector": ""}) for n in range(10)]
    assert names(elect(cluster)) == ["n000", "n005", "n001"]


def test_who_is_one_already_stays_one() -> None:
    cluster = [
        replace(each, route_reflector_cluster_id="1.1.1.1") if each.name == "n007" else each
        for each in CLUSTER
    ]
    assert names(elect(cluster)) == ["n007", "n001", "n003"]


def carried_out(cluster: Snapshot, change: Change) -> Snapshot:
    nodes, peers = dict(cluster.nodes), dict(cluster.bgp_peers)
    configurations = dict(cluster.bgp_configurations)

    def put(value: Stored) -> None:
        match value:
            case Node():
                nodes[value.name] = value
            case BGPPeer():
                peers[value.name] = value
            case BGPConfiguration():
                configurations[value.name] = value

    for value in change.write:
        put(value)
    for gone in change.delete:
        assert isinstance(gone, BGPPeer)
        del peers[gone.name]
    return replace(cluster, nodes=nodes, bgp_peers=peers, bgp_configurations=configurations)


def sessions(cluster: Snapshot) -> set[tuple[str, str]]:
    found = set()
    for name in cluster.nodes:
        config = compute_bird(cluster, name)
        assert config is not None
        for peer in config.peers:
            assert peer.node is not None
            assert peer.password == PASSWORD
            assert peer.client == (config.cluster_id is not None)
            found.add((name, peer.node))
    return found


def move(cluster: Snapshot, count: int, selector: str = CANDIDATES) -> Snapshot:
    everybody = list(cluster.nodes.values())
    chosen = elect(everybody, selector, count)
    return carried_out(
        cluster,
        to_reflectors(chosen, everybody, cluster.bgp_configurations, cluster.bgp_peers),
    )


def back(cluster: Snapshot) -> Snapshot:
    everybody = list(cluster.nodes.values())
    return carried_out(cluster, to_mesh(everybody, cluster.bgp_configurations, cluster.bgp_peers))


@given(st.integers(2, 8), st.data())
def test_every_node_speaks_with_every_reflector_and_the_way_back_leaves_nothing(
    size: int, data: st.DataObject
) -> None:
    settings = BGPConfiguration(metadata=Metadata(name="default"), mesh_password=PASSWORD)
    mesh = Snapshot(
        nodes={each.name: each for each in CLUSTER[:size]},
        bgp_configurations={"default": replace(settings, mesh=True)},
    )
    everybody = set(mesh.nodes)
    count = data.draw(st.integers(1, size))
    moved = move(mesh, count, "all()")
    reflectors = {n.name for n in moved.nodes.values() if n.route_reflector_cluster_id}
    assert len(reflectors) == count
    pairs = {(one, two) for one in everybody for two in reflectors if one != two}
    assert sessions(moved) == pairs | {(two, one) for one, two in pairs}
    assert move(moved, count, "all()") == moved
    assert back(moved) == mesh
    assert back(mesh) == mesh
    fewer = move(moved, 1, "all()")
    assert len([n for n in fewer.nodes.values() if n.route_reflector_cluster_id]) == 1


def test_reflectors_made_by_hand_stay() -> None:
    by_hand = replace(CLUSTER[0], route_reflector_cluster_id="1.1.1.1")
    cluster = Snapshot(nodes={each.name: each for each in (by_hand, *CLUSTER[1:])})
    assert back(move(cluster, 2)).nodes[by_hand.name] == by_hand
    assert back(move(cluster, 2, "all()")).nodes[by_hand.name] == by_hand


def test_a_large_mesh_is_worth_a_word() -> None:
    assert advice(LARGEST_MESH, mesh=True) is None
    assert advice(LARGEST_MESH + 1, mesh=False) is None
    assert "101 nodes in a mesh are 5050 sessions" in str(advice(LARGEST_MESH + 1, mesh=True))
