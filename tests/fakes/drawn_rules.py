"""Rules of nftables as its JSON has them, for networks drawn by hand."""

from __future__ import annotations

Rule = list[dict[str, object]]
DROP: dict[str, object] = {"drop": None}


def chain(
    hook: str, *rules: Rule, kind: str = "filter", prio: int = 0, policy: str = "accept"
) -> list[dict[str, object]]:
    """A base chain `c` in a table called as its hook."""
    base = {"family": "ip", "table": hook, "name": "c", "type": kind, "hook": hook, "prio": prio,
            "policy": policy}  # fmt: skip
    found: list[dict[str, object]] = [{"chain": base}]
    for handle, rule in enumerate(rules, start=2):
        found.append({"rule": {"family": "ip", "table": hook, "chain": "c", "handle": handle,
                               "expr": rule}})  # fmt: skip
    return found


def state(name: str) -> dict[str, object]:
    """`ct state NAME`."""
    left = {"ct": {"key": "state"}}
    return {"match": {"op": "in", "left": left, "right": {"set": [name]}}}


def icmp_type(name: str) -> dict[str, object]:
    """`icmp type NAME`."""
    left = {"payload": {"protocol": "icmp", "field": "type"}}
    return {"match": {"op": "==", "left": left, "right": name}}
