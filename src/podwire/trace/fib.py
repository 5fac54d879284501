"""The FIB: rules → tables → longest prefix → metric, as net/ipv4/fib_{rules,trie}.c do it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.model.addressing import contains
from podwire.model.route import (
    DEFAULT_TABLE,
    LOCAL_TABLE,
    MAIN_TABLE,
    PROTOCOL_BOOT,
    RouteKind,
    Rule,
)
from podwire.trace.flow import ICMP6, PROTOCOL_NUMBERS, Protocol
from podwire.trace.space import MERGED, Lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.link import Link
    from podwire.model.route import NextHop, Route
    from podwire.trace.flow import Packet
    from podwire.trace.space import Space

LOOPBACK = "lo"
REFUSALS = {
    "blackhole": RouteKind.BLACKHOLE,
    "unreachable": RouteKind.UNREACHABLE,
    "prohibit": RouteKind.PROHIBIT,
}
"""Actions of a rule that end the lookup."""
WITHOUT_RULES = (Rule(family=6, priority=0, table=255), Rule(family=6, priority=32766, table=254))
"""What a kernel without policy routing does for IPv6."""
END_OF_LOOKUP = frozenset(REFUSALS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question to the FIB."""

    destination: IPAddress
    source: IPAddress | None = None
    iif: str = LOOPBACK
    """Link the packet came in by; the loopback for packets made here."""
    oif: int | None = None
    """Only routes by this link count."""
    mark: int = 0
    tos: int = 0
    protocol: int | None = None
    """IANA number; with the ports for rules that look at them."""
    source_port: int | None = None
    destination_port: int | None = None


def with_packet(query: Query, packet: Packet) -> Query:
    """The question with what rules may look at besides the addresses."""
    number = PROTOCOL_NUMBERS[packet.protocol]
    if packet.protocol is Protocol.ICMP and packet.source.version == 6:
        number = ICMP6
    return replace(
        query,
        mark=packet.mark,
        protocol=number,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the FIB says."""

    kind: RouteKind | None
    """None: no rule and no table has an answer (ENETUNREACH)."""
    route: Route | None = None
    rule: Rule | None = None
    """None: the default rules, whose local and main tables are searched as one."""
    hops: tuple[NextHop, ...] = ()
    """The usable next hops; several with multipath."""


def lookup(space: Space, query: Query) -> Decision:
    """Ask the FIB of one namespace.

    Raises:
        Lacking: routes, rules, links or nexthop objects that decide were not read.
    """
    version = query.destination.version
    rules = [rule for rule in space.rules if rule.family == version]
    if version == 6 and not rules:
        rules = list(WITHOUT_RULES)
    if version == 4 and space.has_default_rules_only(version):
        for table in (MERGED, DEFAULT_TABLE):
            decision = _search(space, table, query)
            if decision is not None:
                return decision
        return Decision(kind=None)
    return _by_rules(space, rules, query)


def _by_rules(space: Space, rules: list[Rule], query: Query) -> Decision:
    resume_at = 0
    for rule in rules:
        if rule.priority < resume_at or not rule_matches(space, rule, query):
            continue
        if rule.action == "goto":
            resume_at = rule.target or 0
            continue
        if rule.action in REFUSALS:
            return Decision(kind=REFUSALS[rule.action], rule=rule)
        if rule.action != "lookup":
            continue
        decision = _search(space, rule.table, query)
        if decision is not None and not _suppressed(rule, decision):
            return Decision(kind=decision.kind, route=decision.route, rule=rule, hops=decision.hops)
    return Decision(kind=None)


def _suppressed(rule: Rule, decision: Decision) -> bool:
    """`suppress_prefixlength N`: an answer no longer than N counts as none."""
    if rule.suppress_prefix_length is None or decision.route is None:
        return False
    # An error route has no fib_info to compare; fib4_rule_suppress never sees it.
    if decision.kind in END_OF_LOOKUP:
        return False
    return decision.route.key.destination.prefixlen <= rule.suppress_prefix_length


def rule_matches(space: Space, rule: Rule, query: Query) -> bool:
    """Whether the rule applies.

    Raises:
        Lacking: the rule has a selector that is not modelled, and nothing else excludes it.
    """
    matches = (
        (rule.iif is None or rule.iif == query.iif)
        and (rule.oif is None or rule.oif == _name(space, query.oif))
        and _covers(rule.destination, query.destination)
        and _covers(rule.source, query.source)
        and _mark_matches(rule, query.mark)
        and rule.tos in {0, query.tos}
        and rule.ip_protocol in {None, query.protocol}
        and _port_matches(rule.source_ports, query.source_port)
        and _port_matches(rule.destination_ports, query.destination_port)
    )
    if rule.not_modelled and (matches or rule.invert):
        what = ", ".join(sorted(rule.not_modelled))
        raise Lacking(f"ip rule {rule.priority} of {space.title}", f"{what} is not modelled")
    return matches is not rule.invert


def _covers(network: IPNetwork | None, address: IPAddress | None) -> bool:
    if network is None:
        return True
    if address is None:
        return network.prefixlen == 0
    return contains(network, address)


def _mark_matches(rule: Rule, mark: int) -> bool:
    if rule.mark is None:
        return True
    mask = 0xFFFFFFFF if rule.mark_mask is None else rule.mark_mask
    return (mark ^ rule.mark) & mask == 0


def _port_matches(wanted: tuple[int, int] | None, port: int | None) -> bool:
    return wanted is None or (port is not None and wanted[0] <= port <= wanted[1])


def _name(space: Space, index: int | None) -> str | None:
    return None if index is None or index not in space.links else space.links[index].name


def _search(space: Space, table: int, query: Query) -> Decision | None:
    """The best route of one table; None when it has none, or says *throw*."""
    for route in _covering(space, table, query.destination):
        if route.key.tos not in {0, query.tos}:
            continue
        if route.kind is RouteKind.THROW:
            return None
        if route.kind in END_OF_LOOKUP:
            return Decision(kind=route.kind, route=route)
        hops = usable_hops(space, route, query.oif)
        if hops:
            return Decision(kind=route.kind, route=route, hops=hops)
    return None


def _covering(space: Space, table: int, destination: IPAddress) -> Iterator[Route]:
    """Routes that cover the address, longest prefix first, then in the kernel's order."""
    networks = space.tables.get((destination.version, table), {})
    number, bits = int(destination), destination.max_prefixlen
    for length in sorted(networks, reverse=True):
        masked = number >> (bits - length) << (bits - length) if length else 0
        yield from networks[length].get(masked, ())


def usable_hops(space: Space, route: Route, oif: int | None = None) -> tuple[NextHop, ...]:
    """The next hops the kernel would take, in order.

    Raises:
        Lacking: the route's next hops live in a nexthop object that was not read.
    """
    if not route.hops and route.nexthop_id is not None:
        raise Lacking(
            f"nexthop {route.nexthop_id} of {space.title}",
            f"route {route.key.destination} points to a nexthop object, and it was not read",
        )
    version = route.key.destination.version
    # An address is the namespace's own, whatever becomes of its link (fib_sync_down_dev).
    own = route.kind is RouteKind.LOCAL and version == 4
    return tuple(
        hop
        for hop in route.hops
        if (own or _is_usable(space, hop, version)) and oif in {None, hop.device}
    )


def _is_usable(space: Space, hop: NextHop, version: int) -> bool:
    link = None if hop.device is None else space.links.get(hop.device)
    if link is None:
        return not hop.dead
    if not link.up:
        return False
    # A link without carrier only marks its routes; they are used all the same unless told not to.
    name = "ignore_routes_with_linkdown"
    return link.carrier or not space.highest(link, name, "0", version=version)


def address_type(space: Space, address: IPAddress, link: str | None) -> int:
    """What an address is to this namespace, by table local alone (inet_dev_addr_type).

    With `link` only what lies on it counts. The number is that of RouteKind.
    """
    if address.is_multicast:
        return int(RouteKind.MULTICAST)
    if address.version == 4 and int(address) in {0, 0xFFFFFFFF}:
        return int(RouteKind.BROADCAST)
    for route in _covering(space, LOCAL_TABLE, address):
        hops = usable_hops(space, route)
        if hops and (link is None or _name(space, hops[0].device) == link):
            return int(route.kind)
        break
    return int(RouteKind.UNICAST)


def leaves_by(space: Space, query: Query, bound: str | None) -> str | None:
    """The link a packet would leave by; None without a route, or when it is not `bound`."""
    decision = lookup(space, query)
    if decision.kind is not RouteKind.UNICAST or not decision.hops:
        return None
    assert decision.route is not None
    if bound is None:
        return _name(space, decision.hops[0].device)
    names = {_name(space, hop.device) for hop in decision.route.hops}
    return bound if bound in names else None


def covering_routes(space: Space, destination: IPAddress, table: int = MAIN_TABLE) -> list[Route]:
    """All routes of one table that cover the address, the longest prefix first."""
    return list(_covering(space, table, destination))


def describe(space: Space, route: Route, hop: NextHop | None = None) -> str:
    """The route in the words of `ip route`."""
    words = [] if route.kind is RouteKind.UNICAST else [route.kind.name.lower()]
    destination = route.key.destination
    words.append("default" if destination.prefixlen == 0 else _short(str(destination)))
    chosen = hop if hop is not None else (route.hops[0] if len(route.hops) == 1 else None)
    if chosen is not None:
        if chosen.gateway is not None:
            words += ["via", str(chosen.gateway)]
        device = _name(space, chosen.device)
        if device is not None and route.kind not in END_OF_LOOKUP:
            words += ["dev", device]
    if route.protocol != PROTOCOL_BOOT:
        words += ["proto", protocol_name(route.protocol)]
    if chosen is not None and chosen.onlink:
        words.append("onlink")
    return " ".join(words)


def describe_rule(rule: Rule) -> str:
    """The rule in the words of `ip rule`, as far as they are common."""
    words = [f"{rule.priority}:"]
    if rule.invert:
        words.append("not")
    words += ["from", "all" if rule.source is None else _short(str(rule.source))]
    if rule.destination is not None:
        words += ["to", _short(str(rule.destination))]
    if rule.mark is not None:
        words += ["fwmark", hex(rule.mark)]
    for name, value in (("iif", rule.iif), ("oif", rule.oif)):
        if value is not None:
            words += [name, value]
    words.append(rule.action if rule.action != "lookup" else f"lookup {rule.table}")
    return " ".join(words)


def _short(text: str) -> str:
    return text.removesuffix("/32") if ":" not in text else text.removesuffix("/128")


PROTOCOL_NAMES = {2: "kernel", 3: "boot", 4: "static", 12: "bird", 16: "dhcp", 80: "podwire"}
"""RTPROT_*, and ours."""


def protocol_name(number: int) -> str:
    """`bird`, `kernel` …, or the number."""
    return PROTOCOL_NAMES.get(number, str(number))


def out_link(space: Space, hop: NextHop) -> Link:
    """The link of a next hop.

    Raises:
        Lacking: the link is not among those read.
    """
    link = None if hop.device is None else space.links.get(hop.device)
    if link is None:
        raise Lacking(f"link {hop.device} of {space.title}", "the route names it, links do not")
    return link
