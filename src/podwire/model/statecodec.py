"""KernelState ⇄ JSON, schema `podwire.kernelstate/v1` (docs/reference/bundle.md).

The JSON form follows from the records: a field has its record's name and is left out while it has
its default; addresses are text, kinds and states the kernel's numbers. A section is
`{"value": …, "time_ns": …, "generation": …}` or `{"missing": reason}`; one that is absent was not
collected. A field this version does not know is ignored.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import (
    TYPE_CHECKING,
    Any,
    NotRequired,
    Required,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from podwire.errors import BadInput
from podwire.model import addressing, kernelstate, link, overlay, route
from podwire.model.kernelstate import NOT_READ, KernelState, Missing, Read

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "podwire.kernelstate/v1"

Convert: TypeAlias = "Callable[[Any], Any] | None"
"""Between a value and its JSON form; None: they are the same."""

_NAMES: dict[str, Any] = {"Mapping": Mapping}
for _module in (addressing, link, overlay, route, kernelstate):
    _NAMES.update(vars(_module))
_object_type: Any = TypedDict
"""Called with names and types that are known only now, which no type checker follows."""
_KEPT_TEXTS = 1 << 16
_as_address = lru_cache(_KEPT_TEXTS)(ip_address)
_as_network = lru_cache(_KEPT_TEXTS)(ip_network)
_as_interface = lru_cache(_KEPT_TEXTS)(ip_interface)


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type are written."""

    wire: Any
    """What msgspec is to find in the JSON."""
    decode: Convert = None
    encode: Convert = None


_TEXTS = {
    frozenset({IPv4Address, IPv6Address}): Form(str, _as_address, str),
    frozenset({IPv4Network, IPv6Network}): Form(str, _as_network, str),
    frozenset({IPv4Interface, IPv6Interface}): Form(str, _as_interface, str),
}


def encode_state(state: KernelState) -> bytes:
    """The state as one JSON document."""
    form = _form_of(KernelState)
    assert form.encode is not None
    return msgspec.json.encode({"schema": SCHEMA, **form.encode(state)})


def decode_state(data: bytes, what: str = "kernel state") -> KernelState:
    """Read what `encode_state` wrote, this version's or a later one's with more fields.

    Raises:
        BadInput: it is no such document; the message begins with `what` and names the field.
    """
    try:
        document = _decoder().decode(data)
        if document["schema"] != SCHEMA:
            raise BadInput(
                f"{what} has the schema {document['schema']!r}", fix=f"this podwire reads {SCHEMA}"
            )
        form = _form_of(KernelState)
        assert form.decode is not None
        state: KernelState = form.decode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"{what} is damaged: {error}") from None
    return state


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    head = _object_type("head", {"schema": Required[str]})
    document = types.new_class("document", (head, _form_of(KernelState).wire))
    return msgspec.json.Decoder(document)


# --- forms, made from the types of the records ------------------------------------------------


@cache
def _form_of(hint: Any) -> Form:
    if hint is object:
        return Form(Any)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Form(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return _union(arguments)
    if origin is tuple:
        return _tuple(_form_of(arguments[0]))
    if origin is frozenset:
        return Form(frozenset[str], None, sorted)
    if origin is Mapping:
        key, value = (_form_of(each).wire for each in arguments)
        return Form(dict[key, value])  # type: ignore[valid-type]
    assert hint in {int, str, bool}, f"{hint} has no JSON form yet"
    return Form(hint)


def _union(arguments: tuple[Any, ...]) -> Form:
    if Missing in arguments:
        read = next(each for each in arguments if each is not Missing)
        return _section(_form_of(get_args(read)[0]))
    kinds = frozenset(arguments) - {types.NoneType}
    form = _TEXTS[kinds] if kinds in _TEXTS else _form_of(next(iter(kinds)))
    if types.NoneType not in arguments:
        return form
    return Form(form.wire | None, _unless_none(form.decode), _unless_none(form.encode))


def _unless_none(convert: Convert) -> Convert:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _tuple(item: Form) -> Form:
    wire = tuple[item.wire, ...]  # type: ignore[name-defined]
    decode, encode = item.decode, item.encode
    return Form(
        wire,
        None if decode is None else lambda values: tuple(map(decode, values)),
        None if encode is None else lambda values: tuple(map(encode, values)),
    )


def _section(value: Form) -> Form:
    wire = _object_type(
        "section",
        {
            "value": NotRequired[value.wire],
            "time_ns": NotRequired[int],
            "generation": NotRequired[int],
            "missing": NotRequired[str],
        },
    )

    def decode(found: dict[str, Any]) -> Read[Any] | Missing:
        if "value" not in found:
            return Missing(found.get("missing", NOT_READ.reason))
        content = found["value"]
        return Read(
            content if value.decode is None else value.decode(content),
            found.get("time_ns", 0),
            found.get("generation", 0),
        )

    def encode(section: Read[Any] | Missing) -> dict[str, Any]:
        if isinstance(section, Missing):
            return {"missing": section.reason}
        content = section.value if value.encode is None else value.encode(section.value)
        found = {"value": content, "time_ns": section.time_ns, "generation": section.generation}
        return {name: each for name, each in found.items() if name == "value" or each}

    return Form(wire, decode, encode)


def _record(kind: type[Any]) -> Form:
    """The form of a dataclass: an object with its fields, those left out that have defaults."""
    hints = get_type_hints(kind, localns=_NAMES)
    forms = {field.name: _form_of(hints[field.name]) for field in fields(kind)}
    defaults = {field.name: field.default for field in fields(kind)}
    wires = {
        name: (Required if defaults[name] is MISSING else NotRequired)[form.wire]
        for name, form in forms.items()
    }
    wire = _object_type(kind.__name__, wires)
    decoders = [(name, form.decode) for name, form in forms.items() if form.decode is not None]
    encoders = [(name, defaults[name], form.encode) for name, form in forms.items()]

    def decode(found: dict[str, Any]) -> Any:
        known = found if found.keys() <= forms.keys() else _only(found, forms.keys())
        for name, convert in decoders:
            if name in known:
                known[name] = convert(known[name])
        return kind(**known)

    def encode(value: Any) -> dict[str, Any]:
        found = {}
        for name, default, convert in encoders:
            each = getattr(value, name)
            if each != default:
                found[name] = each if convert is None else convert(each)
        return found

    return Form(wire, decode, encode)


def _only(found: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in names}
