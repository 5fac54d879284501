"""What the core asks of the world. Drivers fulfil these protocols; tests bring fakes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from podwire.model.resource import Wire

Revision = str
"""Opaque: compare for equality only; hand it back to the store it came from."""
ABSENT: Revision = "0"
"""For `Store.keep`: there is nothing under the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored object."""

    key: str
    value: Wire
    revision: Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All objects below a prefix at one moment, in key order."""

    entries: tuple[Entry, ...]
    revision: Revision
    """A watch from here misses nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object was written (`entry`) or deleted (None)."""

    key: str
    entry: Entry | None
    revision: Revision


class Verb(StrEnum):
    """What one write of a batch does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One compare-and-swap write.

    `revision`: for update the one read (required); for delete the one read, or None to delete
    whatever is there (absent is then success).
    """

    verb: Verb
    key: str
    value: Wire | None = None
    revision: Revision | None = None


class Watch(Protocol):
    """Changes below a prefix, in order, each once."""

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """Block until there are changes; an empty sequence on timeout or after `close`.

        Raises:
            Compacted: changes were missed; list again and start a new watch.
            DatastoreUnavailable: the store went away; watch again from the last revision seen.
        """
        ...

    @property
    def position(self) -> Revision:
        """From here another watch of the prefix misses nothing that `wait` has not returned yet.

        It may move while nothing changes below the prefix: other changes are forgotten meanwhile.
        """
        ...

    def close(self) -> None:
        """End the watch; wakes a `wait` in another thread."""
        ...


class Store(Protocol):
    """A datastore of JSON objects with compare-and-swap.

    Every method raises `DatastoreUnavailable` when the store is away, read-only, full or locked
    for too long; then nothing was written. Methods may be called from any thread.
    """

    @property
    def can_batch(self) -> bool:
        """Whether `batch` writes several keys, all or nothing."""
        ...

    def get(self, key: str) -> Entry | None:
        """The object, or None."""
        ...

    def list(self, prefix: str) -> Listing:
        """All objects whose key begins with `prefix`."""
        ...

    def create(self, key: str, value: Wire) -> Entry:
        """Write a new object.

        Raises:
            AlreadyExists: the key is taken.
        """
        ...

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        """Replace the object that still has `revision`.

        Raises:
            Conflict: it was changed or deleted since.
        """
        ...

    def delete(self, key: str, revision: Revision | None = None) -> None:
        """Make the object absent; absent already is success, unless a revision was given.

        Raises:
            Conflict: a revision was given and the object has another one, or is gone.
        """
        ...

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """Carry out all writes or none; an entry for each create and update, None for a delete.

        Raises:
            AlreadyExists, Conflict: some write's condition does not hold; nothing was written.
            Unsupported: `can_batch` is False, or they are more than this store takes at once.
        """
        ...

    @property
    def can_expire(self) -> bool:
        """Whether `keep` lets values vanish by themselves."""
        ...

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        """Write a value that vanishes unless it is written again within `ttl_s` seconds.

        `also` is written with it and stays, whatever is there. `seen` is what the key must still
        have: a revision, or ABSENT; None: whatever is there is replaced, whoever wrote it.

        Raises:
            Conflict: the key has changed since it was seen; nothing was written.
            Unsupported: `can_expire` is False.
        """
        ...

    def let_go(self, key: str) -> None:
        """Let the value that this program keeps under the key vanish now, if that can be done."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Writes of this thread inside the block need not outlive a power failure when they return.

        At the end of the block all do. Everybody sees each of them at once, as ever.

        Raises:
            DatastoreUnavailable: at the end; what was written stays, and may not be durable.
        """
        ...

    def check_writable(self) -> None:
        """Raise unless a write as big as an ADD's would be carried out now.

        Nothing of it stays, it has no revision, and no watch sees it.
        """
        ...

    def watch(self, prefix: str, revision: Revision) -> Watch:
        """Follow what is written below `prefix` after `revision`.

        Raises:
            Compacted: changes after that revision are no longer all kept.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Clock(Protocol):
    """Time, passed in."""

    def now(self) -> datetime:
        """Wall clock in UTC."""
        ...

    def now_ns(self) -> int:
        """Wall clock in nanoseconds since 1970 (sequence numbers start there)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait (back-off between compare-and-swap tries)."""
        ...


class Dice(Protocol):
    """Chance, passed in."""

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        ...
