"""The kinds of resources the command line knows: their names, keys and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from podwire.errors import BadInput
from podwire.model import codec, keys
from podwire.model.codec import API_VERSION
from podwire.model.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.boundary import Entry
    from podwire.model.bgp import BGPConfiguration, BGPPeer
    from podwire.model.bgpfilter import BGPFilter
    from podwire.model.block import Affinity
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.node import ClusterInformation, Node
    from podwire.model.pool import IPPool, IPReservation
    from podwire.model.resource import JSON, Stored

Cells: TypeAlias = "Mapping[str, Callable[[Any], object]]"
"""Column header → what to show of a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of resource."""

    name: str
    aliases: tuple[str, ...]
    """Lower case, the plural first."""
    prefix: str
    key: Callable[[str, str], str]
    """Namespace and name → datastore key."""
    cells: Cells
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    namespaced: bool = False
    read_only: str | None = None
    """Who writes it, where people do not."""

    def header(self, *, wide: bool, all_namespaces: bool = False) -> tuple[str, ...]:
        """The table's columns."""
        shown = self.wide if wide else self.columns
        return ("NAMESPACE", *shown) if self.namespaced and all_namespaces else shown

    def row(self, value: Stored, header: tuple[str, ...]) -> list[object]:
        """One line of the table."""
        return [self.cells[column](value) for column in header]

    def wire(self, entry: Entry) -> JSON:
        """The object as JSON, with the revision where Calico's tools look for it."""
        wire = dict(entry.value)
        if self.name == "BlockAffinity":
            wire = _affinity_resource(entry)
        wire["metadata"] = {**(wire.get("metadata") or {}), "resourceVersion": entry.revision}
        return wire


def find_kind(word: str) -> Kind:
    """The kind of a name, plural or alias, in any case.

    Raises:
        BadInput: there is none.
    """
    known = {name: kind for kind in KINDS for name in (kind.name.lower(), *kind.aliases)}
    kind = known.get(word.lower())
    if kind is None:
        near = nearest(word, known)
        names = ", ".join(kind.name for kind in KINDS)
        fix = f"did you mean {known[near].name}?" if near else f"write one of: {names}"
        raise BadInput(f"there is no kind {word!r}", fix=fix)
    return kind


def _joined(items: object) -> str:
    assert isinstance(items, tuple)
    return ",".join(str(item) for item in items)


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


def _node_cells() -> Cells:
    cells: dict[str, Callable[[Node], object]] = {
        "NAME": lambda node: node.name,
        "ASN": lambda node: "(64512)" if node.as_number is None else node.as_number,
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
        "NETWORKS": lambda endpoint: _joined(endpoint.addresses),
        "INTERFACE": lambda endpoint: endpoint.interface,
        "PROFILES": lambda endpoint: _joined(endpoint.profiles),
        "NATS": lambda endpoint: ",".join(
            str(nat.get("externalIP"))
            for nat in (endpoint.wire.get("spec") or {}).get("ipNATs") or ()
        ),
    }
    return cells


def _reservation_cells() -> Cells:
    cells: dict[str, Callable[[IPReservation], object]] = {
        "NAME": lambda reservation: reservation.metadata.name,
        "CIDRS": lambda reservation: _joined(reservation.reserved),
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
        "FILTERS": lambda peer: _joined(peer.filters),
    }
    return cells


def _bgp_filter_cells() -> Cells:
    cells: dict[str, Callable[[BGPFilter], object]] = {
        "NAME": lambda value: value.name,
        "IMPORT": lambda value: len(value.import4) + len(value.import6),
        "EXPORT": lambda value: len(value.export4) + len(value.export6),
    }
    return cells


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


def _affinity_resource(entry: Entry) -> dict[str, JSON]:
    affinity = codec.decode_affinity(entry.key, entry.value)
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
        aliases=("ippools", "ipp", "pool", "pools"),
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
        aliases=("nodes", "no"),
        prefix=keys.NODES,
        key=lambda _, name: keys.node_key(name),
        cells=_node_cells(),
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
        aliases=("ipreservations", "reservation", "reservations"),
        prefix=keys.RESERVATIONS,
        key=lambda _, name: keys.reservation_key(name),
        cells=_reservation_cells(),
        columns=("NAME",),
        wide=("NAME", "CIDRS"),
    ),
    Kind(
        name="ClusterInformation",
        aliases=("clusterinformations", "clusterinfo"),
        prefix=keys.CLUSTER,
        key=lambda _, name: keys.cluster_key(name),
        cells=_cluster_cells(),
        columns=tuple(_cluster_cells()),
        wide=tuple(_cluster_cells()),
    ),
    Kind(
        name="BGPConfiguration",
        aliases=("bgpconfigurations", "bgpconfig", "bgpconfigs"),
        prefix=keys.BGP_CONFIGURATIONS,
        key=lambda _, name: keys.bgp_configuration_key(name),
        cells=_bgp_configuration_cells(),
        columns=tuple(_bgp_configuration_cells()),
        wide=tuple(_bgp_configuration_cells()),
    ),
    Kind(
        name="BGPPeer",
        aliases=("bgppeers", "bgpp"),
        prefix=keys.BGP_PEERS,
        key=lambda _, name: keys.bgp_peer_key(name),
        cells=_bgp_peer_cells(),
        columns=("NAME", "PEERIP", "NODE", "ASN"),
        wide=tuple(_bgp_peer_cells()),
    ),
    Kind(
        name="BGPFilter",
        aliases=("bgpfilters",),
        prefix=keys.BGP_FILTERS,
        key=lambda _, name: keys.bgp_filter_key(name),
        cells=_bgp_filter_cells(),
        columns=("NAME",),
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
    ),
)
