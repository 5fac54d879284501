"""Reading JSON objects field by field, complaints naming the place; and laying fields over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from podwire.errors import BadInput, PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from podwire.model.resource import JSON, Wire

T = TypeVar("T")
E = TypeVar("E", bound="StrEnum")


def json_type(value: JSON) -> str:
    """What JSON calls the value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of a stored value, read field by field.

    An absent field and a null both mean "not given". Every method raises BadInput with key and path
    when the field holds another type.
    """

    wire: Wire
    key: str
    """Datastore key of the whole value, for messages."""
    path: str = ""

    def bad(self, name: str, problem: str) -> BadInput:
        """The error for one field."""
        return BadInput(
            f"{self.key}: {self.path}{name} {problem}",
            fix="correct the stored object, or delete it and let it be made again",
        )

    def _of(self, name: str, wanted: type[T], called: str) -> T | None:
        value = self.wire.get(name)
        if value is None:
            return None
        # bool is an int to Python, never to JSON.
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise self.bad(name, f"must be {called}, not {json_type(value)}")
        return value

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self._of(name, str, "a string")
        return default if value is None else value

    def maybe_text(self, name: str) -> str | None:
        """A string, or None when absent or empty (Go writes an unset string either way)."""
        return self._of(name, str, "a string") or None

    def needed_text(self, name: str) -> str:
        """A string that must be there.

        Raises:
            BadInput: it is absent or empty.
        """
        value = self.maybe_text(name)
        if value is None:
            raise self.bad(name, "is missing")
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """A boolean."""
        value = self._of(name, bool, "a boolean")
        return default if value is None else value

    def integer(self, name: str, default: int = 0) -> int:
        """An integer, exact at any size."""
        value = self._of(name, int, "an integer")
        return default if value is None else value

    def within(self, name: str) -> Fields:
        """The object in a field; an empty one when absent."""
        wire = self._of(name, dict, "an object")
        return Fields({} if wire is None else wire, self.key, f"{self.path}{name}.")

    def items(self, name: str) -> list[JSON]:
        """The list in a field; an empty one when absent."""
        value = self._of(name, list, "a list")
        return [] if value is None else value

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects."""
        found = []
        for position, item in enumerate(self.items(name)):
            place = f"{name}[{position}]"
            if not isinstance(item, Mapping):
                raise self.bad(place, f"must be an object, not {json_type(item)}")
            found.append(Fields(item, self.key, f"{self.path}{place}."))
        return tuple(found)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(
            self.text_at(f"{name}[{position}]", item)
            for position, item in enumerate(self.items(name))
        )

    def text_map(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        fields = self.within(name)
        return {field: fields.text_at(field, value) for field, value in fields.wire.items()}

    def one_of(self, name: str, kind: type[E], default: E) -> E:
        """A word of an enumeration."""
        word = self.text(name) or default
        try:
            return kind(word)
        except ValueError:
            raise self.bad(name, f"{word!r} is none of {', '.join(kind)}") from None

    def parsed(self, name: str, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of a string; None when absent or empty."""
        text = self.maybe_text(name)
        return None if text is None else self.parse(name, text, parse)

    def parse(self, name: str, text: str, parse: Callable[[str], T]) -> T:
        """What `parse` makes of `text`, its complaint prefixed by key and path."""
        try:
            return parse(text)
        except PodwireError as error:
            raise BadInput(
                f"{self.key}: {self.path}{name}: {error.message}", fix=error.fix
            ) from None

    def text_at(self, name: str, value: JSON) -> str:
        """`value`, found at `name`, as a string."""
        if not isinstance(value, str):
            raise self.bad(name, f"must be a string, not {json_type(value)}")
        return value


def thaw(value: JSON) -> JSON:
    """A deep copy that may be changed, of plain dicts and lists."""
    kind = type(value)
    # Nearly everything in a block is one of these, and asking whether a string is a mapping costs
    # more than all the rest.
    if kind is str or kind is int or value is None:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {name: thaw(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


def child(wire: dict[str, JSON], name: str) -> dict[str, JSON]:
    """The object in a field, made when it is not there."""
    value = wire.get(name)
    if not isinstance(value, dict):
        value = wire[name] = {}
    return value


def lay(wire: dict[str, JSON], name: str, value: JSON, *, absent: JSON = None) -> None:
    """Write a field, or leave it out where its value is what an absent field means.

    What stands there and means the same (null, false, an empty text or list) stays as it is.
    """
    if value in (None, absent) and not wire.get(name):
        return
    if value is None:
        del wire[name]
    else:
        wire[name] = value


def settle(wire: dict[str, JSON], name: str, value: JSON, *, absent: JSON, stored: bool) -> None:
    """Write a field whatever its value: readers before Calico 3.32 know no defaults.

    In an object that was stored without it, by somebody who meant the default, it stays absent.
    """
    if stored:
        lay(wire, name, value, absent=absent)
    else:
        wire[name] = value
