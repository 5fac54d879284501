"""Plan: what would make actual equal to desired, without touching anything."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Ownership: TypeAlias = Callable[[K, V], bool]
"""Whether an actual entry is ours to change: it carries our mark, or has taken the place of one."""


Serves: TypeAlias = Callable[[V, V], bool]
"""Whether a foreign value does what the wanted one would (wanted first)."""


def nothing_serves(_wanted: V, _foreign: V) -> bool:
    """Only the very value is as good."""
    return False


class Step(Enum):
    """What is to be done about one key."""

    NOTHING = "nothing"
    WRITE = "write"
    DELETE = "delete"
    CONFLICT = "conflict"
    """Wanted by us and held by somebody else: reported, never replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[K, V]):
    """Three groups of keys, disjoint."""

    writes: Mapping[K, V]
    """The value to write."""
    deletes: Mapping[K, V]
    """The actual value that is to go."""
    conflicts: Mapping[K, V]
    """The foreign value that stands in the way."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write or delete; conflicts do not count."""
        return not self.writes and not self.deletes


def decide(
    key: K,
    desired: V | None,
    actual: V | None,
    owned: Ownership[K, V],
    serves: Serves[V] = nothing_serves,
) -> Step:
    """What to do about one key; None means absent."""
    if actual is None:
        return Step.NOTHING if desired is None else Step.WRITE
    if desired == actual:
        return Step.NOTHING
    if not owned(key, actual):
        fine = desired is None or serves(desired, actual)
        return Step.NOTHING if fine else Step.CONFLICT
    return Step.DELETE if desired is None else Step.WRITE


def plan(
    desired: Mapping[K, V],
    actual: Mapping[K, V],
    owned: Ownership[K, V],
    serves: Serves[V] = nothing_serves,
) -> Plan[K, V]:
    """Say what would make the owned part of `actual` equal to `desired`.

    An entry that equals the wanted one, or serves as it, needs nothing, whoever made it.
    """
    writes: dict[K, V] = {}
    deletes: dict[K, V] = {}
    conflicts: dict[K, V] = {}
    for key in desired.keys() | actual.keys():
        match decide(key, desired.get(key), actual.get(key), owned, serves):
            case Step.WRITE:
                writes[key] = desired[key]
            case Step.DELETE:
                deletes[key] = actual[key]
            case Step.CONFLICT:
                conflicts[key] = actual[key]
            case Step.NOTHING:
                pass
    return Plan(
        writes=MappingProxyType(writes),
        deletes=MappingProxyType(deletes),
        conflicts=MappingProxyType(conflicts),
    )
