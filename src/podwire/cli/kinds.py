"""The kinds of resources the command line knows: their names, keys and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.cli.kept_kinds import KEPT_KINDS
from podwire.cli.kind import Cells, Kind, joined
from podwire.errors import BadInput
from podwire.model import codec, keys
from podwire.model.bgp import DEFAULT_AS_NUMBER
from podwire.model.codec import API_VERSION
from podwire.model.ipamconfig import ipam_config_resource
from podwire.model.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.bgp import BGPConfiguration, BGPPeer
    from podwire.model.bgpfilter import BGPFilter
    from podwire.model.block import Affinity, IPAMConfig
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.node import ClusterInformation, Node
    from podwire.model.pool import IPPool, IPReservation
    from podwire.model.resource import JSON, Wire

__all__ = ["KINDS", "Kind", "find_kind", "kind_words", "node_cells"]


SHORTEST = 4
"""Letters of a word that may be misspelt."""
ALIKE = 0.75
"""How near another kind's name must be to be proposed."""


def find_kind(word: str) -> Kind:
    """The kind of a name, plural or alias, in any case.

    Raises:
        BadInput: there is none.
    """
    known = kind_words()
    kind = known.get(word.lower())
    if kind is None:
        near = _meant(word.lower(), known)
        names = ", ".join(kind.name for kind in KINDS)
        fix = f"did you mean {near}?" if near else f"write one of: {names}"
        raise BadInput(f"there is no kind {word!r}", fix=fix)
    return kind


def _meant(word: str, known: Mapping[str, Kind]) -> str | None:
    """The kind that somebody may have meant, by its name; None where none is near."""
    if word in {"po", "pod", "pods"}:
        return "WorkloadEndpoint"
    # Short aliases look like anything.
    long = [each for each in known if len(each) >= SHORTEST]
    begun = {known[each].name for each in long if len(word) >= SHORTEST and each.startswith(word)}
    near = nearest(word, long, ALIKE)
    return begun.pop() if len(begun) == 1 else None if near is None else known[near].name


def kind_words() -> dict[str, Kind]:
    """Every word that names a kind, in lower case."""
    return {name: kind for kind in KINDS for name in (kind.name.lower(), *kind.aliases)}


def _lower(value: bool) -> str:
    return "true" if value else "false"


def _pool_cells() -> Cells:
    cells: dict[str, Callable[[IPPool], object]] = {
        "NAME": lambda pool: pool.name,
        "CIDR": lambda pool: pool.cidr,
        "NAT": lambda pool: _lower(pool.nat_outgoing),
        "IPIPMODE": lambda pool: pool.ipip_mode,
        "VXLANMODE": lambda pool: pool.vxlan_mode,
        "DISABLED": lambda pool: _lower(pool.disabled),
        "DISABLEBGPEXPORT": lambda pool: _lower(pool.disable_bgp_export),
        "SELECTOR": lambda pool: pool.node_selector,
        "ASSIGNMENTMODE": lambda pool: "Automatic" if pool.automatic else "Manual",
    }
    return cells


def node_cells(default_as: int = DEFAULT_AS_NUMBER) -> Cells:
    """The columns of a Node; an AS number that is the cluster's stands in parentheses."""
    cells: dict[str, Callable[[Node], object]] = {
        "NAME": lambda node: node.name,
        "ASN": lambda node: f"({default_as})" if node.as_number is None else node.as_number,
        "IPV4": lambda node: node.address,
        "IPV6": lambda node: node.address6,
    }
    return cells


def _endpoint_cells() -> Cells:
    cells: dict[str, Callable[[WorkloadEndpoint], object]] = {
        "NAMESPACE": lambda endpoint: endpoint.metadata.namespace,
        "NAME": lambda endpoint: endpoint.metadata.name,
        "WORKLOAD": lambda endpoint: endpoint.pod or endpoint.container_id,
        "NODE": lambda endpoint: endpoint.node,
        "NETWORKS": lambda endpoint: joined(endpoint.addresses),
        "INTERFACE": lambda endpoint: endpoint.interface,
        "PROFILES": lambda endpoint: joined(endpoint.profiles),
        "NATS": lambda endpoint: ",".join(
            str(nat.get("externalIP"))
            for nat in (endpoint.wire.get("spec") or {}).get("ipNATs") or ()
        ),
    }
    return cells


def _reservation_cells() -> Cells:
    cells: dict[str, Callable[[IPReservation], object]] = {
        "NAME": lambda reservation: reservation.metadata.name,
        # As they are written, like calicoctl's.
        "CIDRS": lambda reservation: joined(codec.encode(reservation)["spec"].get("reservedCIDRs")),
    }
    return cells


def _cluster_cells() -> Cells:
    cells: dict[str, Callable[[ClusterInformation], object]] = {
        "NAME": lambda cluster: cluster.metadata.name,
        "CLUSTERGUID": lambda cluster: cluster.guid,
        "CLUSTERTYPE": lambda cluster: cluster.cluster_type,
        "CALICOVERSION": lambda cluster: cluster.version,
        "DATASTOREREADY": lambda cluster: _lower(cluster.ready),
    }
    return cells


def _bgp_configuration_cells() -> Cells:
    cells: dict[str, Callable[[BGPConfiguration], object]] = {
        "NAME": lambda value: value.name,
        "LOGSEVERITY": lambda value: value.log_severity,
        "MESHENABLED": lambda value: None if value.mesh is None else _lower(value.mesh),
        "ASNUMBER": lambda value: value.as_number,
    }
    return cells


def _bgp_peer_cells() -> Cells:
    cells: dict[str, Callable[[BGPPeer], object]] = {
        "NAME": lambda peer: peer.name,
        "PEERIP": lambda peer: peer.peer_ip or peer.peer_selector,
        "NODE": lambda peer: peer.node or peer.node_selector or "(global)",
        "ASN": lambda peer: peer.as_number,
        "NODESELECTOR": lambda peer: peer.node_selector,
        "PEERSELECTOR": lambda peer: peer.peer_selector,
        "FILTERS": lambda peer: joined(peer.filters),
    }
    return cells


def _bgp_filter_cells() -> Cells:
    cells: dict[str, Callable[[BGPFilter], object]] = {
        "NAME": lambda value: value.name,
        "NUMEXPORTV4": lambda value: len(value.export4),
        "NUMIMPORTV4": lambda value: len(value.import4),
        "NUMEXPORTV6": lambda value: len(value.export6),
        "NUMIMPORTV6": lambda value: len(value.import6),
    }
    return cells


def _ipam_config_cells() -> Cells:
    cells: dict[str, Callable[[IPAMConfig], object]] = {
        "NAME": lambda _: "default",
        "STRICTAFFINITY": lambda config: _lower(config.strict_affinity),
        "AUTOALLOCATEBLOCKS": lambda config: _lower(config.auto_allocate_blocks),
        "MAXBLOCKSPERHOST": lambda config: config.max_blocks_per_host,
    }
    return cells


def _ipam_config_key(_: str, name: str) -> str:
    """The one there is; under another name nothing is stored."""
    return keys.IPAM_CONFIG_KEY if name == "default" else keys.resource_key("ipamconfigs", name)


def _affinity_cells() -> Cells:
    cells: dict[str, Callable[[Affinity], object]] = {
        "NAME": _affinity_name,
        "NODE": lambda affinity: affinity.node,
        "CIDR": lambda affinity: affinity.block,
        "STATE": lambda affinity: affinity.state,
    }
    return cells


def _affinity_name(affinity: Affinity) -> str:
    dashed = str(affinity.block).replace(".", "-").replace(":", "-").replace("/", "-")
    return f"{affinity.node}-{dashed}"


def _affinity_resource(key: str, wire: Wire) -> dict[str, JSON]:
    affinity = codec.decode_affinity(key, wire)
    return {
        "kind": "BlockAffinity",
        "apiVersion": API_VERSION,
        "metadata": {"name": _affinity_name(affinity)},
        "spec": {
            "state": affinity.state.value,
            "node": affinity.node,
            "type": "host",
            "cidr": str(affinity.block),
            "deleted": affinity.deleted,
        },
    }


KINDS = (
    Kind(
        name="IPPool",
        aliases=("ippools", "ipp", "ipps", "pool", "pools"),
        prefix=keys.POOLS,
        key=lambda _, name: keys.pool_key(name),
        cells=_pool_cells(),
        columns=("NAME", "CIDR", "SELECTOR"),
        wide=(
            *("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT"),
            *("SELECTOR", "ASSIGNMENTMODE"),
        ),
    ),
    Kind(
        name="Node",
        aliases=("nodes", "no", "nos"),
        prefix=keys.NODES,
        key=lambda _, name: keys.node_key(name),
        cells=node_cells(),
        columns=("NAME",),
        wide=("NAME", "ASN", "IPV4", "IPV6"),
    ),
    Kind(
        name="WorkloadEndpoint",
        aliases=("workloadendpoints", "wep", "weps"),
        prefix=keys.ENDPOINTS,
        key=keys.endpoint_key,
        cells=_endpoint_cells(),
        columns=("WORKLOAD", "NODE", "NETWORKS", "INTERFACE"),
        wide=("NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"),
        namespaced=True,
    ),
    Kind(
        name="IPReservation",
        aliases=("ipreservations", "ipres", "reservation", "reservations"),
        prefix=keys.RESERVATIONS,
        key=lambda _, name: keys.reservation_key(name),
        cells=_reservation_cells(),
        columns=("NAME",),
        wide=("NAME", "CIDRS"),
    ),
    Kind(
        name="ClusterInformation",
        aliases=("clusterinformations", "clusterinfo", "clusterinfos", "ci", "cis"),
        prefix=keys.CLUSTER,
        key=lambda _, name: keys.cluster_key(name),
        cells=_cluster_cells(),
        columns=tuple(_cluster_cells()),
        wide=tuple(_cluster_cells()),
    ),
    Kind(
        name="BGPConfiguration",
        aliases=("bgpconfigurations", "bgpconfig", "bgpconfigs", "bgpc", "bgpcs"),
        prefix=keys.BGP_CONFIGURATIONS,
        key=lambda _, name: keys.bgp_configuration_key(name),
        cells=_bgp_configuration_cells(),
        columns=tuple(_bgp_configuration_cells()),
        wide=tuple(_bgp_configuration_cells()),
    ),
    Kind(
        name="BGPPeer",
        aliases=("bgppeers", "bgpp", "bgpps", "bp", "bps"),
        prefix=keys.BGP_PEERS,
        key=lambda _, name: keys.bgp_peer_key(name),
        cells=_bgp_peer_cells(),
        columns=("NAME", "PEERIP", "NODE", "ASN"),
        wide=tuple(_bgp_peer_cells()),
    ),
    Kind(
        name="BGPFilter",
        aliases=("bgpfilters", "bgpf", "bgpfs", "bf", "bfs"),
        prefix=keys.BGP_FILTERS,
        key=lambda _, name: keys.bgp_filter_key(name),
        cells=_bgp_filter_cells(),
        columns=tuple(_bgp_filter_cells()),
        wide=tuple(_bgp_filter_cells()),
    ),
    Kind(
        name="BlockAffinity",
        aliases=("blockaffinities", "affinity", "affinities"),
        prefix=keys.AFFINITIES,
        key=lambda _, name: f"{keys.AFFINITIES}{name}",
        cells=_affinity_cells(),
        columns=tuple(_affinity_cells()),
        wide=tuple(_affinity_cells()),
        read_only="the agents claim blocks",
        owns=lambda key: keys.parse_affinity_key(key) is not None,
        resource=_affinity_resource,
    ),
    Kind(
        name="IPAMConfiguration",
        aliases=("ipamconfigurations", "ipamconfig", "ipamconfigs"),
        prefix=keys.IPAM_CONFIG_KEY,
        key=_ipam_config_key,
        cells=_ipam_config_cells(),
        columns=tuple(_ipam_config_cells()),
        wide=tuple(_ipam_config_cells()),
        owns=lambda key: key == keys.IPAM_CONFIG_KEY,
        resource=lambda _, wire: ipam_config_resource(wire),
    ),
    *KEPT_KINDS,
)
