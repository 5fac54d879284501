"""Hypothesis strategies for what the datastore holds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from podwire.model.block import Affinity, AffinityState, Allocation, Block, Handle, IPAMConfig
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.pool import IPPool, IPReservation, Mode, Use
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPNetwork

NAMES = st.text(alphabet="abcz019-./%", min_size=1, max_size=12)
TEXTS = st.text(max_size=8)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3)
STAMPS = st.none() | st.just("2026-08-22T13:00:00Z")
COUNTS = st.integers(min_value=0, max_value=2**63 - 1)


def _network(number: int, length: int, bits: int) -> IPNetwork:
    base = number >> (bits - length) << (bits - length)
    return IPv4Network((base, length)) if bits == 32 else IPv6Network((base, length))


NETWORKS: st.SearchStrategy[IPNetwork] = st.one_of(
    st.builds(_network, st.integers(0, 2**32 - 1), st.integers(20, 32), st.just(32)),
    st.builds(_network, st.integers(0, 2**128 - 1), st.integers(116, 128), st.just(128)),
)
BLOCKS: st.SearchStrategy[IPNetwork] = st.one_of(
    st.builds(_network, st.integers(0, 2**32 - 1), st.integers(27, 32), st.just(32)),
    st.builds(_network, st.integers(0, 2**128 - 1), st.integers(123, 128), st.just(128)),
)
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(0, 2**128 - 1)
)
INTERFACES = st.builds(
    lambda address, length: ip_interface(f"{address}/{length}"), ADDRESSES, st.integers(0, 32)
)


def metadata(*, namespaced: bool = False) -> st.SearchStrategy[Metadata]:
    return st.builds(
        Metadata,
        name=NAMES,
        namespace=NAMES if namespaced else st.none(),
        labels=MAPS,
        annotations=MAPS,
        uid=st.none() | st.uuids().map(str),
        created=STAMPS,
    )


POOLS = st.builds(
    IPPool,
    metadata=metadata(),
    cidr=NETWORKS,
    block_size=st.integers(20, 128),
    ipip_mode=st.sampled_from(Mode),
    vxlan_mode=st.sampled_from(Mode),
    nat_outgoing=st.booleans(),
    disabled=st.booleans(),
    disable_bgp_export=st.booleans(),
    node_selector=st.sampled_from(["all()", "has(gpu)"]),
    namespace_selector=st.none() | st.just("all()"),
    allowed_uses=st.lists(st.sampled_from(Use), min_size=1, unique=True).map(tuple),
    automatic=st.booleans(),
)
RESERVATIONS = st.builds(
    IPReservation, metadata=metadata(), reserved=st.lists(NETWORKS, max_size=3).map(tuple)
)
NODES = st.builds(
    Node,
    metadata=metadata(),
    address=st.none() | INTERFACES,
    address6=st.none() | INTERFACES,
    ipip_tunnel=st.none() | ADDRESSES,
    vxlan_tunnel=st.none() | ADDRESSES,
    vxlan_mac=st.none() | st.just("66:b3:68:28:39:8e"),
    as_number=st.none() | st.integers(1, 2**32 - 1),
    route_reflector_cluster_id=st.none() | st.just("1.0.0.1"),
)
ENDPOINTS = st.builds(
    WorkloadEndpoint,
    metadata=metadata(namespaced=True),
    orchestrator=TEXTS,
    node=TEXTS,
    container_id=TEXTS,
    pod=TEXTS,
    endpoint=TEXTS,
    interface=TEXTS,
    mac=TEXTS,
    addresses=st.lists(INTERFACES, max_size=2).map(tuple),
    profiles=st.lists(TEXTS, max_size=2).map(tuple),
)
CLUSTERS = st.builds(
    ClusterInformation,
    metadata=metadata(),
    guid=TEXTS,
    ready=st.booleans(),
    cluster_type=TEXTS,
    version=st.none() | st.just("v3.33.0"),
    routing=st.sampled_from(Routing),
)
AFFINITIES = st.builds(
    Affinity,
    node=NAMES,
    block=BLOCKS,
    state=st.sampled_from(AffinityState),
    deleted=st.booleans(),
)
HANDLES = st.builds(
    Handle,
    id=NAMES,
    blocks=st.dictionaries(BLOCKS, st.integers(1, 64), max_size=3),
    deleted=st.booleans(),
)
CONFIGS = st.builds(
    IPAMConfig,
    strict_affinity=st.booleans(),
    auto_allocate_blocks=st.booleans(),
    max_blocks_per_host=st.integers(0, 1000),
    cooldown_s=st.integers(0, 1200),
)
ALLOCATIONS = st.builds(
    Allocation,
    handle=st.none() | st.sampled_from(["net.a", "net.b", "ipip-tunnel-addr-n"]),
    attributes=st.dictionaries(st.sampled_from(["node", "pod"]), TEXTS, max_size=2),
    sequence=COUNTS,
    released_at=STAMPS,
    alternate=st.none() | st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=2),
)


@st.composite
def blocks(draw: Callable[[st.SearchStrategy[object]], object]) -> Block:
    cidr = draw(BLOCKS)
    assert isinstance(cidr, IPv4Network | IPv6Network)
    ordinals = draw(st.permutations(range(cidr.num_addresses)))
    assert isinstance(ordinals, list)
    used = draw(st.integers(0, len(ordinals)))
    assert isinstance(used, int)
    node = draw(st.none() | st.sampled_from(["node-1", "n.2"]))
    assert node is None or isinstance(node, str)
    foreign = None if node else draw(st.none() | st.just("virtual:load-balancer"))
    assert foreign is None or isinstance(foreign, str)
    allocations: dict[int, Allocation] = {}
    for ordinal in ordinals[:used]:
        allocation = draw(ALLOCATIONS)
        assert isinstance(allocation, Allocation)
        allocations[ordinal] = allocation
    sequence = draw(COUNTS)
    assert isinstance(sequence, int)
    claimed = draw(STAMPS)
    assert claimed is None or isinstance(claimed, str)
    return Block(
        cidr=cidr,
        node=node,
        foreign_affinity=foreign,
        allocations=allocations,
        unallocated=tuple(ordinals[used:]),
        sequence=sequence,
        claimed=claimed,
        deleted=bool(draw(st.booleans())),
    )


STORED = st.one_of(
    POOLS,
    RESERVATIONS,
    NODES,
    ENDPOINTS,
    CLUSTERS,
    AFFINITIES,
    HANDLES,
    CONFIGS,
    blocks(),
)
