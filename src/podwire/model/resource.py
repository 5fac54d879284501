"""What all stored objects share: metadata, and the JSON they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

JSON: TypeAlias = Any
"""A decoded JSON value; integers are exact beyond 2^53."""
Wire: TypeAlias = Mapping[str, JSON]
"""A decoded JSON object as it stands in the datastore."""


def no_labels() -> Mapping[str, str]:
    """An empty, read-only mapping."""
    return MappingProxyType({})


def no_wire() -> Wire:
    """The JSON object of something that was never stored."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Name and labels of a v3 resource.

    `uid` and `created` are set once, by whoever creates the object (RFC 3339, UTC).
    """

    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=no_labels)
    annotations: Mapping[str, str] = field(default_factory=no_labels)
    uid: str | None = None
    created: str | None = None

    def born(self, uid: UUID, now: datetime) -> Metadata:
        """The same of an object made now (UTC)."""
        return replace(self, uid=str(uid), created=now.strftime("%Y-%m-%dT%H:%M:%SZ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Base of everything the datastore holds.

    `wire` is the JSON object the value was decoded from. `codec.encode` lays the known fields over
    it, so that fields this version does not know survive a read-modify-write.
    """

    wire: Wire = field(default_factory=no_wire, compare=False, repr=False)
