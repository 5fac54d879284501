"""Labels and annotations as Kubernetes, and so Calico's client, takes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from podwire.model.shape import Fault

if TYPE_CHECKING:
    from podwire.model.resource import Wire

LONGEST = 63
LONGEST_PREFIX = 253
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LETTERS = "letters, digits, '-', '_' and '.', a letter or digit first and last"


def label_faults(document: Wire, stored: Wire | None = None) -> list[Fault]:
    """Labels and annotations of a document that may not be written.

    What is `stored` already stays: others wrote it by rules of their own.
    """
    labels, known = _texts(document, "labels"), _texts(stored, "labels")
    faults = []
    for key, value in labels.items():
        path = ("metadata", "labels", key)
        if key not in known and not _is_key(key):
            faults.append(_key_fault(path, "label"))
        elif known.get(key) != value and not _is_value(value):
            problem = f"{value!r} is no label value"
            faults.append(Fault(path, f": {problem}", f"write at most {LONGEST} {_LETTERS}"))
    fresh = _texts(document, "annotations").keys() - _texts(stored, "annotations").keys()
    return faults + [
        _key_fault(("metadata", "annotations", key), "annotation")
        for key in sorted(fresh)
        if not _is_key(key, prefix_in_any_case=True)
    ]


def _texts(document: Wire | None, field: str) -> Mapping[str, str]:
    """The mapping; without what is no text, which the field's shape is for."""
    metadata = None if document is None else document.get("metadata")
    found = metadata.get(field) if isinstance(metadata, Mapping) else None
    items = found.items() if isinstance(found, Mapping) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def _is_key(key: str, *, prefix_in_any_case: bool = False) -> bool:
    prefix, given, name = key.rpartition("/")
    if prefix_in_any_case:
        prefix = prefix.lower()
    sound = len(name) <= LONGEST and _WORD.fullmatch(name) is not None
    if not given:
        return sound
    return sound and len(prefix) <= LONGEST_PREFIX and _PREFIX.fullmatch(prefix) is not None


def _is_value(value: str) -> bool:
    return not value or (len(value) <= LONGEST and _WORD.fullmatch(value) is not None)


def _key_fault(path: tuple[str, str, str], what: str) -> Fault:
    return Fault(
        path,
        f": {path[-1]!r} is no {what} key",
        f"write [PREFIX/]NAME: at most {LONGEST} {_LETTERS}; the prefix is a DNS name",
    )
