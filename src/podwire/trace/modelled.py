"""Modelled: what of a rule the model cannot judge, told without a packet.

A limit is modelled although its outcome may stay open: it is tried both ways.
"""

from __future__ import annotations

from typing import Any

from podwire.trace.expressions import BITS, CHANCES
from podwire.trace.statements import HARMLESS, OTHERS, THROTTLES, VERDICTS, statements

JSON = dict[str, Any]
META = frozenset(
    {"iifname", "iif", "oifname", "oif", "mark", "l4proto", "nfproto", "protocol", "length",
     "pkttype", "ibrname",
     "obrname", "iiftype", "oiftype", "skuid", "skgid", "cgroup", "ipsec", "secpath"}
)  # fmt: skip
CONNECTION = frozenset(
    {"state", "status", "direction", "mark", "zone", "l3proto", "protocol", "ip saddr", "ip daddr",
     "ip6 saddr", "ip6 daddr", "saddr", "daddr", "proto-src", "proto-dst"}
)  # fmt: skip
HEADERS = frozenset({"ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6"})
BELOW_IP = frozenset({"ether", "arp", "vlan"})
"""Headers that only rules of the families bridge, netdev and arp can be judged by."""
FAMILIES_BELOW_IP = frozenset({"bridge", "netdev", "arp"})
MARKS = ({"meta": {"key": "mark"}}, {"ct": {"key": "mark"}})


def unmodelled(rule: JSON) -> set[str]:
    """Names of what a rule uses beyond the model; empty when it is covered."""
    found: set[str] = set()
    headers = HEADERS | BELOW_IP if rule.get("family") in FAMILIES_BELOW_IP else HEADERS
    for kind, value in statements(rule):
        if kind == "xt":
            found.add(_foreign(value))
        elif kind == "match":
            found |= _expression(value.get("left"), headers)
        elif kind == "either":
            found |= set().union(
                *(_expression(each["match"].get("left"), headers) for each in value)
            )
        elif kind == "vmap":
            found |= _expression(value.get("key"), headers)
        elif kind == "mangle":
            key = value.get("key", {})
            if key not in MARKS and "tcp option" not in key:
                found.add(f"changes {next(iter(key), '?')}")
        elif kind not in HARMLESS | THROTTLES | VERDICTS | OTHERS:
            found.add(kind)
    return found


def _foreign(value: Any) -> str:
    told = value.get("match") or value.get("target") or value.get("name", "extension")
    return " ".join(str(told).split()[:2])


def _expression(expression: Any, headers: frozenset[str]) -> set[str]:
    if not isinstance(expression, dict):
        return set()
    word, inner = next(iter(expression.items()))
    if word == "meta":
        return set() if inner.get("key") in META else {f"meta {inner.get('key')}"}
    if word == "ct":
        return set() if inner.get("key") in CONNECTION else {f"ct {inner.get('key')}"}
    if word == "payload":
        known = inner.get("protocol") in headers
        return set() if known else {f"{inner.get('protocol', 'raw payload')}"}
    if word == "concat" or word in BITS:
        return set().union(*(_expression(part, headers) for part in inner))
    return set() if word == "fib" or word in CHANCES else {word}
