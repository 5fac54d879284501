"""One line about a kernel record, in the words of `ip`, for error messages. Pure."""

from __future__ import annotations

from podwire.model.link import Address
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import MAIN_TABLE, NextHop, Route, RouteKind, Rule


def describe(about: object) -> str:
    """Say which object a request is about; anything that is no record is shown as text."""
    match about:
        case Route():
            return _route(about)
        case Address():
            return f"address {about.interface} dev #{about.device}"
        case Neighbour():
            proxy = "proxy " if about.proxy else ""
            mac = f" lladdr {about.mac}" if about.mac else ""
            return f"neighbour {proxy}{about.address}{mac} dev #{about.device}"
        case FDBEntry():
            behind = f" dst {about.destination}" if about.destination else ""
            return f"forwarding entry {about.mac}{behind} dev #{about.device}"
        case Rule():
            return _rule(about)
        case _:
            return str(about)


def _route(route: Route) -> str:
    key = route.key
    words = ["route"]
    if route.kind is not RouteKind.UNICAST:
        words.append(route.kind.name.lower())
    words.append("default" if key.destination.prefixlen == 0 else str(key.destination))
    words.extend(_hop(hop) for hop in route.hops)
    if key.table != MAIN_TABLE:
        words.append(f"table {key.table}")
    if key.metric:
        words.append(f"metric {key.metric}")
    return " ".join(words)


def _hop(hop: NextHop) -> str:
    via = f"via {hop.gateway} " if hop.gateway else ""
    dev = f"dev #{hop.device}" if hop.device else ""
    return (via + dev + (" onlink" if hop.onlink else "")).strip()


def _rule(rule: Rule) -> str:
    words = [f"rule {rule.priority}:", f"from {rule.source or 'all'}"]
    if rule.destination:
        words.append(f"to {rule.destination}")
    words.append(f"lookup {rule.table}" if rule.action == "lookup" else rule.action)
    return " ".join(words)
