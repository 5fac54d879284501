"""Intent: which route a namespace should have for an address, told by its neighbours' state.

Nothing here asks a datastore. That a pod hangs on a node's veth, that another node drops the block
as its own, that all other nodes have a route: these are kernel facts, and they are the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.route import MAIN_TABLE, NextHop, Route, RouteKind
from podwire.trace import ends, fib
from podwire.trace.space import Lacking, Space

if TYPE_CHECKING:
    from collections.abc import Collection

    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.trace.world import Pod, World

TUNNELS = frozenset({"vxlan", "ipip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A route that is missing."""

    destination: str
    route: str
    """As `ip route add` takes it; empty when the next hop cannot be told."""
    evidence: str
    """Why it should be there."""


def pod_of(world: World, address: IPAddress | None) -> Pod | None:
    """The pod that has an address, or whose node routes it to it."""
    if address is None:
        return None
    for port in world.owners(address):
        pod = world.pod_in(port.space)
        if pod is not None:
            return pod
    return ends.pod_routed(world, address)


def host_route(world: World, space: Space, address: IPAddress) -> Wanted | None:
    """The /32 into the veth of a pod that hangs on this very namespace."""
    pod = pod_of(world, address)
    if pod is None or pod.host.space is not space:
        return None
    name = pod.host.link.name
    return Wanted(
        destination=f"{address}/32",
        route=f"{address}/32 dev {name} scope link",
        evidence=f"{name} of {space.title} leads to {pod.title}, which has {address}",
    )


def block_route(world: World, space: Space, address: IPAddress) -> Wanted | None:
    """The route to the block of an address that lives elsewhere, as others know it."""
    for other in world.spaces.values():
        if other is space or world.pod_in(other) is not None:
            continue
        found = _block_in(other, address)
        if found is None:
            continue
        destination = str(found.key.destination)
        via = _next_hop(world, space, address)
        return Wanted(
            destination=destination,
            route=f"{destination} {via}" if via else "",
            evidence=f"{other.title} has: {fib.describe(other, found)}",
        )
    return None


def lost_tunnel(world: World, space: Space, address: IPAddress) -> tuple[Link, str] | None:
    """A tunnel that is down and should lead to a pod, and `via …` of the route it took along."""
    pod = pod_of(world, address)
    if pod is None or pod.host.space is space:
        return None
    node = pod.host.space
    for link in space.links.values():
        if str(link.kind) not in TUNNELS or link.up or not space.addresses_of(link):
            continue
        ends = [each for each in node.links.values() if each.kind == link.kind and each.up]
        ends = [each for each in ends if node.addresses_of(each)]
        if not ends:
            continue
        if link.kind == "ipip":
            there = {one.interface.ip for each in node.addresses.values() for one in each}
            return link, _through_ipip(space, node, hops_to(space, there))
        remote = node.addresses_of(ends[0])[0].interface.ip
        return link, f"via {remote} dev {link.name} onlink"
    return None


def default_route(world: World, space: Space) -> str:
    """`default via … dev …` by a router of our subnets: one that others use, or that we see.

    Empty when nobody there is known to route.
    """
    others = [each for each in world.spaces.values() if each is not space]
    used = [
        hop.gateway
        for other in others
        for route in _default_routes(other)
        for hop in route.hops
        if hop.gateway is not None
    ]
    nodes = {pod.host.space.inode for pod in world.pods.values()}
    seen = [
        each.interface.ip
        for other in others
        if other.inode not in nodes and _routes(other)
        for addresses in other.addresses.values()
        for each in addresses
    ]
    for hop in hops_to(space, [each for each in (*used, *seen) if not space.link_with(each)]):
        if hop.device is not None:
            return f"default via {hop.gateway} dev {space.links[hop.device].name}"
    return ""


def _default_routes(space: Space) -> list[Route]:
    try:
        routes = space.need(space.state.routes, "routes")
    except Lacking:
        return []
    return [
        each
        for each in routes
        if each.key.table == MAIN_TABLE
        and (each.key.destination.version, each.key.destination.prefixlen) == (4, 0)
    ]


def _routes(space: Space) -> bool:
    """Whether a namespace routes for others, its addresses known."""
    try:
        return space.sysctl("ipv4.ip_forward", "0") == "1" and bool(space.addresses)
    except Lacking:
        return False


def _block_in(space: Space, address: IPAddress) -> Route | None:
    """The longest route of a namespace that covers the address, single hosts and default aside."""
    try:
        routes = fib.covering_routes(space, address, MAIN_TABLE)
    except Lacking:
        return None
    for route in routes:
        between = 0 < route.key.destination.prefixlen < route.key.destination.max_prefixlen
        if between and route.kind in {RouteKind.BLACKHOLE, RouteKind.UNICAST}:
            return route
    return None


def _next_hop(world: World, space: Space, address: IPAddress) -> str:
    """`via … dev …` to the node of a pod, in the way this namespace reaches its other nodes."""
    pod = pod_of(world, address)
    if pod is None:
        return ""
    node = pod.host.space
    there: set[IPAddress] = {
        each.interface.ip
        for addresses in node.addresses.values()
        for each in addresses
        if each.interface.version == 4
    }
    near = hops_to(space, there)
    if not (near and _answers_plainly(node, space)):
        tunnelled = _through_vxlan(space, there) or _through_ipip(space, node, near)
        if tunnelled:
            return tunnelled
    for hop in near:
        assert hop.device is not None
        return f"via {hop.gateway} dev {space.links[hop.device].name}"
    return ""


def _answers_plainly(node: Space, space: Space) -> bool:
    """Whether the other node's blocks' routes to this one pass no tunnel (mode CrossSubnet)."""
    try:
        routes = node.need(node.state.routes, "routes")
    except Lacking:
        return False
    return any(
        hop.gateway is not None
        and space.link_with(hop.gateway) is not None
        and hop.device is not None
        and hop.device in node.links
        and str(node.links[hop.device].kind) not in TUNNELS
        for route in routes
        if 0 < route.key.destination.prefixlen < route.key.destination.max_prefixlen
        for hop in route.hops
    )


def _through_vxlan(space: Space, there: set[IPAddress]) -> str:
    for device in space.links.values():
        if device.kind == "vxlan":
            for entry in space.fdb:
                if entry.device == device.index and entry.destination in there:
                    for (index, gateway), neighbour in space.neighbours.items():
                        if index == device.index and neighbour.mac == entry.mac:
                            return f"via {gateway} dev {device.name} onlink"
    return ""


def _through_ipip(space: Space, node: Space, near: list[NextHop]) -> str:
    """By the other node's own address; behind a router, that of its first network."""
    # Every namespace has a tunl0 once the module is loaded; one that is meant has an address.
    tunnel = next(
        (
            each
            for each in space.links.values()
            if each.kind == "ipip" and (each.up or space.addresses_of(each))
        ),
        None,
    )
    far = [
        each.interface.ip
        for index, addresses in sorted(node.addresses.items())
        if index in node.links and str(node.links[index].kind) not in TUNNELS
        for each in addresses
        if each.interface.version == 4 and not each.interface.is_loopback
        if each.interface.network.prefixlen < each.interface.max_prefixlen
    ]
    gateway = next((hop.gateway for hop in near), next(iter(far), None))
    if tunnel is None or gateway is None:
        return ""
    return f"via {gateway} dev {tunnel.name} onlink"


def hops_to(space: Space, addresses: Collection[IPAddress]) -> list[NextHop]:
    """Next hops to those of the addresses that are on a subnet of ours."""
    found = []
    for index, carried in space.addresses.items():
        link = space.links[index]
        if link.loopback or str(link.kind) in TUNNELS:
            continue
        for each in carried:
            # Every link has that network, and each is one of its own.
            if each.interface.version == 6 and each.interface.is_link_local:
                continue
            near = [one for one in addresses if one in each.interface.network]
            found += [NextHop(device=index, gateway=one) for one in near]
    return found
