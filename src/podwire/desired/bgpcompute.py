"""Snapshot → BirdConfig. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from podwire.desired.bgp import BirdConfig, BirdPool
from podwire.desired.bgppeers import as_number_of, peering_of
from podwire.desired.bgpsettings import settings_of
from podwire.desired.blocks import is_routed
from podwire.desired.overlay import is_borrowed
from podwire.model.addressing import host_network
from podwire.model.link import IPIP_DEVICE
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.addressing import IPNetwork
    from podwire.model.node import Node
    from podwire.model.pool import IPPool
    from podwire.model.snapshot import Snapshot


def compute_bird(snapshot: Snapshot, name: str, *, has_ipip: bool = True) -> BirdConfig | None:
    """What BIRD of the node of that name is told; None while the node has no IPv4 address.

    `has_ipip`: whether tunl0 is there. Until it is, BIRD is told to withhold what leads through it:
    a route onto a device that it does not know fails, and is not tried again.
    """
    node = snapshot.nodes.get(name)
    if node is None or not isinstance(node.address, IPv4Interface):
        return None
    settings = settings_of(name, snapshot.bgp_configurations)
    peering = peering_of(node, snapshot)
    named = {name for peer in peering.peers for name in peer.filters}
    pools = sorted(snapshot.pools.values(), key=lambda pool: pool.cidr.network_address.packed)
    return BirdConfig(
        node=name,
        router_id=node.address.ip,
        address=node.address,
        as_number=as_number_of(node, settings),
        listen_port=settings.listen_port,
        strict_bind=settings.strict_bind,
        log_severity=settings.log_severity,
        cluster_id=_cluster_id(node),
        ignored_interfaces=settings.ignored_interfaces,
        pools=tuple(_pool(pool, has_ipip=has_ipip) for pool in pools if pool.cidr.version == 4),
        addresses=tuple(sorted({*_borrowed(node, snapshot), *_blocks_of_one(node, snapshot)})),
        advertisements=settings.advertisements,
        filters=tuple(
            snapshot.bgp_filters[name] for name in sorted(named) if name in snapshot.bgp_filters
        ),
        peers=peering.peers,
        narrow=tuple(sorted(_narrow(node, snapshot))),
        unserved=peering.unserved,
    )


def _pool(pool: IPPool, *, has_ipip: bool) -> BirdPool:
    tunnelled = pool.encapsulation is Encapsulation.IPIP and has_ipip
    return BirdPool(
        cidr=pool.cidr,
        device=IPIP_DEVICE if tunnelled else None,
        mode=pool.mode,
        by_agent=pool.encapsulation is Encapsulation.VXLAN,
        exported=not pool.disable_bgp_export,
    )


def _narrow(here: Node, snapshot: Snapshot) -> Iterator[tuple[IPv4Address, int]]:
    own = here.underlay_mtu or 0
    for there in snapshot.nodes.values():
        mtu, address = there.underlay_mtu, there.address
        if isinstance(address, IPv4Interface) and mtu is not None and mtu < own:
            yield address.ip, mtu


def _borrowed(node: Node, snapshot: Snapshot) -> Iterator[IPNetwork]:
    """Addresses this node uses outside the blocks it holds, pods' and tunnels'."""
    for address, user in snapshot.borrowed.items():
        if user == node.name and address.version == 4:
            yield host_network(address)
    pools = tuple(snapshot.pools.values())
    tunnel = node.ipip_tunnel
    if tunnel is not None and is_borrowed(tunnel, node, snapshot.affinities, pools):
        yield host_network(tunnel)


def _blocks_of_one(node: Node, snapshot: Snapshot) -> Iterator[IPNetwork]:
    """Own blocks of a single address: no blackhole stands for them, only the pod's own route."""
    if not any(pool.block_size == 32 for pool in snapshot.pools.values()):
        return
    for block, affinity in snapshot.affinities.items():
        if block.prefixlen == 32 and affinity.node == node.name and is_routed(affinity):
            yield block


def _cluster_id(node: Node) -> IPv4Address | None:
    text = node.route_reflector_cluster_id
    try:
        return None if text is None else IPv4Address(text)
    except ValueError:
        return None
