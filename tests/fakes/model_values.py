"""Hypothesis strategies for what the datastore holds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from podwire.model.bgp import (
    BGPConfiguration,
    BGPPeer,
    BindMode,
    Community,
    LogSeverity,
    NamedCommunity,
    NextHopMode,
    PrefixAdvertisement,
    SecretKey,
)
from podwire.model.bgpfilter import (
    AddCommunity,
    BGPFilter,
    BGPPeerType,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
    PrependASPath,
    SetPriority,
)
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
    underlay_mtu=st.none() | st.integers(576, 65535),
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
    allowed_source_prefixes=st.lists(NETWORKS, max_size=2).map(tuple),
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
COMMUNITIES = st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=2).map(
    lambda numbers: Community(tuple(numbers))
) | st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3).map(
    lambda numbers: Community(tuple(numbers))
)
AS_NUMBERS = st.integers(1, 2**32 - 1)
SECRETS = st.builds(SecretKey, name=st.just("bgp"), key=st.sampled_from(["a", "b"]))
SECONDS = st.none() | st.integers(1, 3600)
CONFIGURATIONS = st.builds(
    BGPConfiguration,
    metadata=metadata(),
    log_severity=st.none() | st.sampled_from(LogSeverity),
    mesh=st.none() | st.booleans(),
    as_number=st.none() | AS_NUMBERS,
    listen_port=st.none() | st.integers(1, 65535),
    bind_mode=st.none() | st.sampled_from(BindMode),
    communities=st.lists(
        st.builds(NamedCommunity, name=st.sampled_from(["red", "blue"]), value=COMMUNITIES),
        max_size=2,
        unique_by=lambda each: each.name,
    ).map(tuple),
    prefix_advertisements=st.lists(
        st.builds(
            PrefixAdvertisement,
            cidr=NETWORKS,
            communities=st.lists(
                st.sampled_from(["red", "64512:7", "1:2:3"]), max_size=2, unique=True
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    mesh_password=st.none() | SECRETS,
    mesh_restart_s=SECONDS,
    ignored_interfaces=st.lists(st.sampled_from(["docker0", "br-*"]), max_size=2).map(tuple),
)
PEERS = st.builds(
    BGPPeer,
    metadata=metadata(),
    node=st.none() | st.just("node-1"),
    node_selector=st.none() | st.just("has(rack)"),
    address=ADDRESSES,
    port=st.none() | st.integers(1, 65535),
    as_number=st.none() | AS_NUMBERS,
    peer_selector=st.none() | st.just("has(reflector)"),
    local_workload_selector=st.none() | st.just("all()"),
    local_as_number=st.none() | AS_NUMBERS,
    next_hop_mode=st.sampled_from(NextHopMode),
    password=st.none() | SECRETS,
    uses_node_ip=st.booleans(),
    restart_s=SECONDS,
    keepalive_s=SECONDS,
    allowed_local_as=st.none() | st.integers(0, 10),
    ttl_security=st.none() | st.integers(1, 255),
    reachable_by=st.none() | ADDRESSES,
    filters=st.lists(st.sampled_from(["f", "g.h"]), max_size=2, unique=True).map(tuple),
    reverse=st.booleans(),
)


def _prefix_match(cidr: IPNetwork, operator: MatchOperator, lengths: list[int]) -> PrefixMatch:
    # Calico's lengths lie between the network's own and the family's.
    inside = sorted(max(length, cidr.prefixlen) for length in lengths)
    both = (*inside, None, None)[:2]
    return PrefixMatch(cidr=cidr, operator=operator, shortest=both[0], longest=both[1])


PREFIX_MATCHES = st.builds(
    _prefix_match,
    NETWORKS.filter(lambda cidr: cidr.version == 4),
    st.sampled_from(MatchOperator),
    st.lists(st.integers(0, 32), max_size=2),
)
OPERATIONS = (
    st.builds(AddCommunity, COMMUNITIES)
    | st.builds(PrependASPath, st.lists(AS_NUMBERS, min_size=1, max_size=3).map(tuple))
    | st.builds(SetPriority, st.integers(1, 2**31 - 2))
)
RULES = st.builds(
    FilterRule,
    action=st.just(FilterAction.ACCEPT),
    prefix=st.none() | PREFIX_MATCHES,
    from_peers=st.booleans(),
    interface=st.none() | st.sampled_from(["eth0", "cali*"]),
    peer_type=st.none() | st.sampled_from(BGPPeerType),
    community=st.none() | COMMUNITIES,
    as_path_prefix=st.lists(AS_NUMBERS, max_size=2).map(tuple),
    priority=st.none() | st.integers(1, 2**31 - 2),
    operations=st.lists(OPERATIONS, max_size=3).map(tuple),
) | st.builds(FilterRule, action=st.just(FilterAction.REJECT), prefix=st.none() | PREFIX_MATCHES)
FILTERS = st.builds(
    BGPFilter,
    metadata=metadata(),
    import4=st.lists(RULES, max_size=2).map(tuple),
    export4=st.lists(RULES, max_size=3).map(tuple),
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
    CONFIGURATIONS,
    PEERS,
    FILTERS,
    blocks(),
)
