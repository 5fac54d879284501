"""Routes → rtnetlink requests. Pure; the path on which a hundred thousand routes are written.

A route's identity in the kernel is destination, table, TOS and metric: a replace with another
metric adds a second route. Source: net/ipv4/fib_frontend.c, net/ipv6/route.c.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.request import Request
from podwire.drivers.netlink.wire import attribute, number

if TYPE_CHECKING:
    from podwire.model.route import NextHop, Route

RTNH_F_ONLINK = 4
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS = 1, 4, 5, 6, 7, 8
RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTA_NH_ID = 9, 15, 18, 30
RTAX_MTU = 2

_HEAD4, _HEAD6 = (Struct(f"=BBBBBBBBIHHIHH{size}s") for size in (4, 16))
"""rtmsg with RTA_TABLE and RTA_DST behind it, in one stroke: these every route has."""
_BEFORE_ADDRESS = wire.ROUTE.size + 8

_CREATE = wire.F_CREATE | wire.F_EXCL
_REPLACE = wire.F_CREATE | wire.F_REPLACE


def replace_route(route: Route) -> Request:
    """Make the route with this key exactly so, whoever wrote the one that is there."""
    return Request(wire.NEWROUTE, _REPLACE, _route(route), "replace", route)


def create_route(route: Route) -> Request:
    """Add a route; EEXIST when the key is taken, so that nothing foreign is replaced by mistake."""
    return Request(wire.NEWROUTE, _CREATE, _route(route), "create", route)


def delete_route(route: Route) -> Request:
    """Take a route away that has exactly this key, protocol, kind and hops; else NotThere.

    A metric of 0 means "any" to the kernel, which looks in order of metric: when the route itself
    is gone, one with the same protocol and hops and a greater metric would match.
    """
    return Request(wire.DELROUTE, 0, _route(route), "delete", route)


def _route(route: Route) -> bytes:
    key = route.key
    destination, table = key.destination, key.table
    address = destination.network_address
    family = wire.AF_INET if address.version == 4 else wire.AF_INET6
    hops = route.hops
    flags = RTNH_F_ONLINK if len(hops) == 1 and hops[0].onlink else 0
    head = _HEAD4 if family == wire.AF_INET else _HEAD6
    payload = head.pack(
        family,
        destination.prefixlen,
        0,
        key.tos,
        table if table < 256 else 0,
        route.protocol,
        route.scope,
        route.kind,
        flags,
        8,
        RTA_TABLE,
        table,
        head.size - _BEFORE_ADDRESS,
        RTA_DST,
        address.packed,
    )
    if key.metric:
        payload += number(RTA_PRIORITY, key.metric)
    if route.nexthop_id is not None:
        payload += number(RTA_NH_ID, route.nexthop_id)
    elif len(hops) == 1:
        payload += _hop(hops[0], family)
    elif hops:
        payload += attribute(RTA_MULTIPATH, b"".join(_next_hop(hop, family) for hop in hops))
    if route.source is not None:
        payload += attribute(RTA_PREFSRC, route.source.packed)
    if route.mtu is not None:
        payload += attribute(RTA_METRICS, number(RTAX_MTU, route.mtu))
    return payload


def _hop(hop: NextHop, family: int) -> bytes:
    payload = b""
    if hop.gateway is not None:
        payload = _gateway(hop, family)
    if hop.device is not None:
        payload += number(RTA_OIF, hop.device)
    return payload


def _next_hop(hop: NextHop, family: int) -> bytes:
    gateway = b"" if hop.gateway is None else _gateway(hop, family)
    head = wire.NEXT_HOP.pack(
        wire.NEXT_HOP.size + len(gateway),
        RTNH_F_ONLINK if hop.onlink else 0,
        hop.weight - 1,
        hop.device or 0,
    )
    return head + gateway


def _gateway(hop: NextHop, family: int) -> bytes:
    assert hop.gateway is not None
    other = wire.family_of(hop.gateway)
    if other == family:
        return attribute(RTA_GATEWAY, hop.gateway.packed)
    # An IPv4 route whose next hop is an IPv6 address (RFC 8950).
    return attribute(RTA_VIA, wire.U16.pack(other) + hop.gateway.packed)
