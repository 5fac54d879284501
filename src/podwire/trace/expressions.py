"""Expressions of nftables rules, evaluated for one packet at one place.

Format: libnftables-json(5). A field that the packet does not have ends its rule (`ABSENT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from podwire.trace import fib
from podwire.trace.elements import HIDDEN, Doubtful, compile_element, fits
from podwire.trace.fib import Query
from podwire.trace.fields import ABSENT, connection_field, header_field, meta_field
from podwire.trace.passage import Layer
from podwire.trace.rulenames import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.trace.elements import Elements, Kind
    from podwire.trace.flow import Packet
    from podwire.trace.passage import Passage
    from podwire.trace.ruleset import Ruleset
    from podwire.trace.space import Space

JSON = dict[str, Any]
BITS: dict[str, Callable[[int, int], int]] = {
    "&": lambda left, right: left & right,
    "|": lambda left, right: left | right,
    "^": lambda left, right: left ^ right,
    "<<": lambda left, right: (left << right) & 0xFFFFFFFF,
    ">>": lambda left, right: left >> right,
}
CHANCES = frozenset({"numgen", "jhash", "symhash"})
"""Expressions that spread packets over several values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a rule is asked about."""

    space: Space
    ruleset: Ruleset
    passage: Passage
    packet: Packet
    family: str
    table: str
    pick: Callable[[int], int]
    """Chooses one of several equally possible values."""


def holds(statement: JSON, scene: Scene) -> bool:
    """Whether a `match` fits.

    Raises:
        Doubtful: nobody can say.
    """
    left, right = statement.get("left"), statement.get("right")
    value, kind = evaluate(left, scene)
    if value is ABSENT:
        return False
    operator = statement.get("op")
    if isinstance(right, bool):
        # `fib … exists`: the value is a link, or nothing.
        return (value not in {0, ""}) is (right is (operator == "=="))
    if operator in {"in", "!"}:
        return _shares_a_bit(value, right, kind) is (operator == "in")
    if isinstance(right, list) and kind in FLAGS:
        right = {"|": right}
    if operator in {"==", "!="}:
        return _equal(value, right, kind, scene) is (operator == "==")
    if value is HIDDEN:
        raise Doubtful(f"compares {left}, which is not known")
    other = compile_element(right, kind)
    match operator:
        case "<":
            return bool(value < other)
        case ">":
            return bool(value > other)
        case "<=":
            return bool(value <= other)
        case ">=":
            return bool(value >= other)
    raise Doubtful(f"compares by {operator!r}, which is not modelled")


def _shares_a_bit(value: Any, right: Any, kind: Kind) -> bool:
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    names = right if isinstance(right, list) else [right]
    if kind in FLAGS:
        if value is HIDDEN:
            raise Doubtful(f"compares the {kind}, which is not known")
        return any(value & compile_element(name, kind) for name in names)
    found = [fits(value, compile_element(name, kind)) for name in names]
    if True not in found and None in found:
        raise Doubtful(f"compares the {kind}, which is not known")
    return True in found


def _equal(value: Any, right: Any, kind: Kind, scene: Scene) -> bool:
    elements = _elements(right, kind, scene)
    if elements is not None:
        return elements.find(value)[0]
    if isinstance(right, dict) and not right.keys() & {"prefix", "range", "concat", "|"}:
        right, _ = evaluate(right, scene)
        other = right
    else:
        other = compile_element(right, kind)
    found = fits(value, other)
    if found is None:
        raise Doubtful(f"compares a {kind}, which is not known")
    return found


def _elements(right: Any, kind: Kind, scene: Scene) -> Elements | None:
    match right:
        case str() if right.startswith("@"):
            if scene.ruleset.is_filled_by_packets(scene.family, scene.table, right[1:]):
                raise Doubtful(f"looks up {right}, which packets fill")
            return scene.ruleset.named(scene.family, scene.table, right[1:], kind)
        case {"set": [*_]}:
            return scene.ruleset.anonymous(right["set"], kind)
        case {"set": str() as name} if name.startswith("@"):
            return _elements(name, kind, scene)
        case {"set": one}:
            return scene.ruleset.anonymous([one], kind)
    return None


def look_up(expression: JSON, scene: Scene) -> Any:
    """What a `vmap` or `map` gives for the packet; ABSENT when it holds nothing for it.

    Raises:
        Doubtful: nobody can say.
    """
    value, kind = evaluate(expression.get("key"), scene)
    if value is ABSENT:
        return ABSENT
    elements = _elements(expression.get("data"), kind, scene)
    if elements is None:
        raise Doubtful("maps by something that is not modelled")
    found, data = elements.find(value)
    return data if found else ABSENT


def evaluate(expression: Any, scene: Scene) -> tuple[Any, Kind]:
    """The value of an expression and its kind; ABSENT when the packet lacks the field.

    Raises:
        Doubtful: nobody can say.
    """
    if isinstance(expression, str | int):
        return _plain(expression), "number"
    if not isinstance(expression, dict) or len(expression) != 1:
        raise Doubtful(f"uses {expression}, which is not modelled")
    word, inner = next(iter(expression.items()))
    packet, passage = scene.packet, scene.passage
    if word == "payload":
        return header_field(inner, packet, passage)
    if word == "meta":
        return meta_field(str(inner.get("key")), packet, passage, scene.space)
    if word == "ct":
        return connection_field(inner, packet, scene.space)
    if word == "fib":
        return _fib(inner, scene)
    if word == "concat":
        return _concat(inner, scene)
    if word == "map":
        return _mapped(inner, scene)
    if word in BITS:
        return _bits(word, inner, scene)
    if word in CHANCES:
        return int(inner.get("offset", 0) or 0) + scene.pick(int(inner["mod"])), "number"
    raise Doubtful(f"uses {word!r}, which is not modelled")


def _plain(value: str | int) -> Any:
    if isinstance(value, int):
        return value
    try:
        return ip_address(value)
    except ValueError:
        pass
    try:
        return int(value, 0)
    except ValueError:
        return value


def _mapped(inner: JSON, scene: Scene) -> tuple[Any, Kind]:
    data = look_up(inner, scene)
    if isinstance(data, dict) and "concat" in data:
        return tuple(_plain(part) for part in data["concat"]), ("number", "number")
    return (data if data is ABSENT else _plain(data)), "number"


def _concat(parts: list[Any], scene: Scene) -> tuple[Any, Kind]:
    found = [evaluate(part, scene) for part in parts]
    if any(value is ABSENT for value, _ in found):
        return ABSENT, "number"
    return tuple(value for value, _ in found), tuple(kind for _, kind in found)


def _bits(word: str, inner: list[Any], scene: Scene) -> tuple[Any, Kind]:
    value, kind = evaluate(inner[0], scene)
    for operand in inner[1:]:
        if value in {ABSENT, HIDDEN}:
            return value, kind
        other = _operand(operand, kind, scene)
        if not isinstance(other, int | IPv4Address | IPv6Address):
            raise Doubtful(f"computes with {operand}, which is not modelled")
        result = BITS[word](int(value), int(other))
        value = type(value)(result) if isinstance(value, IPv4Address | IPv6Address) else result
    return value, kind


def _operand(operand: Any, kind: Kind, scene: Scene) -> Any:
    if isinstance(operand, list):
        return compile_element({"|": operand}, kind)
    if isinstance(operand, dict) and kind not in FLAGS:
        return evaluate(operand, scene)[0]
    return compile_element(operand, kind)


def _fib(inner: JSON, scene: Scene) -> tuple[Any, Kind]:
    """`fib saddr . iif oif`, `fib daddr type` (nft_fib_ipv4.c, nft_fib_ipv6.c)."""
    if scene.passage.layer is not Layer.IP:
        raise Doubtful("asks the FIB below IP, which is not modelled")
    flags = inner.get("flags", [])
    flags = [flags] if isinstance(flags, str) else flags
    space, packet, passage = scene.space, scene.packet, scene.passage
    by_source = "saddr" in flags
    address = packet.source if by_source else packet.destination
    bound = passage.oif if "oif" in flags else passage.iif if "iif" in flags else None
    if inner.get("result") == "type":
        return fib.address_type(space, address, bound), "fibtype"
    other = packet.destination if by_source else packet.source
    arriving = passage.oif if passage.hook == "forward" and by_source and "iif" in flags else None
    query = Query(
        destination=address,
        source=other,
        iif=arriving or fib.LOOPBACK,
        mark=packet.mark if "mark" in flags else 0,
    )
    name = fib.leaves_by(space, query, bound)
    if inner.get("result") == "check":
        return int(name is not None), "missing"
    return name or 0, "missing" if name is None else "link"
