"""DesiredState: what should be in this node's kernel, and `compute`, which says so."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.desired.entries import Table, key_of, table_of
from podwire.desired.incremental import Incremental
from podwire.desired.mtu import pod_mtu
from podwire.desired.tunnel import tunnels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.desired.entries import Entry, Key
    from podwire.desired.incremental import Inputs
    from podwire.desired.tunnel import TunnelLink


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything of ours in the kernel of one node, pods' insides apart."""

    tunnels: tuple[TunnelLink, ...]
    entries: Mapping[Table, Mapping[Key, Entry]]
    pod_mtu: int
    """MTU of the veth of a new pod."""


def compute(inputs: Inputs) -> DesiredState:
    """Say what should be there. Touches nothing.

    Workloads: a /32 and a neighbour each. Own blocks: a blackhole. Other nodes' blocks: a route by
    their pool's encapsulation. Other nodes: neighbour and FDB entry of their VTEP. This node:
    tunnel devices with their addresses, forwarding, and a way for proxy ARP.
    """
    incremental = Incremental(inputs)
    for _ in incremental.work():
        """Each step computes one source; all that counts here is the end."""
    entries: dict[Table, dict[Key, Entry]] = {table: {} for table in Table}
    for entry in incremental.entries():
        entries[table_of(entry)][key_of(entry)] = entry
    pools = tuple(inputs.snapshot.pools.values())
    return DesiredState(
        tunnels=tunnels(inputs.here, pools),
        entries=MappingProxyType({t: MappingProxyType(rows) for t, rows in entries.items()}),
        pod_mtu=pod_mtu(pools, inputs.here.mtu),
    )
