"""RIB beside FIB: of each destination what BIRD knows, what the kernel does, why they differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

from podwire.bgp.state import Target
from podwire.model.addressing import contains
from podwire.model.route import PROTOCOL_BIRD, PROTOCOL_PODWIRE, RouteKind
from podwire.trace.fib import protocol_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from podwire.bgp.state import Protocol, RibRoute
    from podwire.bgp.told import Told
    from podwire.desired.bgp import BirdPeer
    from podwire.model.addressing import IPNetwork
    from podwire.model.link import Link
    from podwire.model.route import NextHop, Route

Exports: TypeAlias = "Mapping[str, frozenset[IPNetwork]]"
"""By session: what BIRD announces there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything one node's BIRD and kernel say of routes."""

    routes: Sequence[RibRoute]
    filtered: Sequence[RibRoute]
    """What import filters refused."""
    exports: Exports
    """Of the sessions that are established."""
    fib: Sequence[Route]
    links: Mapping[int, Link]
    recovering: bool = False
    """BIRD was started a moment ago and writes nothing yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A route that did not get somewhere, and why."""

    peer: str
    """Address of the peer; of the kernel: `kernel`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RibLine:
    """One destination."""

    network: IPNetwork
    origins: tuple[str, ...]
    """Who told of it, the best first: a peer's address, or `this node`."""
    next_hop: str
    """Of the best, in the words of `ip route`."""
    kernel: tuple[str, ...]
    """The kernel's routes to it, in those words."""
    announced: tuple[str, ...]
    """Peers that are told of it."""
    refused: tuple[Refusal, ...]


def compare(seen: Seen, told: Told, sessions: Mapping[str, Protocol]) -> tuple[RibLine, ...]:
    """All destinations by BGP or of this node's own, in their order."""
    peers = {peer.protocol: peer for peer in told.peers}
    table: dict[IPNetwork, list[RibRoute]] = {}
    for route in seen.routes:
        if _counts(route, peers):
            table.setdefault(route.network, []).append(route)
    for route in seen.filtered:
        table.setdefault(route.network, [])
    return tuple(
        _line(network, sorted(table[network], key=lambda one: not one.best), seen, peers, sessions)
        for network in sorted(table, key=lambda one: (one.version, one))
    )


def inside(lines: Iterable[RibLine], network: IPNetwork) -> tuple[RibLine, ...]:
    """Those that lie in a network, or cover it."""
    return tuple(
        line
        for line in lines
        if contains(network, line.network.network_address)
        or contains(line.network, network.network_address)
    )


def _counts(route: RibRoute, peers: Mapping[str, BirdPeer]) -> bool:
    """Routes by BGP and blocks of ours; not the host's other routes, which BIRD only learns."""
    return route.protocol in peers or _is_own(route)


def _is_own(route: RibRoute) -> bool:
    by_agent = route.attributes.get("Kernel.source") == str(PROTOCOL_PODWIRE)
    return by_agent and route.target is Target.BLACKHOLE


def _line(
    network: IPNetwork,
    routes: Sequence[RibRoute],
    seen: Seen,
    peers: Mapping[str, BirdPeer],
    sessions: Mapping[str, Protocol],
) -> RibLine:
    kernel = [route for route in seen.fib if route.key.destination == network]
    refused = [
        Refusal(peer=_address(route, peers), reason=_why_filtered(route, peers))
        for route in seen.filtered
        if route.network == network
    ]
    best = routes[0] if routes else None
    if best is not None and (why := _why_not_written(best, kernel, seen)) is not None:
        refused.append(Refusal(peer="kernel", reason=why))
    if best is not None and _is_own(best):
        refused += _untold(network, seen.exports, peers, sessions)
    return RibLine(
        network=network,
        origins=tuple(_origin(route, peers) for route in routes),
        next_hop="" if best is None else _hops_of(best),
        kernel=tuple(_words(route, seen.links) for route in kernel),
        announced=tuple(
            sorted(
                str(peers[name].address)
                for name, networks in seen.exports.items()
                if network in networks and name in peers
            )
        ),
        refused=tuple(refused),
    )


def _origin(route: RibRoute, peers: Mapping[str, BirdPeer]) -> str:
    return "this node" if _is_own(route) else _address(route, peers)


def _address(route: RibRoute, peers: Mapping[str, BirdPeer]) -> str:
    peer = peers.get(route.protocol)
    return route.protocol if peer is None else str(peer.address)


def _why_filtered(route: RibRoute, peers: Mapping[str, BirdPeer]) -> str:
    peer = peers.get(route.protocol)
    hop = route.attributes.get("BGP.next_hop", "")
    if peer is not None and peer.source is not None and hop == str(peer.source):
        return "not imported: it is our own, come back"
    if peer is not None and peer.filters:
        return f"not imported: a rule of BGPFilter {', '.join(peer.filters)} rejects it"
    return "not imported: the import filter rejects it"


def _why_not_written(best: RibRoute, kernel: Sequence[Route], seen: Seen) -> str | None:
    """Why the kernel does not hold BIRD's best route to a destination; None when it does."""
    if _is_own(best) or any(route.protocol == PROTOCOL_BIRD for route in kernel):
        return None
    if not best.resolvable or best.target is Target.UNREACHABLE:
        hop = best.attributes.get("BGP.next_hop", "unknown")
        return f"not written: no route of this node leads to its next hop {hop}"
    if best.refused:
        return "not written: the kernel refuses it (see BIRD's log)"
    if any(route.protocol == PROTOCOL_PODWIRE for route in kernel):
        return "not written: the agent writes the routes of this pool"
    if kernel:
        return f"not written: {protocol_name(kernel[0].protocol)} holds this destination"
    if seen.recovering:
        return "not written: BIRD was started just now and waits for all its peers"
    return "not written: the filter to the kernel rejects it, or BIRD is about to write it"


def _untold(
    network: IPNetwork,
    exports: Exports,
    peers: Mapping[str, BirdPeer],
    sessions: Mapping[str, Protocol],
) -> Iterator[Refusal]:
    """Peers that are not told of a block of ours."""
    for name, peer in peers.items():
        protocol = sessions.get(name)
        if network in exports.get(name, ()):
            continue
        if protocol is None or not protocol.established:
            why = "not announced: the session is down (podwire node status)"
        elif peer.filters:
            why = f"not announced: a rule of BGPFilter {', '.join(peer.filters)}, or the pool's"
            why += " disableBGPExport, rejects it"
        else:
            why = "not announced: its pool has disableBGPExport, or it is in no pool"
        yield Refusal(peer=str(peer.address), reason=why)


def _hops_of(route: RibRoute) -> str:
    if not route.hops:
        return route.target.value
    return ", ".join(
        " ".join(
            [
                *(["via", str(hop.gateway)] if hop.gateway else []),
                *("dev", hop.device),
                *(["onlink"] if hop.onlink else []),
            ]
        )
        for hop in route.hops
    )


def _words(route: Route, links: Mapping[int, Link]) -> str:
    words = [] if route.kind is RouteKind.UNICAST else [route.kind.name.lower()]
    words += [" ".join(_hop_words(hop, links)) for hop in route.hops]
    words += ["proto", protocol_name(route.protocol)]
    if route.key.metric:
        words += ["metric", str(route.key.metric)]
    if any(hop.onlink for hop in route.hops):
        words.append("onlink")
    return " ".join(word for word in words if word)


def _hop_words(hop: NextHop, links: Mapping[int, Link]) -> Iterator[str]:
    if hop.gateway is not None:
        yield f"via {hop.gateway}"
    if hop.device is not None:
        link = links.get(hop.device)
        yield f"dev {link.name if link else hop.device}"


def by_reason(line: RibLine) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The refusals of one destination, those with one reason together."""
    ordered = sorted(line.refused, key=lambda one: one.reason)
    for reason, group in groupby(ordered, key=lambda one: one.reason):
        yield reason, tuple(one.peer for one in group)
