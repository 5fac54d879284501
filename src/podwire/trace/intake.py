"""Intake: what the kernel decides about a packet that came in, up to its route.

Follows ip_route_input_slow, fib_validate_source and ip_error of net/ipv4/{route,fib_frontend}.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from podwire.model.route import RouteKind
from podwire.trace import fib
from podwire.trace.fib import Decision, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.link import Address, Link
    from podwire.trace.flow import Packet
    from podwire.trace.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The kernel drops the packet here."""

    code: str
    """forwarding-off, no-route, blackhole, unreachable, prohibit, rpf, own-source, martian."""
    icmp: str | None = None
    """Type/code of the error sent back; None: silent."""
    decision: Decision | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def route_input(
    space: Space,
    link: Link,
    source: IPAddress,
    destination: IPAddress,
    packet: Packet | None = None,
) -> Decision | Refusal:
    """The route of a packet that came in by `link`, or why there is none.

    `packet` adds what rules look at besides the addresses: its mark and ports.

    Raises:
        Lacking: a table or switch that decides was not read.
    """
    if source.is_loopback or source.is_multicast or source.is_unspecified:
        return Refusal(code="martian", facts={"source": str(source)})
    query = input_query(link, source, destination, packet)
    if destination.version == 6:
        return _route_input6(space, query)
    local_only = destination.is_loopback and not link.loopback
    if local_only and not space.highest(link, "route_localnet", "0"):
        return Refusal(code="martian", facts={"destination": str(destination)})
    decision = fib.lookup(space, query)
    if decision.kind in {RouteKind.LOCAL, RouteKind.BROADCAST}:
        return validate_source(space, link, source, query) or decision
    # The switch of the link decides; writing ip_forward only sets it on all of them.
    if not space.switch(link, "forwarding"):
        return Refusal(code="forwarding-off", decision=decision, facts=_forwarding(space, link))
    refused = _refused(decision)
    if refused is not None:
        return refused
    out = fib.out_link(space, decision.hops[0])
    return validate_source(space, link, source, query, out.name) or decision


def input_query(
    link: Link, source: IPAddress, destination: IPAddress, packet: Packet | None
) -> Query:
    """What the FIB is asked for a packet that came in by `link`."""
    query = Query(destination=destination, source=source, iif=link.name)
    return query if packet is None else fib.with_packet(query, packet)


def _route_input6(space: Space, query: Query) -> Decision | Refusal:
    """IPv6 has no source validation, and one switch for the whole namespace (ip6_forward)."""
    decision = fib.lookup(space, query)
    if decision.kind in {RouteKind.LOCAL, RouteKind.ANYCAST}:
        return decision
    refused = _refused(decision)
    if refused is not None:
        codes = {"no-route": "1/0", "blackhole": None, "unreachable": "1/3", "prohibit": "1/1"}
        return replace(refused, icmp=codes.get(refused.code))
    if not space.switch_all("forwarding", version=6):
        facts = {"net.ipv6.conf.all.forwarding": "0"}
        return Refusal(code="forwarding-off", decision=decision, facts=facts)
    return decision


def _forwarding(space: Space, link: Link) -> Mapping[str, str]:
    return {
        "net.ipv4.ip_forward": space.sysctl("ipv4.ip_forward"),
        f"net.ipv4.conf.{link.name}.forwarding": "0",
    }


_REFUSED = {
    None: ("no-route", "3/0"),
    RouteKind.BLACKHOLE: ("blackhole", None),
    RouteKind.UNREACHABLE: ("unreachable", "3/1"),
    RouteKind.PROHIBIT: ("prohibit", "3/13"),
}


def _refused(decision: Decision) -> Refusal | None:
    if decision.kind is RouteKind.UNICAST:
        return None
    code, icmp = _REFUSED.get(decision.kind, ("martian", None))
    return Refusal(code=code, icmp=icmp, decision=decision)


def validate_source(
    space: Space, link: Link, source: IPAddress, query: Query, out: str = fib.LOOPBACK
) -> Refusal | None:
    """Source validation (rp_filter); None when the packet passes.

    `query` is the packet's own lookup, `out` the link it would leave by.
    """
    strictness = space.highest(link, "rp_filter")
    if strictness == 0 and space.has_default_rules_only(4):
        # Without rules the kernel only asks whether somebody else uses an address of mine.
        if space.link_with(source) is None or space.switch(link, "accept_local", "0"):
            return None
        return Refusal(code="own-source", facts={"source": str(source)})
    # The way back is asked as if the answer came in where the packet would go out.
    mark = query.mark if space.switch(link, "src_valid_mark", "0") else 0
    back = fib.lookup(
        space, Query(destination=source, source=query.destination, iif=out, mark=mark)
    )
    if back.kind is RouteKind.LOCAL:
        if space.highest(link, "accept_local", "0"):
            return None
        return Refusal(code="own-source", facts={"source": str(source)})
    if back.kind is RouteKind.UNICAST:
        if back.route is not None and any(hop.device == link.index for hop in back.route.hops):
            return None
        if strictness == 2 and space.addresses_of(link):
            # Loose: any route by this link will do, and if there is none, any route at all.
            return None
    elif back.kind not in {None, *fib.END_OF_LOOKUP}:
        return Refusal(code="own-source", facts={"source": str(source)})
    if strictness == 0:
        return None
    return Refusal(code="rpf", decision=back, facts=_rpf_facts(space, link, back))


def _rpf_facts(space: Space, link: Link, back: Decision) -> Mapping[str, str]:
    route = "none" if back.route is None else fib.describe(space, back.route)
    return {
        "net.ipv4.conf.all.rp_filter": space.sysctl("ipv4.conf/all/rp_filter"),
        f"net.ipv4.conf.{link.name}.rp_filter": str(space.switch(link, "rp_filter")),
        "route back": route,
    }


def select_source(
    space: Space, decision: Decision, destination: IPAddress | None = None
) -> IPAddress | None:
    """The source address of a packet made here that follows `decision` (fib_result_prefsrc).

    IPv6 also compares candidates with the destination (ipv6_dev_get_saddr).
    """
    if decision.route is None or not decision.hops:
        return None
    if decision.route.source is not None:
        return decision.route.source
    hop = decision.hops[0]
    if decision.kind is RouteKind.LOCAL:
        return decision.route.key.destination.network_address
    link = fib.out_link(space, hop)
    if destination is not None and destination.version == 6:
        return _address6_for(space, link, destination)
    return address_for(space, link, hop.gateway, decision.route.scope)


def address_for(
    space: Space, link: Link, towards: IPAddress | None, scope: int
) -> IPAddress | None:
    """The address a namespace shows on `link` (inet_select_addr); borrowed from others if bare."""
    if towards is not None and towards.version == 6:
        return _address6_for(space, link, towards)
    usable = [each for each in space.addresses_of(link) if each.scope <= scope]
    for address in usable:
        if towards is None or towards in address.interface.network:
            return address.interface.ip
    if usable:
        return usable[0].interface.ip
    for index in sorted(space.links):
        for address in space.addresses_of(space.links[index]):
            if address.scope != 253 and address.scope <= scope:
                return address.interface.ip
    return None


def _address6_for(space: Space, link: Link, towards: IPAddress) -> IPAddress | None:
    """RFC 6724 as far as it decides here: scope, then the outgoing link, then the prefix."""

    def rank(address: Address) -> tuple[bool, bool, int]:
        own = address.interface.ip
        differing = (int(own) ^ int(towards)).bit_length()
        return (own == towards, address.device == link.index, -differing)

    local = towards.is_link_local
    candidates = [
        address
        for index in space.links
        for address in space.addresses_of(space.links[index], 6)
        if not address.tentative
        and address.interface.ip.is_link_local == local
        and not address.interface.ip.is_loopback
        and (not local or index == link.index)
    ]
    best = max(candidates, key=rank, default=None)
    return None if best is None else best.interface.ip
