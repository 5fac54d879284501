"""Snapshot in, BIRD's configuration out: sessions, reflectors, exports and their text."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from podwire.desired.bgp import BirdConfig, BirdPeer, PeerType
from podwire.desired.bgpcompute import compute_bird
from podwire.desired.bgptext import render
from podwire.errors import BadInput
from podwire.model.bgp import BGPConfiguration, BGPPeer, BindMode, NextHopMode, SecretKey
from podwire.model.bgpfilter import BGPFilter, FilterAction, FilterRule
from podwire.model.block import Affinity, AffinityState
from podwire.model.node import Node
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

PASSWORD = SecretKey(name="bgp", key="tor")


def node(name: str, address: str, labels: dict[str, str] | None = None, **fields: Any) -> Node:
    metadata = Metadata(name=name, labels=labels or {})
    return Node(metadata=metadata, address=ip_interface(address), **fields)


def peer(name: str, **fields: Any) -> BGPPeer:
    return BGPPeer(metadata=Metadata(name=name), **fields)


NODES = {
    each.name: each
    for each in (
        node("a", "10.0.0.1/24", {"role": "reflector"}),
        node("b", "10.0.0.2/24"),
        node("c", "10.0.1.3/24", {"rack": "far"}),
        Node(metadata=Metadata(name="without-address")),
    )
}
POOL = IPPool(
    metadata=Metadata(name="p"), cidr=ip_network("10.244.0.0/16"), ipip_mode=Mode.CROSS_SUBNET
)
CLUSTER = Snapshot(in_sync=True, nodes=NODES, pools={"p": POOL})


def with_peers(snapshot: Snapshot, *peers: BGPPeer) -> Snapshot:
    return replace(snapshot, bgp_peers={each.name: each for each in peers})


def with_node(snapshot: Snapshot, name: str, **fields: Any) -> Snapshot:
    changed = replace(snapshot.nodes[name], **fields)
    return replace(snapshot, nodes={**snapshot.nodes, name: changed})


def configured(snapshot: Snapshot, name: str = "default", **fields: Any) -> Snapshot:
    value = BGPConfiguration(metadata=Metadata(name=name), **fields)
    return replace(snapshot, bgp_configurations={**snapshot.bgp_configurations, name: value})


def compute(snapshot: Snapshot, name: str = "a") -> BirdConfig:
    config = compute_bird(snapshot, name)
    assert config is not None
    return config


def sessions(snapshot: Snapshot, name: str) -> dict[str, BirdPeer]:
    return {str(each.address): each for each in compute(snapshot, name).peers}


def test_a_node_without_an_address_speaks_with_nobody() -> None:
    assert compute_bird(CLUSTER, "without-address") is None
    assert compute_bird(CLUSTER, "unheard-of") is None


def test_in_the_mesh_everybody_speaks_with_everybody_and_one_of_two_dials() -> None:
    for one in "abc":
        for address, session in sessions(CLUSTER, one).items():
            assert session.type is PeerType.MESH
            assert session.node is not None
            there = sessions(CLUSTER, session.node)[str(session.source)]
            assert (there.node, there.passive) == (one, not session.passive)
            assert address == str(session.address)
    assert len(sessions(CLUSTER, "a")) == 2


def test_the_defaults_are_those_that_lose_a_silent_node_and_keep_a_killed_bird() -> None:
    session = sessions(CLUSTER, "a")["10.0.0.2"]
    assert (session.hold_s, session.keepalive_s, session.restart_s) == (9, 3, 120)
    slower = sessions(configured(CLUSTER, hold_s=90), "a")["10.0.0.2"]
    assert (slower.hold_s, slower.keepalive_s) == (90, 30)


def test_a_reflector_leaves_the_mesh_on_both_sides() -> None:
    cluster = with_node(CLUSTER, "a", route_reflector_cluster_id="10.0.0.1")
    assert sessions(cluster, "a") == {}
    assert set(sessions(cluster, "b")) == {"10.0.1.3"}


def test_reflectors_serve_clients_and_a_peering_goes_both_ways() -> None:
    cluster = with_peers(
        with_node(CLUSTER, "a", route_reflector_cluster_id="10.0.0.1"),
        peer("to-reflectors", peer_selector="role == 'reflector'"),
    )
    cluster = configured(cluster, mesh=False)
    assert set(sessions(cluster, "b")) == set(sessions(cluster, "c")) == {"10.0.0.1"}
    at_reflector = sessions(cluster, "a")
    assert set(at_reflector) == {"10.0.0.2", "10.0.1.3"}
    assert all(each.client for each in at_reflector.values())
    assert not sessions(cluster, "b")["10.0.0.1"].client
    one_way = with_peers(cluster, peer("p", peer_selector="role == 'reflector'", reverse=False))
    assert set(sessions(one_way, "b")) == {"10.0.0.1"}
    # The reflector is one of "all nodes", but is not its own peer.
    assert sessions(one_way, "a") == {}


def test_two_reflectors_of_one_cluster_are_no_clients_of_each_other() -> None:
    cluster = with_node(CLUSTER, "a", route_reflector_cluster_id="1.1.1.1")
    cluster = with_node(
        cluster, "b", route_reflector_cluster_id="1.1.1.1", metadata=NODES["a"].metadata
    )
    nodes = {**cluster.nodes, "b": replace(cluster.nodes["b"], metadata=Metadata(name="b"))}
    cluster = with_peers(replace(cluster, nodes=nodes), peer("all", peer_selector="all()"))
    assert not sessions(cluster, "a")["10.0.0.2"].client
    assert sessions(cluster, "a")["10.0.1.3"].client


def test_a_session_keeps_its_name_when_its_reason_changes() -> None:
    cluster = with_peers(CLUSTER, peer("to-reflectors", peer_selector="role == 'reflector'"))
    mesh, chosen = sessions(CLUSTER, "b")["10.0.0.1"], sessions(cluster, "b")["10.0.0.1"]
    assert (mesh.type, chosen.type) == (PeerType.MESH, PeerType.GLOBAL)
    assert mesh == replace(chosen, type=mesh.type, name=mesh.name)


def test_the_most_particular_peer_counts() -> None:
    address = ip_address("10.9.9.9")
    cluster = with_peers(
        CLUSTER,
        peer("z-global", address=address, as_number=1),
        peer("far", node_selector="rack == 'far'", address=address, as_number=2),
        peer("one", node="c", address=address, as_number=3, hold_s=30),
    )
    assert sessions(cluster, "b")["10.9.9.9"].as_number == 1
    assert sessions(cluster, "b")["10.9.9.9"].type is PeerType.GLOBAL
    found = sessions(cluster, "c")["10.9.9.9"]
    assert (found.as_number, found.type, found.hold_s, found.keepalive_s) == (
        *(3, PeerType.NODE),
        *(30, 10),
    )


def test_every_option_of_a_peer_reaches_the_text() -> None:
    options = peer(
        "tor",
        address=ip_address("10.0.0.254"),
        port=1790,
        as_number=65000,
        local_as_number=65001,
        next_hop_mode=NextHopMode.SELF,
        password=PASSWORD,
        uses_node_ip=False,
        restart_s=60,
        keepalive_s=5,
        allowed_local_as=2,
        ttl_security=1,
        reachable_by=ip_address("10.0.0.253"),
    )
    text = render(compute(with_peers(CLUSTER, options)), {PASSWORD: "geheim"})
    _, _, block = text.partition("protocol bgp peer_10_0_0_254_port_1790 from session {\n")
    for line in (
        'description "global: tor";',
        "local port 179 as 65001;",
        "neighbor 10.0.0.254 port 1790 as 65000;",
        "hold time 15; keepalive time 5;",
        "graceful restart time 60;",
        "ttl security on; multihop 1;",
        'password "geheim";',
        "allow local as 2;",
        "next hop self;",
    ):
        assert line in block.partition("\n}\n")[0]
    assert "route 10.0.0.254/32 via 10.0.0.253;" in text


def test_a_session_without_an_address_of_its_own_listens_on_all() -> None:
    bound = configured(CLUSTER, bind_mode=BindMode.NODE_IP)
    loose = peer("loose", address=ip_address("192.0.2.9"), as_number=65001, uses_node_ip=False)
    text = render(compute(with_peers(bound, loose)), {})
    assert "strict bind on;" in text
    assert text.count("strict bind off;") == 1  # BIRD refuses the whole configuration otherwise


def test_a_node_s_own_port_is_where_the_others_call() -> None:
    cluster = configured(CLUSTER, "node.b", listen_port=1790)
    assert sessions(cluster, "a")["10.0.0.2"].port == 1790
    assert compute(cluster, "b").listen_port == 1790
    assert sessions(cluster, "a")["10.0.1.3"].port == 179


def test_only_what_is_borrowed_is_listed_beside_the_pools() -> None:
    block = ip_network("10.244.5.0/26")
    tunnel = ip_address("10.244.5.1")
    cluster = with_node(CLUSTER, "a", ipip_tunnel=tunnel)
    cluster = replace(
        cluster,
        affinities={block: Affinity(node="a", block=block)},
        borrowed={ip_address("10.244.9.9"): "a", ip_address("10.244.9.8"): "b"},
    )
    assert compute(cluster).addresses == (ip_network("10.244.9.9/32"),)
    pending = replace(
        cluster, affinities={block: Affinity(node="a", block=block, state=AffinityState.PENDING)}
    )
    assert compute(pending).addresses == (ip_network("10.244.5.1/32"), ip_network("10.244.9.9/32"))


def test_a_new_block_changes_nothing_in_the_text() -> None:
    block = ip_network("10.244.5.0/26")
    cluster = replace(CLUSTER, affinities={block: Affinity(node="a", block=block)})
    assert compute(cluster) == compute(CLUSTER)


@pytest.mark.parametrize(
    ("fields", "has_ipip", "lines"),
    [
        (
            {"ipip_mode": Mode.ALWAYS},
            True,
            [
                "  if net ~ [10.244.0.0/16+] then {",
                '    ifname = "tunl0"; onlink = true; gw = bgp_next_hop; accept;',
            ],
        ),
        (
            {"ipip_mode": Mode.CROSS_SUBNET},
            True,
            ["  if net ~ [10.244.0.0/16+] && !(bgp_next_hop ~ 10.0.0.0/24) then {"],
        ),
        (
            {"ipip_mode": Mode.ALWAYS},
            False,
            ["  if net ~ [10.244.0.0/16+] then reject; # until the tunnel is there"],
        ),
        (
            {"ipip_mode": Mode.NEVER, "vxlan_mode": Mode.ALWAYS},
            True,
            ["  if net ~ [10.244.0.0/16+] then reject; # the agent writes these"],
        ),
    ],
)
def test_each_encapsulation_has_its_way_into_the_kernel(
    fields: dict[str, Any], has_ipip: bool, lines: list[str]
) -> None:
    cluster = replace(CLUSTER, pools={"p": replace(POOL, **fields)})
    config = compute_bird(cluster, "a", has_ipip=has_ipip)
    assert config is not None
    text = render(config, {}).splitlines()
    assert [line for line in lines if line not in text] == []


def test_without_encapsulation_the_next_hop_is_the_underlay_s() -> None:
    cluster = replace(CLUSTER, pools={"p": replace(POOL, ipip_mode=Mode.NEVER)})
    assert "ifname =" not in render(compute(cluster), {})


def test_a_pool_may_be_kept_from_peers() -> None:
    closed = replace(CLUSTER, pools={"p": replace(POOL, disable_bgp_export=True)})
    announced = "dest = RTD_BLACKHOLE then"
    assert announced in render(compute(CLUSTER), {})
    assert announced not in render(compute(closed), {})


def test_a_filter_that_does_not_exist_lets_nothing_pass_and_is_told() -> None:
    cluster = with_peers(
        CLUSTER, peer("tor", address=ip_address("10.9.9.9"), as_number=1, filters=("f",))
    )
    config = compute(cluster)
    assert config.unserved == ("BGPFilter f does not exist: sessions that name it pass no routes",)
    assert "function 'export_f'(bool outside)\n{\n  reject;\n}" in render(config, {})
    rules = (FilterRule(action=FilterAction.ACCEPT),)
    there = BGPFilter(metadata=Metadata(name="f"), export4=rules)
    assert compute(replace(cluster, bgp_filters={"f": there})).unserved == ()


def test_what_cannot_be_served_is_told_and_harms_nobody_else() -> None:
    cluster = with_peers(
        CLUSTER,
        peer("six", address=ip_address("fd00::1"), as_number=1),
        peer("pods", local_workload_selector="all()", as_number=1),
    )
    config = compute(cluster)
    assert len(config.unserved) == 2
    assert config.peers == compute(CLUSTER).peers


@pytest.mark.parametrize("password", ["", 'a"b', "a\nb", "x" * 81])
def test_a_password_bird_cannot_take_is_refused(password: str) -> None:
    tor = peer("tor", address=ip_address("10.9.9.9"), as_number=1, password=PASSWORD)
    with pytest.raises(BadInput, match="bgp/tor"):
        render(compute(with_peers(CLUSTER, tor)), {PASSWORD: password})


def test_a_narrower_node_is_known_to_routes_without_a_tunnel() -> None:
    snapshot = with_node(with_node(CLUSTER, "a", underlay_mtu=1500), "b", underlay_mtu=1400)
    wide = with_node(snapshot, "c", underlay_mtu=9000)
    text = render(compute(wide), {})
    assert "  if bgp_next_hop = 10.0.0.2 then krt_mtu = 1400;\n  accept;" in text
    assert text.count("krt_mtu") == 1
    assert "krt_mtu" not in render(compute(wide, "b"), {})
