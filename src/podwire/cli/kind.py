"""What the command line knows of one kind of resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.boundary import Entry
    from podwire.model.resource import JSON, Stored, Wire

Cells: TypeAlias = "Mapping[str, Callable[[Any], object]]"
"""Column header → what to show of a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of resource."""

    name: str
    aliases: tuple[str, ...]
    """Lower case, the plural first."""
    prefix: str
    key: Callable[[str, str], str]
    """Namespace and name → datastore key."""
    cells: Cells
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    namespaced: bool = False
    read_only: str | None = None
    """Who writes it, where people do not."""
    kept: bool = False
    """Podwire keeps it for others and does not act on it."""
    owns: Callable[[str], bool] | None = None
    """Which keys below the prefix are the kind's; None: all."""
    resource: Callable[[str, Wire], dict[str, JSON]] | None = None
    """Key and stored object → v3 resource, where something else is stored than what is shown."""
    order: Callable[[Any], Any] | None = None
    """By what the table is sorted; None: by key."""

    def header(self, *, wide: bool, namespaces: bool = False) -> tuple[str, ...]:
        """The table's columns."""
        shown = self.wide if wide else self.columns
        return ("NAMESPACE", *shown) if self.namespaced and namespaces else shown

    def row(self, value: Stored, header: Sequence[str]) -> list[object]:
        """One line of the table."""
        return [self.cells[column](value) for column in header]

    def shown(self, key: str, wire: Wire) -> dict[str, JSON]:
        """The stored object as a v3 resource."""
        return dict(wire) if self.resource is None else self.resource(key, wire)

    def wire(self, entry: Entry) -> dict[str, JSON]:
        """The object as JSON, with the revision where Calico's tools look for it."""
        wire = self.shown(entry.key, entry.value)
        wire["metadata"] = {**(wire.get("metadata") or {}), "resourceVersion": entry.revision}
        return wire


def joined(items: object) -> str:
    """A list in one cell; a mapping as sorted `key=value`."""
    if isinstance(items, Mapping):
        return ",".join(sorted(f"{key}={value}" for key, value in items.items()))
    if isinstance(items, tuple | list):
        return ",".join(str(item) for item in items)
    return "" if items is None else str(items)
