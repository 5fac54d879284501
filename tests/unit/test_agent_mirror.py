"""The agent's copy of the datastore: listings and changes in, a snapshot and what moved out."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from podwire.agent.mirror import FOR_BIRD, NEEDED, WHILE_BORROWING, Mirror
from podwire.boundary import Change, Entry
from podwire.model import keys
from podwire.model.block import Affinity, AffinityState, Allocation, Block, IPAMConfig
from podwire.model.blockcodec import encode_block
from podwire.model.codec import encode
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from podwire.model.resource import Wire

BLOCK = ip_network("10.244.1.0/26")


def entry(key: str, value: Wire, revision: str = "1") -> Entry:
    return Entry(key=key, value=value, revision=revision)


def claim(node: str, state: AffinityState = AffinityState.CONFIRMED, revision: str = "1") -> Entry:
    affinity = Affinity(node=node, block=BLOCK, state=state)
    return entry(keys.affinity_key(node, BLOCK), encode(affinity), revision)


def node_entry(name: str, revision: str = "1") -> Entry:
    return entry(keys.node_key(name), encode(Node(metadata=Metadata(name=name))), revision)


def synced(strict: bool = True) -> Mirror:
    mirror = Mirror()
    for prefix in NEEDED:
        mirror.on_listing(prefix, ())
    config = entry(keys.IPAM_CONFIG_KEY, encode(IPAMConfig(strict_affinity=strict)))
    mirror.on_listing(keys.IPAM_CONFIG_KEY, [config])
    return mirror


def test_it_is_in_sync_after_the_last_needed_listing() -> None:
    mirror = Mirror()
    mirror.on_listing(keys.IPAM_CONFIG_KEY, [entry(keys.IPAM_CONFIG_KEY, encode(IPAMConfig()))])
    states = []
    for prefix in NEEDED[:-1]:
        states.append(mirror.in_sync)
        mirror.on_listing(prefix, ())
    assert [*states, mirror.in_sync] == [False] * len(states) + [True]


def test_foreign_blocks_are_needed_only_while_borrowing() -> None:
    mirror = synced(strict=False)
    before = mirror.in_sync
    mirror.on_listing(WHILE_BORROWING, ())
    assert (before, mirror.in_sync) == (False, True)
    assert list(mirror.needed_besides()) == [WHILE_BORROWING]
    assert list(synced().needed_besides()) == []


def test_bgp_resources_are_needed_only_where_bird_writes_routes_or_soon_will() -> None:
    for routing, following in ((Routing.BIRD, None), (Routing.AGENT, Routing.BIRD)):
        mirror = synced()
        assert mirror.in_sync
        cluster = ClusterInformation(
            metadata=Metadata(name="default"), guid="1", routing=routing, next_routing=following
        )
        mirror.on_listing(keys.CLUSTER, [entry(keys.cluster_key(), encode(cluster))])
        assert (mirror.in_sync, tuple(mirror.needed_besides())) == (False, FOR_BIRD)
        for prefix in FOR_BIRD:
            mirror.on_listing(prefix, ())
        assert mirror.in_sync


def test_a_listing_removes_what_is_not_in_it() -> None:
    mirror = synced()
    mirror.on_listing(keys.NODES, [node_entry("a"), node_entry("b")])
    mirror.take_moved()
    mirror.on_listing(keys.NODES, [node_entry("b")])
    assert set(mirror.snapshot().nodes) == {"b"}
    assert mirror.take_moved().nodes == {"a"}


def test_of_two_claims_on_one_block_the_confirmed_one_counts() -> None:
    mirror = synced()
    mirror.on_listing(keys.AFFINITIES, [claim("a", AffinityState.PENDING), claim("b")])
    assert mirror.affinities[BLOCK].node == "b"
    gone = Change(key=keys.affinity_key("b", BLOCK), entry=None, revision="2")
    mirror.on_changes(keys.AFFINITIES, [gone])
    assert mirror.affinities[BLOCK].node == "a"
    mirror.on_listing(keys.AFFINITIES, ())
    assert BLOCK not in mirror.affinities


def test_an_unreadable_object_harms_only_itself() -> None:
    mirror = synced()
    mirror.on_listing(keys.NODES, [node_entry("a"), node_entry("b")])
    broken = entry(keys.node_key("a"), {"spec": {"bgp": {"ipv4Address": "nonsense"}}}, "2")
    mirror.on_changes(keys.NODES, [Change(key=broken.key, entry=broken, revision="2")])
    assert set(mirror.nodes) == {"a", "b"}
    assert keys.node_key("a") in mirror.unreadable
    mirror.on_listing(keys.NODES, [node_entry("a", "3"), node_entry("b")])
    assert not mirror.unreadable


def test_addresses_used_outside_their_block_are_borrowed() -> None:
    mirror = synced(strict=False)
    block = Block(
        cidr=BLOCK,
        node="a",
        allocations={
            3: Allocation(handle="h", attributes={"node": "b"}),
            4: Allocation(handle="h", attributes={"node": "a"}),
            5: Allocation(handle="h", attributes={"node": "c", "type": "vxlanTunnelAddress"}),
        },
    )
    listed = entry(keys.block_key(BLOCK), encode_block(block))
    mirror.on_listing(WHILE_BORROWING, [listed])
    assert dict(mirror.borrowed) == {ip_address("10.244.1.3"): "b"}
    mirror.on_listing(WHILE_BORROWING, ())
    assert not mirror.borrowed


def test_what_is_known_stays_while_the_datastore_is_away() -> None:
    mirror = synced()
    mirror.on_listing(keys.NODES, [node_entry("a")])
    mirror.on_away(keys.NODES, "no route to it")
    assert mirror.in_sync
    assert set(mirror.nodes) == {"a"}
    mirror.on_changes(keys.NODES, ())
    assert not mirror.away


def test_of_a_restored_datastore_even_an_equal_revision_is_read_anew() -> None:
    mirror = synced()
    mirror.on_listing(keys.AFFINITIES, [claim("a", revision="7")])
    old = claim("a", AffinityState.PENDING, revision="7")
    mirror.on_listing(keys.AFFINITIES, [old])
    assert mirror.affinities[BLOCK].state is AffinityState.CONFIRMED
    mirror.on_listing(keys.AFFINITIES, [old], is_restored=True)
    assert mirror.affinities[BLOCK].state is AffinityState.PENDING
