"""Snapshot: everything the datastore says that a node agent needs, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.bgp import BGPConfiguration, BGPPeer
    from podwire.model.bgpfilter import BGPFilter
    from podwire.model.block import Affinity, IPAMConfig
    from podwire.model.felix import FelixSettings
    from podwire.model.node import ClusterInformation, Node
    from podwire.model.pool import IPPool

K = TypeVar("K")
V = TypeVar("V")


def frozen(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """A read-only view."""
    return MappingProxyType(mapping)


def _empty() -> Mapping[K, V]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The datastore at one moment, as far as routing is concerned.

    `in_sync` is False until the first complete listing; before it nothing is deleted anywhere.
    """

    in_sync: bool = False
    pools: Mapping[str, IPPool] = field(default_factory=_empty)
    nodes: Mapping[str, Node] = field(default_factory=_empty)
    affinities: Mapping[IPNetwork, Affinity] = field(default_factory=_empty)
    """Confirmed and other claims of all nodes, by block."""
    borrowed: Mapping[IPAddress, str] = field(default_factory=_empty)
    """Address → node that uses it, where that node does not hold its block."""
    bgp_configurations: Mapping[str, BGPConfiguration] = field(default_factory=_empty)
    """These three are read only where BIRD writes routes; by name."""
    bgp_peers: Mapping[str, BGPPeer] = field(default_factory=_empty)
    bgp_filters: Mapping[str, BGPFilter] = field(default_factory=_empty)
    felix: Mapping[str, FelixSettings] = field(default_factory=_empty)
    cluster: ClusterInformation | None = None
    ipam: IPAMConfig | None = None
