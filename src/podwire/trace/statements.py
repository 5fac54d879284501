"""Statements of nftables rules: which are known, and which a rule uses beyond them."""

from __future__ import annotations

from typing import Any

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
