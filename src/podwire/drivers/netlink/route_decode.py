"""rtnetlink messages → routes and rules. Pure; the path on which a full FIB is read.

Source: fib_dump_info (net/ipv4/fib_semantics.c), rt6_fill_node (net/ipv6/route.c),
fib_nl_fill_rule (net/core/fib_rules.c).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from struct import error as StructError  # noqa: N812  # it is an exception class
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.requests import RULE_ACTIONS, RULE_INVERT
from podwire.drivers.netlink.route_requests import (
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTAX_MTU,
    RTNH_F_ONLINK,
)
from podwire.drivers.netlink.wire import Malformed, attributes, nested
from podwire.model.route import NextHop, Route, RouteKey, RouteKind, Rule

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPNetwork

_RTNH_F_DEAD = 1
_NOT_MODELLED = {2: "from", 11: "realm", 19: "newdst", 21: "encap", 22: "encap"}
_KINDS = {int(kind): kind for kind in RouteKind}
_WITHOUT_HOPS = frozenset(
    {RouteKind.BLACKHOLE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT, RouteKind.THROW}
)
_ANY4, _ANY6 = bytes(4), bytes(16)


def decode_route(data: bytes, start: int, end: int) -> Route:
    """A route from RTM_NEWROUTE or RTM_DELROUTE, in the form `model.route.normal` describes."""
    if start + wire.ROUTE.size > end:
        raise Malformed("route")
    family, length, _, tos, table, protocol, scope, kind_number, flags = wire.ROUTE.unpack_from(
        data, start
    )
    found = attributes(data, start + wire.ROUTE.size, end)
    get = found.get
    if RTA_TABLE in found:
        table = wire.u32(found[RTA_TABLE])
    kind = _KINDS.get(kind_number)
    if kind is None:
        raise Malformed(f"route of kind {kind_number}")
    priority, source, metrics = get(RTA_PRIORITY), get(RTA_PREFSRC), get(RTA_METRICS)
    limits = nested(metrics) if metrics else {}
    unknown = _not_modelled(found) if found.keys() & _NOT_MODELLED.keys() else frozenset()
    return Route(
        key=RouteKey(
            destination=_network(family, get(RTA_DST), length),
            table=table,
            metric=wire.u32(priority) if priority else 0,
            tos=tos,
        ),
        kind=kind,
        protocol=protocol,
        scope=scope,
        # IPv6 lists the loopback device as the way of what it discards.
        hops=() if kind in _WITHOUT_HOPS else _hops(found, flags),
        source=wire.ip(source) if source else None,
        mtu=wire.u32(limits[RTAX_MTU]) if RTAX_MTU in limits else None,
        nexthop_id=wire.u32(found[RTA_NH_ID]) if RTA_NH_ID in found else None,
        not_modelled=unknown,
    )


def _network(family: int, packed: bytes | None, length: int) -> IPNetwork:
    try:
        if family == wire.AF_INET:
            return IPv4Network((_ANY4 if packed is None else packed, length))
        if family == wire.AF_INET6:
            return IPv6Network((_ANY6 if packed is None else packed, length))
    except ValueError:
        pass
    raise Malformed(f"route of family {family}")


def _hops(found: dict[int, bytes], flags: int) -> tuple[NextHop, ...]:
    multipath = found.get(RTA_MULTIPATH)
    if multipath is not None:
        return tuple(_multipath(multipath))
    via = found.get(RTA_VIA)
    return _single(found.get(RTA_OIF), found.get(RTA_GATEWAY) or (via and via[2:]), flags)


@lru_cache(maxsize=8192)
def _single(device: bytes | None, gateway: bytes | None, flags: int) -> tuple[NextHop, ...]:
    # Thousands of routes lead to the same few nodes; their next hop is made once.
    if device is None and gateway is None:
        return ()
    return (
        NextHop(
            device=wire.u32(device) if device else None,
            gateway=wire.ip(gateway) if gateway else None,
            onlink=bool(flags & RTNH_F_ONLINK),
            dead=bool(flags & _RTNH_F_DEAD),
        ),
    )


def _multipath(value: bytes) -> list[NextHop]:
    hops = []
    start, size = 0, len(value)
    while start + wire.NEXT_HOP.size <= size:
        length, flags, weight, device = wire.NEXT_HOP.unpack_from(value, start)
        if length < wire.NEXT_HOP.size or start + length > size:
            raise Malformed("next hop")
        found = attributes(value, start + wire.NEXT_HOP.size, start + length)
        hops.append(
            NextHop(
                device=device or None,
                gateway=_gateway(found),
                onlink=bool(flags & RTNH_F_ONLINK),
                weight=weight + 1,
                dead=bool(flags & _RTNH_F_DEAD),
            )
        )
        start += (length + 3) & ~3
    return hops


def _gateway(found: dict[int, bytes]) -> IPAddress | None:
    if RTA_GATEWAY in found:
        return wire.ip(found[RTA_GATEWAY])
    if RTA_VIA in found:
        return wire.ip(found[RTA_VIA][2:])
    return None


def _not_modelled(found: dict[int, bytes]) -> frozenset[str]:
    return frozenset(_NOT_MODELLED[kind] for kind in found if kind in _NOT_MODELLED)


# --- rules ------------------------------------------------------------------------------------

_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_PROTOCOL = 14, 15, 16, 17, 21
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24
_RULE_NOT_MODELLED = {
    11: "realm", 12: "tunnel id", 13: "suppress group", 19: "l3mdev", 20: "uid range",
    25: "dscp", 26: "flow label", 27: "flow label", 28: "source port mask",
    29: "destination port mask", 30: "dscp",
}  # fmt: skip
_NO_GROUP = b"\xff\xff\xff\xff"
_FULL_MASK = 0xFFFFFFFF
_ACTIONS = {value: action for action, value in RULE_ACTIONS.items()}


def decode_rule(data: bytes, start: int, end: int) -> Rule:
    """A policy rule from RTM_NEWRULE or RTM_DELRULE; a mask of all ones is told as None."""
    try:
        family, to_length, from_length, tos, table, _, _, action, flags = wire.RULE.unpack(
            data[start : min(end, start + wire.RULE.size)]
        )
    except StructError:
        raise Malformed("rule") from None
    found = attributes(data, start + wire.RULE.size, end)
    numbers = {
        kind: wire.u32(found[kind])
        for kind in (_FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK, _FRA_TABLE)
        if kind in found
    }
    mask = numbers.get(_FRA_FWMASK, _FULL_MASK)
    suppressed = wire.i32(found.get(_FRA_SUPPRESS_PREFIXLEN, _NO_GROUP))
    return Rule(
        family=4 if family == wire.AF_INET else 6,
        priority=numbers.get(_FRA_PRIORITY, 0),
        action=_ACTIONS.get(action, f"action {action}"),
        table=numbers.get(_FRA_TABLE, table),
        source=_network(family, found[_FRA_SRC], from_length) if _FRA_SRC in found else None,
        destination=_network(family, found[_FRA_DST], to_length) if _FRA_DST in found else None,
        iif=wire.string(found[_FRA_IIFNAME]) if _FRA_IIFNAME in found else None,
        oif=wire.string(found[_FRA_OIFNAME]) if _FRA_OIFNAME in found else None,
        mark=numbers.get(_FRA_FWMARK),
        mark_mask=None if mask == _FULL_MASK else mask,
        tos=tos,
        invert=bool(flags & RULE_INVERT),
        suppress_prefix_length=None if suppressed < 0 else suppressed,
        target=numbers.get(_FRA_GOTO),
        ip_protocol=wire.u8(found[_FRA_IP_PROTO]) if _FRA_IP_PROTO in found else None,
        source_ports=_ports(found.get(_FRA_SPORT_RANGE)),
        destination_ports=_ports(found.get(_FRA_DPORT_RANGE)),
        protocol=wire.u8(found.get(_FRA_PROTOCOL, b"\0")),
        not_modelled=frozenset(
            title
            for kind, title in _RULE_NOT_MODELLED.items()
            if kind in found
            and not (kind == 13 and found[kind] == _NO_GROUP)
            and not (kind in {28, 29} and found[kind] in {b"\0\0", b"\xff\xff"})
        ),
    )


def _ports(value: bytes | None) -> tuple[int, int] | None:
    return None if value is None else (wire.u16(value[:2]), wire.u16(value[2:4]))
