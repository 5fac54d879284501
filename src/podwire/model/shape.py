"""What a document a person wrote must look like; every fault is found, none raised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from podwire.errors import PodwireError
from podwire.model.nearest import suggestion
from podwire.model.wire import json_type

if TYPE_CHECKING:
    from podwire.model.resource import JSON

Path: TypeAlias = tuple[str | int, ...]
"""Field names and list positions from the document's top."""
Check: TypeAlias = Callable[[str], object]
"""Raises one of our errors when it does not like the text."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a document."""

    path: Path
    problem: str
    fix: str | None = None

    @property
    def where(self) -> str:
        """The path as people write it: `spec.allowedUses[1]`."""
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return text.removeprefix(".")

    def __str__(self) -> str:
        gap = "" if self.problem.startswith(":") else " "
        return f"{self.where}{gap}{self.problem}".lstrip(" :")


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    check: Check | None = None
    choices: tuple[str, ...] = ()
    empty: bool = True

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if not isinstance(value, str):
            fix = f'write "{json.dumps(value)}"' if isinstance(value, int | float) else None
            return [Fault(path, f"must be a string, not {json_type(value)}", fix)]
        if not value:
            return [] if self.empty else [Fault(path, "must not be empty")]
        if self.choices and value not in self.choices:
            return [Fault(path, f"{value!r} is unknown", _choose(value, self.choices))]
        if self.check is not None:
            try:
                self.check(value)
            except PodwireError as error:
                return [Fault(path, f": {error.message}", error.fix)]
        return []


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if not isinstance(value, int) or isinstance(value, bool):
            return [Fault(path, f"must be a whole number, not {json_type(value)}")]
        if not self.low <= value <= self.high:
            return [Fault(path, f"is {value}", f"choose {self.low} to {self.high}")]
        return []


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if isinstance(value, bool):
            return []
        return [Fault(path, f"must be true or false, not {json_type(value)}")]


@dataclass(frozen=True, slots=True)
class Anything:
    """A field that is kept as it is."""

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """Nothing is wrong."""
        return []


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of several shapes; the first one's faults are told."""

    shapes: tuple[Shape, ...]

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        all_faults = [shape.faults(value, path) for shape in self.shapes]
        return all_faults[0] if all(all_faults) else []


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape."""

    item: Shape

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if not isinstance(value, list):
            return [Fault(path, f"must be a list, not {json_type(value)}")]
        return [
            fault
            for position, item in enumerate(value)
            for fault in self.item.faults(item, (*path, position))
        ]


@dataclass(frozen=True, slots=True)
class MapOf:
    """Free names, values of one shape."""

    value: Shape

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if not isinstance(value, dict):
            return [Fault(path, f"must be a mapping, not {json_type(value)}")]
        return [
            fault
            for name, item in value.items()
            for fault in self.value.faults(item, (*path, name))
        ]


@dataclass(frozen=True, slots=True)
class Object:
    """Fields with names; a null field counts as absent."""

    fields: Mapping[str, Shape]
    needed: tuple[str, ...] = ()
    kept: frozenset[str] = field(default_factory=frozenset)
    """Fields the agents write: an apply that does not mention them leaves them as they are."""

    def faults(self, value: JSON, path: Path) -> list[Fault]:
        """What is wrong with the value."""
        if not isinstance(value, dict):
            return [Fault(path, f"must be a mapping of fields, not {json_type(value)}")]
        found = [
            Fault((*path, name), "is missing") for name in self.needed if value.get(name) is None
        ]
        for name, item in value.items():
            shape = self.fields.get(name)
            if shape is None:
                fix = _choose(name, tuple(self.fields))
                found.append(Fault((*path, name), "is unknown", fix))
            elif item is not None:
                found += shape.faults(item, (*path, name))
        return found


Shape: TypeAlias = Text | Integer | Boolean | Anything | OneOf | ListOf | MapOf | Object


def carry_over(shape: Shape, stored: JSON, wanted: JSON) -> JSON:
    """`wanted` with what a person could not have meant to remove.

    That is, in every object of fixed fields: what we do not know (another version wrote it), and
    what the agents own.
    """
    if not (isinstance(shape, Object) and isinstance(stored, dict) and isinstance(wanted, dict)):
        return wanted
    merged = {
        name: carry_over(shape.fields.get(name, _ANYTHING), stored.get(name), item)
        for name, item in wanted.items()
    }
    for name, item in stored.items():
        if name in merged:
            continue
        if name not in shape.fields or name in shape.kept:
            merged[name] = item
        else:
            left = carry_over(shape.fields[name], item, {})
            if left:
                merged[name] = left
    return merged


def without_nulls(value: JSON) -> JSON:
    """The same JSON, null fields left out: a null field means that it is not given."""
    match value:
        case dict():
            return {name: without_nulls(item) for name, item in value.items() if item is not None}
        case list():
            return [without_nulls(item) for item in value]
        case _:
            return value


def _choose(word: str, known: tuple[str, ...]) -> str:
    return suggestion(word, known, f"write one of: {', '.join(known)}")


_ANYTHING = Anything()
