"""Overlay: behind which MAC and which node each VTEP is.

VXLAN learns nothing from traffic here: one permanent neighbour entry (tunnel address → MAC) and one
FDB entry (MAC → node address) for each other node, before the routes that use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.desired.blocks import is_routed, towards
from podwire.desired.entries import RouteClass, Want
from podwire.model.addressing import block_holding, host_network
from podwire.model.overlay import FDBEntry, Neighbour, vtep_mac
from podwire.model.route import SCOPE_LINK, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from podwire.desired.here import Here
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Affinity
    from podwire.model.node import Node
    from podwire.model.pool import IPPool


def mac_of(node: Node) -> str:
    """MAC of the node's vxlan device: as it says itself, else the one every node can compute."""
    return (node.vxlan_mac or vtep_mac(node.name)).lower()


def of_node(
    there: Node,
    here: Here,
    affinities: Mapping[IPNetwork, Affinity],
    pools: Collection[IPPool],
) -> tuple[Want, ...]:
    """What the existence of another node asks of this one."""
    if there.name == here.node.name or there.address is None:
        return ()
    wants: list[Want] = []
    if here.vxlan is not None and there.vxlan_tunnel is not None:
        wants += _vtep(there, here.vxlan)
        if is_borrowed(there.vxlan_tunnel, there, affinities, pools):
            # No block of that node covers its tunnel address, so the way to it is said by itself.
            wants.append(_on_link(there.vxlan_tunnel, here.vxlan))
    if there.ipip_tunnel is not None and is_borrowed(there.ipip_tunnel, there, affinities, pools):
        wants += towards(host_network(there.ipip_tunnel), here, there, pools)
    return tuple(wants)


def is_borrowed(
    address: IPAddress,
    node: Node,
    affinities: Mapping[IPNetwork, Affinity],
    pools: Collection[IPPool],
) -> bool:
    """Whether the node uses an address of a block that it does not hold."""
    block = tunnel_block(address, pools)
    affinity = None if block is None else affinities.get(block)
    return affinity is None or not is_routed(affinity) or affinity.node != node.name


def tunnel_block(address: IPAddress, pools: Collection[IPPool]) -> IPNetwork | None:
    """The block in which a tunnel address lies; None when no pool holds it."""
    for pool in pools:
        if address in pool.cidr:
            return block_holding(address, pool.block_size)
    return None


def _vtep(there: Node, device: int) -> tuple[Want, ...]:
    assert there.vxlan_tunnel is not None
    assert there.address is not None
    mac = mac_of(there)
    return (
        Want(Neighbour(device=device, address=there.vxlan_tunnel, mac=mac)),
        Want(FDBEntry(device=device, mac=mac, destination=there.address.ip, own=True)),
    )


def _on_link(address: IPAddress, device: int) -> Want:
    route = Route(
        key=RouteKey(destination=host_network(address)),
        scope=SCOPE_LINK,
        hops=(NextHop(device=device),),
    )
    return Want(route, RouteClass.VXLAN)
