"""Ways: by which next hops other nodes are reached, as the kernel's own routes say.

Where the node's address is on no wire (a /32 on lo, told to everybody by an IGP), which device
leads to another node is the routing daemon's affair, and may change at any time. A pod's packet
that travels without a tunnel has to take the same way, so it is read from the routes the daemon
wrote. No search by stages is needed: the kernel takes no route whose next hop it cannot reach on a
link, so every route it lists names devices and neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.route import MAIN_TABLE, PROTOCOL_PODWIRE, NextHop, Route, RouteKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.link import Address, Link

Foreign: TypeAlias = "Mapping[IPNetwork, Route]"
"""The main table without our routes: of each destination the one of lowest metric."""


def foreign_routes(routes: Iterable[Route]) -> Foreign:
    """What others have put into the main table; ours lead to pods, never to nodes."""
    best: dict[IPNetwork, Route] = {}
    for route in routes:
        if route.protocol == PROTOCOL_PODWIRE or route.key.table != MAIN_TABLE:
            continue
        rival = best.get(route.key.destination)
        if rival is None or route.key.metric < rival.key.metric:
            best[route.key.destination] = route
    return best


def find_route(routes: Foreign, address: IPAddress) -> Route | None:
    """The route that matches longest; None when there is none, or it discards packets."""
    if not isinstance(address, IPv4Address):
        return None
    for length in range(32, -1, -1):
        route = routes.get(IPv4Network((address, length), strict=False))
        if route is not None:
            return route if route.kind is RouteKind.UNICAST else None
    return None


def ways_to(address: IPAddress, routes: Foreign, links: Mapping[int, Link]) -> tuple[NextHop, ...]:
    """The next hops that lead to another node; none when no route does, or its devices are down.

    The kernel refuses a route through a device that is down, and sends into one without carrier:
    those are left out while others are better.
    """
    route = find_route(routes, address)
    hops = () if route is None else route.hops
    up = [hop for hop in hops if _is_up(links, hop)]
    running = [hop for hop in up if links[hop.device or 0].carrier]
    return tuple(_towards(hop, address) for hop in running or up)


def devices_to(addresses: Iterable[IPAddress], routes: Foreign) -> Iterator[int]:
    """Every device on which packets to these addresses may leave, whatever its state now."""
    for address in addresses:
        route = find_route(routes, address)
        for hop in () if route is None else route.hops:
            if hop.device is not None:
                yield hop.device


def leaves_as(
    own: IPAddress, address: IPAddress, routes: Foreign, addresses: Iterable[Address]
) -> bool:
    """Whether what this host sends to the address has `own` as its source.

    The kernel takes the route's preferred source, else an address of the device, else (where the
    device has none) one of another device, loopback first (inet_select_addr).
    """
    route = find_route(routes, address)
    if route is None or route.source is not None:
        return route is None or route.source == own
    devices = {hop.device for hop in route.hops}
    others = (each for each in addresses if each.device in devices and each.scope == 0)
    return all(each.interface.ip == own or each.interface.version != 4 for each in others)


def _is_up(links: Mapping[int, Link], hop: NextHop) -> bool:
    link = links.get(hop.device or 0)
    return link is not None and link.up


def _towards(hop: NextHop, address: IPAddress) -> NextHop:
    """A route without a gateway says that the node itself is at the other end of the link."""
    hop = replace(hop, dead=False)
    return hop if hop.gateway is not None else replace(hop, gateway=address, onlink=True)
