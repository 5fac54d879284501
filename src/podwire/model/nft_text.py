"""What `nft list chains` says and `nft -j` does not: on which links a chain sits.

nft up to 1.0.6 leaves the devices out of its JSON (json.c, chain_print_json: they are taken from
what was typed, not from what the kernel told).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Entry = Mapping[str, object]

BESIDE_A_LINK = frozenset({"ingress", "egress"})
"""Hooks that belong to links, not to the namespace."""
_TABLE = re.compile(r"table (\S+) (\S+) \{")
_CHAIN = re.compile(r"\s+chain (\S+) \{")
_DEVICES = re.compile(r"hook (?:ingress|egress) devices? (?:= )?(\{[^}]*\}|\S+)")


def lacks_devices(entries: Iterable[Entry]) -> bool:
    """Whether a chain beside a link does not say which."""
    return any(_is_bare(entry.get("chain")) for entry in entries)


def _is_bare(chain: object) -> bool:
    return isinstance(chain, dict) and chain.get("hook") in BESIDE_A_LINK and "dev" not in chain


def with_devices(entries: Iterable[Entry], text: str) -> tuple[Entry, ...]:
    """The entries of `nft -j list ruleset` with the links that `nft list chains` tells."""
    told = _parse(text)
    found: list[Entry] = []
    for entry in entries:
        chain = entry.get("chain")
        if isinstance(chain, dict) and _is_bare(chain):
            devices = told.get((chain.get("family"), chain.get("table"), chain.get("name")))
            if devices is not None:
                found.append({**entry, "chain": {**chain, "dev": devices}})
                continue
        found.append(entry)
    return tuple(found)


def _parse(text: str) -> dict[tuple[object, ...], list[str]]:
    found: dict[tuple[object, ...], list[str]] = {}
    table: tuple[str, str] = ("", "")
    chain = ""
    for line in text.splitlines():
        if match := _TABLE.match(line):
            table = (match[1], match[2])
        elif match := _CHAIN.match(line):
            chain = match[1]
        elif match := _DEVICES.search(line):
            names = match[1].strip("{} ").split(",")
            found[*table, chain] = [name.strip().strip('"') for name in names if name.strip()]
    return found
