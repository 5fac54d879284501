"""What the codecs of all v3 resources share: kind, metadata, AS numbers and times."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.resource import Metadata
from podwire.model.wire import Fields, child, json_type, lay, thaw

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Stored, Wire

API_VERSION = "projectcalico.org/v3"

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def encode_resource(value: Stored, kind: str, metadata: Metadata) -> dict[str, JSON]:
    """The JSON a resource came from, with kind and metadata laid over it."""
    wire: dict[str, JSON] = thaw(value.wire)
    wire["kind"] = kind
    wire["apiVersion"] = API_VERSION
    written = child(wire, "metadata")
    written["name"] = metadata.name
    lay(written, "namespace", metadata.namespace)
    lay(written, "uid", metadata.uid)
    lay(written, "creationTimestamp", metadata.created)
    lay(written, "labels", dict(metadata.labels) or None)
    lay(written, "annotations", dict(metadata.annotations) or None)
    # The revision is the datastore's own and never part of the object.
    written.pop("resourceVersion", None)
    return wire


def decode_metadata(key: str, wire: Wire, name: str, namespace: str | None = None) -> Metadata:
    """The metadata of a resource; the name is the key's."""
    fields = Fields(wire, key).within("metadata")
    return Metadata(
        name=name,
        namespace=namespace,
        labels=fields.text_map("labels"),
        annotations=fields.text_map("annotations"),
        uid=fields.maybe_text("uid"),
        created=fields.maybe_text("creationTimestamp"),
    )


def named(key: str, name: str | None, kind: str) -> str:
    """The name a key was found to hold.

    Raises:
        BadInput: it holds none.
    """
    if name is None:
        raise wrong_key(key, kind)
    return name


def wrong_key(key: str, kind: str) -> BadInput:
    """The error for a key under which no such kind is stored."""
    return BadInput(f"{key}: no {kind} is stored under such a key")


def as_number(fields: Fields, name: str) -> int | None:
    """An AS number: an integer, the same in a string, or dotted (`1.10`, RFC 5396)."""
    value = fields.wire.get(name)
    number = None if value is None else parse_as_number(value)
    if value is not None and number is None:
        raise fields.bad(name, f"must be an AS number, not {json_type(value)} {value!r}")
    return number


def parse_as_number(value: JSON) -> int | None:
    """Read an AS number in any notation; None when it is none."""
    match value:
        case int() if not isinstance(value, bool):
            return value
        case str() if value.isdecimal():
            return int(value)
        case str() if all(part.isdecimal() for part in value.split(".")) and value.count(".") == 1:
            high, low = value.split(".")
            return (int(high) << 16) + int(low)
        case _:
            return None


def parse_duration(text: str) -> int:
    """Read a time as Go writes it (`90s`, `1m30s`), in whole seconds.

    Raises:
        BadInput: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise BadInput(f"{text!r} is no time in whole seconds", fix="write it like 90s or 1m30s")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
