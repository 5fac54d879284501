"""Which tables of nftables a namespace has, and how the program `nft` is asked for their rules.

A running `podwire trace --deep` has a table of its own in the namespaces it passes; that one
decides nothing and is left out. The others are asked for one by one then: nft 1.0.6 does not know
the flag of a table that a program owns, and its JSON of the whole rule set breaks off there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.drivers.netlink import nftables, wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TRACE = "podwire-trace-"
"""How the names of a trace's own tables begin."""
_OWNED = 0x2


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    family: str
    """ip, inet …"""
    name: str
    owned: bool = False
    """It belongs to a program's socket and ends with it."""

    @property
    def of_trace(self) -> bool:
        """Whether a trace made it, for the time of its probes."""
        return self.owned and self.name.startswith(TRACE)


def decode_table(data: bytes, start: int, end: int) -> Table:
    """One message about a table."""
    found = wire.attributes(data, start + nftables.HEAD.size, end)
    flags = int.from_bytes(found.get(2, b""), "big")
    family = nftables.FAMILIES.get(data[start], str(data[start]))
    return Table(family, wire.string(found.get(1, b"")), bool(flags & _OWNED))


def questions(tables: Iterable[Table]) -> tuple[tuple[str, ...], ...]:
    """What to call nft with, so that all tables but a trace's own are told."""
    tables = tuple(tables)
    if not any(each.owned for each in tables):
        return (("-j", "list", "ruleset"),) if tables else ()
    return tuple(
        ("-j", "list", "table", each.family, each.name) for each in tables if not each.of_trace
    )


def without_traces(
    entries: Iterable[Mapping[str, object]],
) -> tuple[Mapping[str, object], ...]:
    """The entries of a listing without those of a trace that began meanwhile."""
    return tuple(entry for entry in entries if not any(map(_of_trace, entry.items())))


def _of_trace(item: tuple[str, object]) -> bool:
    word, value = item
    if not isinstance(value, dict):
        return False
    name = value.get("name" if word == "table" else "table")
    return isinstance(name, str) and name.startswith(TRACE)
