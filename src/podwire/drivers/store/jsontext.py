"""JSON objects as text, read-only mappings included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Wire


def _plain(value: object) -> JSON:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_DECODER = msgspec.json.Decoder(dict)


def to_text(value: Wire) -> str:
    """Encode one object."""
    return _ENCODER.encode(value).decode()


def from_text(text: str) -> Wire:
    """Decode one object; integers stay exact.

    Raises:
        msgspec.DecodeError: the text is no JSON object.
    """
    wire: Wire = _DECODER.decode(text)
    return wire
