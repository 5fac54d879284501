"""Elements of nftables sets and maps, and right sides of matches: what a value is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from podwire.trace.rulenames import BY_KIND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind: TypeAlias = "str | tuple[Kind, ...]"
"""What a value is: `address`, `number`, `link`, a key of `rulenames.BY_KIND`, or several."""


class Doubtful(Exception):
    """Nobody can say from what was read; the text says what was asked."""


class Hidden:
    """A part of a value that nobody knows."""


HIDDEN = Hidden()
MAC_BITS = 48


@dataclass(frozen=True, slots=True)
class Between:
    """A range, both ends included."""

    low: Any
    high: Any

    def holds(self, value: Any) -> bool:
        """Whether the value lies in it; an address of the other family does not."""
        return type(value) is type(self.low) and bool(self.low <= value <= self.high)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Names that begin so (`cali*`)."""

    text: str

    def holds(self, value: Any) -> bool:
        """Whether the name does."""
        return isinstance(value, str) and value.startswith(self.text)


def compile_element(element: Any, kind: Kind) -> Any:
    """A set element, or a literal, in the form values are compared with.

    Raises:
        Doubtful: it is of a form that is not modelled.
    """
    match element:
        case {"elem": {"val": inner}}:
            return compile_element(inner, kind)
        case {"concat": [*parts]}:
            if not isinstance(kind, tuple) or len(kind) != len(parts):
                raise Doubtful(f"compares several fields with {element}")
            return tuple(compile_element(*each) for each in zip(parts, kind, strict=True))
        case {"prefix": {"addr": str(address), "len": int(length)}} if kind == "mac":
            low = mac_number(address)
            return Between(low, low | ((1 << (MAC_BITS - length)) - 1))
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            network = ip_network(f"{address}/{length}", strict=False)
            return Between(network.network_address, network.broadcast_address)
        case {"prefix": {"addr": int(low), "len": int(length)}}:
            return _number_prefix(low, length)
        case {"range": [low, high]}:
            return Between(compile_element(low, kind), compile_element(high, kind))
        case {"|": [*parts]}:
            return _joined(parts, kind)
        case str() if kind == "link" and element.endswith("*"):
            return Beginning(element[:-1])
        case str() | int():
            return literal(element, kind)
    raise Doubtful(f"uses the element {element}, which is not modelled")


def _number_prefix(low: int, length: int) -> Between:
    """A range of numbers told as a prefix (`8/29` is 8-15): its width is what it is aligned to."""
    fitting = [
        bits
        for bits in (8, 16, 32)
        if length <= bits and low < 1 << bits and low % (1 << (bits - length)) == 0
    ]
    if len(fitting) != 1:
        raise Doubtful(f"uses the prefix {low}/{length} of a number of unknown width")
    return Between(low, low + (1 << (fitting[0] - length)) - 1)


def _joined(parts: Iterable[Any], kind: Kind) -> int:
    found = 0
    for part in parts:
        value = compile_element(part, kind)
        if not isinstance(value, int):
            raise Doubtful(f"joins {part}, which is not modelled")
        found |= value
    return found


def literal(value: str | int, kind: Kind) -> Any:
    """One plain value.

    Raises:
        Doubtful: the name is unknown here.
    """
    if isinstance(value, int):
        return int(value)
    if kind == "link":
        return value
    if kind == "mac":
        return mac_number(value)
    if kind == "address" or (kind == "number" and (":" in value or value.count(".") == 3)):
        if "/" in value:
            network = ip_network(value, strict=False)
            return Between(network.network_address, network.broadcast_address)
        return ip_address(value)
    names = BY_KIND.get(kind, {}) if isinstance(kind, str) else {}
    if value in names:
        return names[value]
    try:
        return int(value, 0)
    except ValueError:
        raise Doubtful(f"names {value!r}, which is not modelled") from None


def mac_number(text: str) -> int:
    """A MAC as a number, so that it can be masked.

    Raises:
        Doubtful: it is none.
    """
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        raise Doubtful(f"compares a MAC with {text!r}") from None


def fits(value: Any, element: Any) -> bool | None:
    """Whether a value is the (compiled) element; None when a hidden part would decide."""
    if value is HIDDEN:
        return None
    if isinstance(element, tuple):
        if not isinstance(value, tuple) or len(value) != len(element):
            return False
        parts = [fits(*each) for each in zip(value, element, strict=True)]
        return False if False in parts else None if None in parts else True
    if isinstance(element, Between | Beginning):
        return element.holds(value)
    if isinstance(element, int) and isinstance(value, IPv4Address | IPv6Address):
        return int(value) == element
    return bool(value == element)


def _is_plain(element: Any) -> bool:
    if isinstance(element, tuple):
        return all(_is_plain(part) for part in element)
    return not isinstance(element, Between | Beginning)


def _is_known(value: Any) -> bool:
    return HIDDEN not in value if isinstance(value, tuple) else value is not HIDDEN


@dataclass(slots=True)
class Elements:
    """A set or map, compiled for one kind of value."""

    exact: dict[Any, Any] = field(default_factory=dict)
    wide: list[tuple[Any, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, pairs: Iterable[tuple[Any, Any]], kind: Kind) -> Elements:
        """From elements and what they stand for (None in a set)."""
        made = cls()
        for element, data in pairs:
            compiled = compile_element(element, kind)
            if _is_plain(compiled):
                made.exact.setdefault(compiled, data)
            else:
                made.wide.append((compiled, data))
        return made

    def find(self, value: Any) -> tuple[bool, Any]:
        """(is it in, what it stands for).

        Raises:
            Doubtful: a hidden part would decide.
        """
        if _is_known(value) and value in self.exact:
            return True, self.exact[value]
        for element, data in self._candidates(value):
            fitting = fits(value, element)
            if fitting is None:
                raise Doubtful("looks up a field that is not known")
            if fitting:
                return True, data
        return False, None

    def _candidates(self, value: Any) -> Iterator[tuple[Any, Any]]:
        if not _is_known(value):
            yield from self.exact.items()
        yield from self.wide
