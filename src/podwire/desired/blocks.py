"""Blocks: a blackhole for each of ours, a route to each of the others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from podwire.desired.encapsulation import Way, way
from podwire.desired.entries import RouteClass, Want
from podwire.model.addressing import contains
from podwire.model.block import AffinityState
from podwire.model.pool import Encapsulation
from podwire.model.route import NextHop, Route, RouteKey, RouteKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.desired.here import Here
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Affinity
    from podwire.model.node import Node
    from podwire.model.pool import IPPool


def is_routed(affinity: Affinity) -> bool:
    """Only a confirmed block is routed: until then another node may still win it."""
    return affinity.state is AffinityState.CONFIRMED and not affinity.deleted


def pool_of(network: IPNetwork | IPAddress, pools: Iterable[IPPool]) -> IPPool | None:
    """The pool in which the network lies; pools never overlap. Disabled ones count as well.

    Disabling a pool stops new allocations; the pods that are there go on talking.
    """
    return next((pool for pool in pools if contains(pool.cidr, network)), None)


def of_affinity(
    affinity: Affinity, here: Here, nodes: Mapping[str, Node], pools: Iterable[IPPool]
) -> tuple[Want, ...]:
    """What one node's claim on a block asks of this node."""
    if not is_routed(affinity) or affinity.block.version != 4:
        return ()
    if affinity.node == here.node.name:
        return own(affinity.block)
    there = nodes.get(affinity.node)
    # Without its Node object a node is gone, and what leads to it would only lose packets.
    return () if there is None else towards(affinity.block, here, there, pools)


def own(block: IPNetwork) -> tuple[Want, ...]:
    """The blackhole that ends packets to free addresses of our own block here.

    Without it they would take the default route, come back by the router, and circle until their
    TTL ends. A block of one address needs none: its /32 is there or nobody asks.
    """
    if block.prefixlen == block.max_prefixlen:
        return ()
    return (
        Want(
            Route(key=RouteKey(destination=block), kind=RouteKind.BLACKHOLE),
            RouteClass.BLACKHOLE,
        ),
    )


def towards(
    destination: IPNetwork, here: Here, there: Node, pools: Iterable[IPPool]
) -> tuple[Want, ...]:
    """The route to addresses that live on another node; none while a part of it is missing."""
    pool = pool_of(destination, pools)
    if pool is None or there.address is None or not is_agents(pool, here):
        return ()
    match way(pool, here.node, there):
        case Way.FABRIC | Way.PLAIN | Way.DIRECT if here.underlay.routed:
            # No wire is ours: the packet takes the way that packets to the node itself take.
            hops = here.ways.get(there.address.ip, ())
            return (_bare(destination, hops, RouteClass.PLAIN, here, there),) if hops else ()
        case Way.FABRIC:
            return ()
        case Way.PLAIN:
            # Reachable by the subnet's own route, which the kernel checks on writing.
            hop = NextHop(device=here.underlay.device, gateway=there.address.ip)
            return (_bare(destination, (hop,), RouteClass.PLAIN, here, there),)
        case Way.DIRECT:
            hop = NextHop(device=here.underlay.device, gateway=there.address.ip, onlink=True)
            return (_bare(destination, (hop,), RouteClass.DIRECT, here, there),)
        case Way.IPIP:
            if here.ipip is None:
                return ()
            hop = NextHop(device=here.ipip, gateway=there.address.ip, onlink=True)
            return (_via(destination, hop, RouteClass.IPIP),)
        case Way.VXLAN:
            if here.vxlan is None or there.vxlan_tunnel is None:
                return ()
            hop = NextHop(device=here.vxlan, gateway=there.vxlan_tunnel, onlink=True)
            return (_via(destination, hop, RouteClass.VXLAN),)
        case unknown:
            assert_never(unknown)


def is_agents(pool: IPPool, here: Here) -> bool:
    """Whether the agent writes the pool's routes to other nodes; else BIRD does.

    BIRD cannot look after the neighbours and forwarding entries of VXLAN, so that pool's routes
    are the agent's always.
    """
    return here.agent_routes or pool.encapsulation is Encapsulation.VXLAN


def is_reachable(destination: IPNetwork, here: Here, there: Node, pools: Iterable[IPPool]) -> bool:
    """Whether nothing is missing to send there: with FABRIC no route of ours is part of it."""
    pool = pool_of(destination, pools)
    if pool is None or there.address is None:
        return False
    if way(pool, here.node, there) is Way.FABRIC:
        return True
    return bool(towards(destination, here, there, (pool,)))


def _via(destination: IPNetwork, hop: NextHop, route_class: RouteClass) -> Want:
    return Want(Route(key=RouteKey(destination=destination), hops=(hop,)), route_class)


def _bare(
    destination: IPNetwork,
    hops: tuple[NextHop, ...],
    route_class: RouteClass,
    here: Here,
    there: Node,
) -> Want:
    """A route without a tunnel, whose device knows nothing of the other node's MTU.

    Where that is smaller, the route says so: the sender is told by ICMP, instead of losing.
    """
    narrow = there.underlay_mtu is not None and there.underlay_mtu < here.underlay.mtu
    mtu = there.underlay_mtu if narrow else None
    return Want(Route(key=RouteKey(destination=destination), hops=hops, mtu=mtu), route_class)
