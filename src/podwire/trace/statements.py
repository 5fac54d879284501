"""Statements of nftables rules: which are known, and which a rule uses beyond them."""

from __future__ import annotations

from typing import Any

from podwire.trace.rulenames import BY_KIND
from podwire.trace.translation import KINDS

JSON = dict[str, Any]
HARMLESS = frozenset(
    {"counter", "log", "comment", "last", "ct helper", "ct timeout", "secmark", "set"}
)
"""Statements that neither end a rule's chain nor change the packet's way."""
THROTTLES = frozenset({"limit", "quota", "meter", "ct count"})
"""Statements that fit now and then."""
VERDICTS = frozenset({"accept", "drop", "reject", "return", "continue", "jump", "goto"})
OTHERS = frozenset({"match", "either", "vmap", "mangle", "notrack", "chance"}) | KINDS


def statements(rule: JSON) -> list[tuple[str, Any]]:
    """Name and value of each statement; a counter's numbers are no part of it."""
    found: list[tuple[str, Any]] = []
    for statement in rule.get("expr", []):
        if isinstance(statement, dict):
            found += statement.items()
        elif isinstance(statement, str):
            found.append((statement, None))
    return found


def is_condition(kind: str, value: Any) -> bool:
    """Whether a statement only decides if the rule goes on."""
    if kind == "xt":
        # What iptables-save said and nobody here knows; nft's own listing does not even say that.
        return isinstance(value, dict) and "match" in value
    return kind in THROTTLES or kind in {"match", "either", "chance"}


RESET = "reset"
"""A TCP reset."""
_BOTH = {
    "no-route": ("3/0", "1/0"),
    "port-unreachable": ("3/3", "1/4"),
    "host-unreachable": ("3/1", "1/3"),
    "admin-prohibited": ("3/13", "1/1"),
}
"""What `icmpx` means in each family (nft_reject_icmp_code, nft_reject_icmpv6_code)."""


def refusal(value: Any, version: int) -> str | None:
    """What `reject` answers: `3/3`, or RESET; None when its words are not known."""
    said = value if isinstance(value, dict) else {}
    kind, name = said.get("type"), str(said.get("expr", "port-unreachable"))
    if kind == "tcp reset":
        return RESET
    if kind is None:
        # iptables says `icmp-port-unreachable`, and one family is all its table has.
        kind = "icmp" if version == 4 else "icmpv6"
        name = name.removeprefix("icmp-").removeprefix("icmp6-")
        name = name.replace("proto-", "prot-")
    if kind == "icmpx" or name in _BOTH:
        return _BOTH.get(name, (None, None))[version == 6]
    code = BY_KIND[f"{kind} code"].get(name) if f"{kind} code" in BY_KIND else None
    if code is None:
        return None
    return f"{3 if version == 4 else 1}/{code}"
