"""Calico's etcd keys, built and read; the only place that knows their shape.

A network in a key has a dash for its slash (`10.244.0.0-26`), an IPv6 one keeps its colons. A name
in a key is escaped: `%` as `%25`, `/` as `%2f`.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPNetwork

RESOURCES = "/calico/resources/v3/projectcalico.org/"
POOLS = f"{RESOURCES}ippools/"
NODES = f"{RESOURCES}nodes/"
ENDPOINTS = f"{RESOURCES}workloadendpoints/"
RESERVATIONS = f"{RESOURCES}ipreservations/"
CLUSTER = f"{RESOURCES}clusterinformations/"
BGP_CONFIGURATIONS = f"{RESOURCES}bgpconfigurations/"
BGP_PEERS = f"{RESOURCES}bgppeers/"
BGP_FILTERS = f"{RESOURCES}bgpfilters/"
FELIX_CONFIGURATIONS = f"{RESOURCES}felixconfigurations/"

IPAM = "/calico/ipam/v2/"
BLOCKS = f"{IPAM}assignment/"
BLOCKS4 = f"{BLOCKS}ipv4/block/"
BLOCKS6 = f"{BLOCKS}ipv6/block/"
AFFINITIES = f"{IPAM}host/"
HANDLES = f"{IPAM}handle/"
IPAM_CONFIG_KEY = f"{IPAM}config"

PROBE = "/podwire/v1/probe"
"""Ours: what `Store.check_writable` tries to write; it never stays."""

FELIX = "/calico/felix/v2/"
"""What each node's agent says of itself, Calico's and ours."""
NODE_STATUS = f"{FELIX}no-region/host/"
"""Reports of the nodes' agents, with a lease."""

APPLIED = "/podwire/v1/applied/"
"""Ours, not Calico's: what each node's agent says it has applied."""
OBJECTIONS = "/podwire/v1/objections/"
"""Ours: the running agent of a deleted node still has pods."""
GUARDS = "/podwire/v1/guards/"
"""Ours: written with what was checked against all others of its kind."""


def pool_key(name: str) -> str:
    """Key of an IPPool."""
    return POOLS + _escape(name)


def node_key(name: str) -> str:
    """Key of a Node."""
    return NODES + _escape(name)


def endpoint_prefix(namespace: str) -> str:
    """Prefix of all WorkloadEndpoints of a namespace."""
    return f"{ENDPOINTS}{_escape(namespace)}/"


def endpoint_key(namespace: str, name: str) -> str:
    """Key of a WorkloadEndpoint."""
    return endpoint_prefix(namespace) + _escape(name)


def node_endpoint_prefix(namespace: str, node: str) -> str:
    """Prefix of a node's WorkloadEndpoints in a namespace, among them those of few other nodes.

    A name begins with its node's, every dash doubled (model/endpoint.py).
    """
    return endpoint_prefix(namespace) + _escape(f"{node.replace('-', '--')}-")


def reservation_key(name: str) -> str:
    """Key of an IPReservation."""
    return RESERVATIONS + _escape(name)


def cluster_key(name: str = "default") -> str:
    """Key of the ClusterInformation."""
    return CLUSTER + _escape(name)


def bgp_configuration_key(name: str) -> str:
    """Key of a BGPConfiguration: `default`, or `node.<name>` for one node."""
    return BGP_CONFIGURATIONS + _escape(name)


def bgp_peer_key(name: str) -> str:
    """Key of a BGPPeer."""
    return BGP_PEERS + _escape(name)


def bgp_filter_key(name: str) -> str:
    """Key of a BGPFilter."""
    return BGP_FILTERS + _escape(name)


def block_key(cidr: IPNetwork) -> str:
    """Key of a block."""
    return (BLOCKS4 if cidr.version == 4 else BLOCKS6) + _dashed(cidr)


def affinity_prefix(node: str) -> str:
    """Prefix of all affinities of a node, both families."""
    return f"{AFFINITIES}{_escape(node)}/"


def affinity_key(node: str, block: IPNetwork) -> str:
    """Key of a node's claim on a block."""
    return f"{affinity_prefix(node)}ipv{block.version}/block/{_dashed(block)}"


def handle_key(handle: str) -> str:
    """Key of a handle; whatever follows a carriage return is cut off, as Calico does."""
    return HANDLES + _escape(handle.split("\r", 1)[0])


def applied_key(node: str) -> str:
    """Key of a node agent's publication."""
    return APPLIED + _escape(node)


def objection_key(node: str) -> str:
    """Key of a node agent's objection."""
    return OBJECTIONS + _escape(node)


def guard_key(plural: str) -> str:
    """Key of the guard of a kind."""
    return GUARDS + plural


def resource_key(plural: str, name: str, namespace: str | None = None) -> str:
    """Key of a v3 resource of any kind."""
    place = f"{RESOURCES}{plural}/"
    if namespace is not None:
        place += f"{_escape(namespace)}/"
    return place + _escape(name)


def parse_resource_key(key: str) -> tuple[str, str | None, str] | None:
    """Plural, namespace and name of a v3 resource of any kind, or None."""
    match key.removeprefix(RESOURCES).split("/") if key.startswith(RESOURCES) else ():
        case [plural, name] if plural and name:
            return plural, None, _unescape(name)
        case [plural, namespace, name] if plural and namespace and name:
            return plural, _unescape(namespace), _unescape(name)
        case _:
            return None


def node_status_key(node: str) -> str:
    """Key of what a node's agent says of itself, where Felix writes it."""
    return f"{NODE_STATUS}{_escape(node)}/status"


def last_status_key(node: str) -> str:
    """Key of the same, which stays when the node's agent has ended."""
    return f"{NODE_STATUS}{_escape(node)}/last_reported_status"


def parse_node_status_key(key: str) -> str | None:
    """Node of the report, or None (Felix writes more beside it)."""
    return _node_of_report(key, "status")


def parse_last_status_key(key: str) -> str | None:
    """Node of the report that stays, or None."""
    return _node_of_report(key, "last_reported_status")


def parse_pool_key(key: str) -> str | None:
    """Name of the IPPool, or None when the key is no pool's."""
    return _only_name(key, POOLS)


def parse_node_key(key: str) -> str | None:
    """Name of the Node, or None."""
    return _only_name(key, NODES)


def parse_endpoint_key(key: str) -> tuple[str, str] | None:
    """Namespace and name of the WorkloadEndpoint, or None."""
    match key.removeprefix(ENDPOINTS).split("/") if key.startswith(ENDPOINTS) else ():
        case [namespace, name] if namespace and name:
            return _unescape(namespace), _unescape(name)
        case _:
            return None


def parse_reservation_key(key: str) -> str | None:
    """Name of the IPReservation, or None."""
    return _only_name(key, RESERVATIONS)


def parse_cluster_key(key: str) -> str | None:
    """Name of the ClusterInformation, or None."""
    return _only_name(key, CLUSTER)


def parse_bgp_configuration_key(key: str) -> str | None:
    """Name of the BGPConfiguration, or None."""
    return _only_name(key, BGP_CONFIGURATIONS)


def parse_bgp_peer_key(key: str) -> str | None:
    """Name of the BGPPeer, or None."""
    return _only_name(key, BGP_PEERS)


def parse_bgp_filter_key(key: str) -> str | None:
    """Name of the BGPFilter, or None."""
    return _only_name(key, BGP_FILTERS)


def parse_felix_key(key: str) -> str | None:
    """Name of the FelixConfiguration, or None: `default`, or `node.<name>` for one node."""
    return _only_name(key, FELIX_CONFIGURATIONS)


def parse_block_key(key: str) -> IPNetwork | None:
    """CIDR of the block, or None when the key is no block's."""
    for prefix, version in ((BLOCKS4, 4), (BLOCKS6, 6)):
        if key.startswith(prefix):
            return _network(key.removeprefix(prefix), version)
    return None


def parse_affinity_key(key: str) -> tuple[str, IPNetwork] | None:
    """Node and block of the affinity, or None (the bare host marker is none)."""
    match key.removeprefix(AFFINITIES).split("/") if key.startswith(AFFINITIES) else ():
        case [node, ("ipv4" | "ipv6") as family, "block", text] if node:
            block = _network(text, int(family[-1]))
            return None if block is None else (_unescape(node), block)
        case _:
            return None


def parse_handle_key(key: str) -> str | None:
    """ID of the handle, or None."""
    return _only_name(key, HANDLES)


def parse_applied_key(key: str) -> str | None:
    """Node of the publication, or None."""
    return _only_name(key, APPLIED)


def parse_objection_key(key: str) -> str | None:
    """Node of the objection, or None."""
    return _only_name(key, OBJECTIONS)


def _node_of_report(key: str, kind: str) -> str | None:
    match key.removeprefix(NODE_STATUS).split("/") if key.startswith(NODE_STATUS) else ():
        case [node, last] if node and last == kind:
            return _unescape(node)
        case _:
            return None


def _escape(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2f")


def _unescape(text: str) -> str:
    return text.replace("%2f", "/").replace("%2F", "/").replace("%25", "%")


def _only_name(key: str, prefix: str) -> str | None:
    rest = key.removeprefix(prefix) if key.startswith(prefix) else ""
    return _unescape(rest) if rest and "/" not in rest else None


def _dashed(cidr: IPNetwork) -> str:
    return f"{cidr.network_address}-{cidr.prefixlen}"


@lru_cache(maxsize=1024)
def _network(text: str, version: int) -> IPNetwork | None:
    # Kept: a listing asks for each key's network more than once, and equal networks that are one
    # object are found in tables without being compared.
    try:
        network = ip_network(text.replace("-", "/"))
    except ValueError:
        return None
    return network if network.version == version else None
