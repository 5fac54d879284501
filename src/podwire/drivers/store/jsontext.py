"""JSON objects as text, read-only mappings included; and text that is no JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from podwire.errors import BadInput

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Wire


class Opaque(dict[str, Any]):
    """A stored value that is no JSON object: an empty mapping that keeps its text.

    One such value must harm nobody who only lists the keys beside it, so reading a field of it is
    the error, not meeting it. An empty text has no fields, as in Calico.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__()
        self.key = key
        self.text = text

    def get(self, name: str, default: Any = None) -> Any:
        """`default`, if there is no text at all.

        Raises:
            BadInput: there is some.
        """
        if self.text.strip():
            raise BadInput(
                f"{self.key}: the stored value is no JSON object",
                fix=f"see it: podwire datastore get {self.key}",
            )
        return default

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.text == self.text

    __hash__ = None  # as every dict


def _plain(value: object) -> JSON:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_DECODER = msgspec.json.Decoder(dict)


def to_text(value: Wire) -> str:
    """Encode one object."""
    return value.text if isinstance(value, Opaque) else _ENCODER.encode(value).decode()


def from_text(text: str) -> Wire:
    """Decode one object; integers stay exact.

    Raises:
        msgspec.DecodeError: the text is no JSON object.
    """
    wire: Wire = _DECODER.decode(text)
    return wire


def from_stored(key: str, text: str) -> Wire:
    """Decode what a datastore holds under a key, whatever it is."""
    try:
        return from_text(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return Opaque(key, text)
