"""A store in memory with the manners of the Kubernetes API, for tests and simulations.

One object per write, opaque revisions, Conflict (409) and Compacted (410). A crash of the program
that writes can be acted out between any two writes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from podwire.boundary import Change, Entry, Listing, Verb, Write
from podwire.drivers.store.jsontext import from_stored, to_text
from podwire.errors import AlreadyExists, Compacted, Conflict, DatastoreUnavailable, Unsupported
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from podwire.boundary import Revision
    from podwire.model.resource import Wire


class Crash(BaseException):
    """The writing program dies here: as after kill -9, nobody can catch it and tidy up."""


class SingleObjectStore:
    """A Store in memory.

    `batches=True` gives it the `batch` capability, so that one test can try both ways of writing.
    Revisions are opaque: they neither sort nor count.
    """

    def __init__(self, *, batches: bool = False) -> None:
        self._batches = batches
        self._changed = threading.Condition()
        self._objects: dict[str, tuple[str, int]] = {}
        self._log: list[tuple[str, str | None]] = []
        """Key and text of every write; the write's number is its position plus one."""
        self._floor = 0
        self._budget: int | None = None
        self._failure: BaseException | None = None
        self._answer_lost = False
        self._closed = False

    @property
    def can_batch(self) -> bool:
        """As chosen at construction."""
        return self._batches

    @property
    def writes(self) -> int:
        """How many writes were ever carried out."""
        return len(self._log)

    def fail_after(
        self, writes: int, failure: BaseException | None = None, *, answer_lost: bool = False
    ) -> None:
        """Let that many further writes through, then raise on every one.

        Each raises `failure`, by default `Crash`. With `answer_lost` the first write after them is
        carried out all the same, and only its caller does not learn of it. A batch counts as one.
        """
        with self._changed:
            self._budget = writes
            self._failure = failure
            self._answer_lost = answer_lost

    def recover(self) -> None:
        """Take writes again: the program was started anew."""
        with self._changed:
            self._budget = None

    def compact(self) -> None:
        """Forget all changes so far: a watch that has not seen them must list again."""
        with self._changed:
            self._floor = len(self._log)
            self._changed.notify_all()

    def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        with self._changed:
            self._check_open()
            return self._entry(key)

    def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        with self._changed:
            self._check_open()
            names = sorted(key for key in self._objects if key.startswith(prefix))
            entries = tuple(entry for key in names if (entry := self._entry(key)) is not None)
            return Listing(entries=entries, revision=_opaque(len(self._log)))

    def create(self, key: str, value: Wire) -> Entry:
        """See `Store.create`."""
        return self._one(Write(verb=Verb.CREATE, key=key, value=value))

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        """See `Store.update`."""
        return self._one(Write(verb=Verb.UPDATE, key=key, value=value, revision=revision))

    def delete(self, key: str, revision: Revision | None = None) -> None:
        """See `Store.delete`."""
        self._write((Write(verb=Verb.DELETE, key=key, revision=revision),))

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """See `Store.batch`."""
        if not self._batches:
            raise Unsupported("this datastore writes one object at a time")
        return self._write(writes)

    @property
    def can_expire(self) -> bool:
        """No: the Kubernetes API has none either."""
        return False

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        """See `Store.keep`.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(f"{key}: values do not expire in this datastore")

    def let_go(self, key: str) -> None:
        """See `Store.let_go`; there is nothing."""

    def together(self) -> AbstractContextManager[None]:
        """See `Store.together`; memory keeps nothing anyway."""
        return nullcontext()

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        with suppress(Conflict):
            self.update(keys.PROBE, {}, "")

    def watch(self, prefix: str, revision: Revision) -> SingleObjectWatch:
        """See `Store.watch`."""
        with self._changed:
            self._check_open()
            numbers = range(len(self._log), self._floor - 1, -1)
            position = next((n for n in numbers if _opaque(n) == revision), None)
        if position is None:
            raise Compacted(f"revision {revision} is no longer kept", fix="list again")
        return SingleObjectWatch(self, prefix, position)

    def close(self) -> None:
        """See `Store.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def changes(
        self, prefix: str, position: int, timeout_s: float | None, watch: SingleObjectWatch
    ) -> tuple[int, tuple[Change, ...]]:
        """Wait for writes below the prefix after `position`; also returns the new position."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not watch.closed:
                self._check_open()
                if position < self._floor:
                    raise Compacted("changes were forgotten", fix="list again")
                found = tuple(
                    self._change(number)
                    for number in range(position + 1, len(self._log) + 1)
                    if self._log[number - 1][0].startswith(prefix)
                )
                position = len(self._log)
                if found:
                    return position, found
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    break
                self._changed.wait(remaining)
        return position, ()

    def wake(self) -> None:
        """Make every waiting watch look up."""
        with self._changed:
            self._changed.notify_all()

    def _one(self, write: Write) -> Entry:
        (entry,) = self._write((write,))
        assert entry is not None
        return entry

    def _write(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        texts = [None if write.value is None else to_text(write.value) for write in writes]
        with self._changed:
            self._check_open()
            dying = self._budget == 0
            if dying and not self._answer_lost:
                raise self._failed()
            objects, length = (dict(self._objects) if len(writes) > 1 else None), len(self._log)
            try:
                entries = tuple(map(self._carry_out, writes, texts))
            except BaseException:
                if objects is not None:  # a single write changes nothing before it may fail
                    self._objects = objects
                    del self._log[length:]
                raise
            self._changed.notify_all()
            if dying:
                self._answer_lost = False
                raise self._failed()
            if self._budget is not None:
                self._budget -= 1
            return entries

    def _carry_out(self, write: Write, text: str | None) -> Entry | None:
        there = self._objects.get(write.key)
        found = None if there is None else _opaque(there[1])
        if write.verb is Verb.CREATE and found is not None:
            raise AlreadyExists(f"{write.key} exists already")
        conditional = write.verb is Verb.UPDATE or write.revision is not None
        if write.verb is not Verb.CREATE and conditional and found != write.revision:
            raise Conflict(f"{write.key} was changed or deleted since it was read")
        if write.verb is Verb.DELETE:
            if there is not None:
                del self._objects[write.key]
                self._log.append((write.key, None))
            return None
        assert text is not None
        self._log.append((write.key, text))
        self._objects[write.key] = (text, len(self._log))
        return self._entry(write.key)

    def _entry(self, key: str) -> Entry | None:
        found = self._objects.get(key)
        if found is None:
            return None
        return Entry(key=key, value=from_stored(key, found[0]), revision=_opaque(found[1]))

    def _change(self, number: int) -> Change:
        key, text = self._log[number - 1]
        revision = _opaque(number)
        entry = None
        if text is not None:
            entry = Entry(key=key, value=from_stored(key, text), revision=revision)
        return Change(key=key, entry=entry, revision=revision)

    def _failed(self) -> BaseException:
        return (
            Crash("the program died between two writes")
            if self._failure is None
            else (self._failure)
        )

    def _check_open(self) -> None:
        if self._closed:
            raise DatastoreUnavailable("the datastore was closed by this program")


class SingleObjectWatch:
    """Follows one prefix of a SingleObjectStore."""

    def __init__(self, store: SingleObjectStore, prefix: str, position: int) -> None:
        self.closed = False
        self._store = store
        self._prefix = prefix
        self._position = position

    @property
    def position(self) -> Revision:
        """See `Watch.position`."""
        return _opaque(self._position)

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """See `Watch.wait`."""
        self._position, changes = self._store.changes(self._prefix, self._position, timeout_s, self)
        return changes

    def close(self) -> None:
        """See `Watch.close`."""
        self.closed = True
        self._store.wake()


def _opaque(number: int) -> Revision:
    return hashlib.blake2s(str(number).encode(), digest_size=6).hexdigest()
