"""Routes and policy rules, with the kernel's own identity as key.

Source: include/uapi/linux/rtnetlink.h, net/ipv4/fib_trie.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPNetwork

MAIN_TABLE = 254
LOCAL_TABLE = 255
DEFAULT_TABLE = 253

SCOPE_GLOBAL = 0
SCOPE_LINK = 253
SCOPE_HOST = 254
SCOPE_NOWHERE = 255

PROTOCOL_KERNEL = 2
PROTOCOL_BOOT = 3
PROTOCOL_STATIC = 4
PROTOCOL_BIRD = 12
PROTOCOL_PODWIRE = 80
"""Stamped on every route of ours: a restarted agent knows its own by it (Calico's number)."""


class RouteKind(IntEnum):
    """RTN_*: what the kernel does with a packet that matches."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9
    NAT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteKey:
    """The fields by which Linux tells two routes apart.

    The metric is part of it: replacing a route with another metric adds a second route.
    """

    destination: IPNetwork
    table: int = MAIN_TABLE
    metric: int = 0
    tos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHop:
    """Where a packet goes next: through `device` (an index), to `gateway` if there is one."""

    device: int | None = None
    gateway: IPAddress | None = None
    onlink: bool = False
    """The gateway is taken as reachable on that device though no address there covers it."""
    weight: int = 1
    """1 … 256, the hash share among several next hops."""
    dead: bool = field(default=False, compare=False)
    """RTNH_F_DEAD: not used for forwarding (its device is down, or without carrier where
    ignore_routes_with_linkdown is set). The kernel's remark, no part of what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of a FIB."""

    key: RouteKey
    kind: RouteKind = RouteKind.UNICAST
    protocol: int = PROTOCOL_PODWIRE
    scope: int = SCOPE_GLOBAL
    hops: tuple[NextHop, ...] = ()
    source: IPAddress | None = None
    """RTA_PREFSRC: the address a locally made packet gets."""
    mtu: int | None = None
    nexthop_id: int | None = None
    """RTA_NH_ID: the hops live in a nexthop object."""
    not_modelled: frozenset[str] = frozenset()
    """Names of attributes seen that we do not model (encap …)."""


IPV6_DEFAULT_METRIC = 1024
"""IP6_RT_PRIO_USER: what the kernel writes for an IPv6 route without a metric."""
_WITHOUT_HOPS = frozenset(
    {RouteKind.BLACKHOLE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT, RouteKind.THROW}
)


def normal(route: Route) -> Route:
    """The form in which the kernel lists the route once it is written.

    Desired routes are compared in this form: an IPv6 route has a metric of at least 1 and scope 0,
    one that discards packets has no next hop, a single next hop has weight 1.
    """
    key, scope, hops = route.key, route.scope, route.hops
    if key.destination.version == 6:
        scope = SCOPE_GLOBAL
        if key.metric == 0:
            key = replace(key, metric=IPV6_DEFAULT_METRIC)
    if route.kind in _WITHOUT_HOPS:
        hops = ()
    elif len(hops) == 1 and hops[0].weight != 1:
        hops = (replace(hops[0], weight=1),)
    return replace(route, key=key, scope=scope, hops=hops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy rule (`ip rule`), evaluated in order of priority."""

    family: int
    """4 or 6."""
    priority: int
    action: str = "lookup"
    """lookup, goto, nop, blackhole, unreachable, prohibit."""
    table: int = 0
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    iif: str | None = None
    oif: str | None = None
    mark: int | None = None
    mark_mask: int | None = None
    tos: int = 0
    invert: bool = False
    suppress_prefix_length: int | None = None
    target: int | None = None
    """Priority a `goto` continues at."""
    ip_protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    """First and last."""
    destination_ports: tuple[int, int] | None = None
    protocol: int = PROTOCOL_PODWIRE
    """Who added it, as for a route."""
    not_modelled: frozenset[str] = frozenset()
