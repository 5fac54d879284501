"""The embedded datastore: one SQLite file, shared by several processes and namespaces.

A revision is the number of the write, growing by one across all keys. Every write is one
transaction, on disk before it returns (durability.py): kill -9 and power loss leave all of it or
nothing.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.boundary import Change, Entry, Listing, Verb, Write
from podwire.drivers.store.follower import Follower
from podwire.drivers.store.jsontext import from_stored, to_text
from podwire.drivers.store.sqlitefile import SQLiteFile
from podwire.errors import AlreadyExists, Compacted, Conflict, Unsupported
from podwire.model import keys

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from podwire.boundary import Revision
    from podwire.model.resource import Wire

KEPT_REVISIONS = 10_000
PRUNE_EVERY = 256
PROBE_BYTES = 32_768
"""What an ADD writes: block, handle and endpoint, each in its row and in the log."""
LAST = "\U0010ffff"
"""Sorts behind every character a key holds: the end of a prefix's range."""


class SQLiteStore:
    """A Store in one file; opened by the first call.

    Threads may share it; a forked child must make its own.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        create: bool = True,
        timeout_s: float = 10.0,
        kept_revisions: int = KEPT_REVISIONS,
    ) -> None:
        self._file = SQLiteFile(Path(path), create=create, timeout_s=timeout_s)
        self._kept = kept_revisions
        self._follower = Follower(self._file.queue.path, self._keys_after)

    @property
    def path(self) -> Path:
        """The database file."""
        return self._file.path

    @property
    def can_batch(self) -> bool:
        """Always: a batch is one transaction."""
        return True

    def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT value, revision FROM kv WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else self._entry(key, row[0], row[1])

    def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT key, value, revision FROM kv WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, prefix + LAST),
            ).fetchall()
            newest = _span(connection)[1]
        entries = tuple(self._entry(key, value, revision) for key, value, revision in rows)
        return Listing(entries=entries, revision=str(newest))

    def create(self, key: str, value: Wire) -> Entry:
        """See `Store.create`."""
        return self._one(Write(verb=Verb.CREATE, key=key, value=value))

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        """See `Store.update`."""
        return self._one(Write(verb=Verb.UPDATE, key=key, value=value, revision=revision))

    def delete(self, key: str, revision: Revision | None = None) -> None:
        """See `Store.delete`."""
        self.batch((Write(verb=Verb.DELETE, key=key, revision=revision),))

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """See `Store.batch`."""
        if not writes:
            return ()
        texts = [None if write.value is None else to_text(write.value) for write in writes]
        with self._file.writing() as connection:
            entries = [
                self._carry_out(connection, write, text)
                for write, text in zip(writes, texts, strict=True)
            ]
        return tuple(entries)

    @property
    def can_expire(self) -> bool:
        """No: nobody is there to let a value vanish when its writer has died."""
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
        """See `Store.together`."""
        return self._file.together()

    def check_writable(self) -> None:
        """See `Store.check_writable`; past the log, which watches read."""
        with self.together():
            with self._file.writing() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO kv (key, value, revision) VALUES (?, ?, 0)",
                    (keys.PROBE, to_text({"filler": "x" * PROBE_BYTES})),
                )
            # A transaction of its own: pages that are freed in the same one are not written.
            with self._file.writing() as connection:
                connection.execute("DELETE FROM kv WHERE key = ?", (keys.PROBE,))

    def watch(self, prefix: str, revision: Revision) -> SQLiteWatch:
        """See `Store.watch`."""
        position = _number(revision)
        if position is None:
            raise Compacted(f"datastore {self.path}: {revision!r} is no revision of it")
        watch = SQLiteWatch(self, prefix, position)
        watch.check()
        self._follower.subscribe(watch.event, prefix, position)
        return watch

    def close(self) -> None:
        """See `Store.close`."""
        self._follower.close()
        self._file.close()

    def changes(self, prefix: str, position: int) -> tuple[int, tuple[Change, ...]]:
        """What was written below the prefix after `position`, and the new position.

        Raises:
            Compacted: not all of it is kept.
        """
        with self._file.reading() as connection:
            oldest, newest = _span(connection)
            if position + 1 < oldest or position > newest:
                raise Compacted(
                    f"datastore {self.path}: revisions {oldest} to {newest} are kept, not what"
                    f" followed {position}",
                    fix="list again and watch from there",
                )
            rows = connection.execute(
                "SELECT revision, key, value FROM log"
                " WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision",
                (position, prefix, prefix + LAST),
            ).fetchall()
        return newest, tuple(
            Change(
                key=key,
                entry=None if value is None else self._entry(key, value, revision),
                revision=str(revision),
            )
            for revision, key, value in rows
        )

    def unwatch(self, watch: SQLiteWatch) -> None:
        """Stop waking a watch."""
        self._follower.unsubscribe(watch.event)

    def _keys_after(self, position: int) -> tuple[int, Collection[str] | None]:
        with self._file.reading() as connection:
            oldest, newest = _span(connection)
            if position + 1 < oldest or position > newest:
                return newest, None
            rows = connection.execute(
                "SELECT DISTINCT key FROM log WHERE revision > ?", (position,)
            ).fetchall()
        return newest, [key for (key,) in rows]

    def _one(self, write: Write) -> Entry:
        (entry,) = self.batch((write,))
        assert entry is not None
        return entry

    def _carry_out(
        self, connection: sqlite3.Connection, write: Write, text: str | None
    ) -> Entry | None:
        row = connection.execute("SELECT revision FROM kv WHERE key = ?", (write.key,)).fetchone()
        _check(write, None if row is None else str(row[0]))
        if write.verb is Verb.DELETE:
            if row is not None:
                connection.execute("DELETE FROM kv WHERE key = ?", (write.key,))
                self._log(connection, write.key, None)
            return None
        assert write.value is not None
        assert text is not None
        revision = self._log(connection, write.key, text)
        connection.execute(
            "INSERT INTO kv (key, value, revision) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
            (write.key, text, revision),
        )
        return Entry(key=write.key, value=write.value, revision=str(revision))

    def _log(self, connection: sqlite3.Connection, key: str, text: str | None) -> int:
        cursor = connection.execute("INSERT INTO log (key, value) VALUES (?, ?)", (key, text))
        revision = cursor.lastrowid
        assert revision is not None
        if revision % PRUNE_EVERY == 0 or self._kept < PRUNE_EVERY:
            connection.execute("DELETE FROM log WHERE revision <= ?", (revision - self._kept,))
        return revision

    def _entry(self, key: str, text: str, revision: int) -> Entry:
        return Entry(key=key, value=from_stored(key, text), revision=str(revision))


class SQLiteWatch:
    """Follows one prefix of a SQLiteStore."""

    def __init__(self, store: SQLiteStore, prefix: str, position: int) -> None:
        self.event = threading.Event()
        self._store = store
        self._prefix = prefix
        self._position = position
        self._closed = False

    def check(self) -> None:
        """Raise Compacted when the start is no longer kept."""
        self._store.changes(self._prefix, self._position)

    @property
    def position(self) -> Revision:
        """See `Watch.position`."""
        return str(self._position)

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """See `Watch.wait`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Cleared before looking: a commit, or a close, after the look sets it again.
            self.event.clear()
            if self._closed:
                return ()
            self._position, changes = self._store.changes(self._prefix, self._position)
            if changes:
                return changes
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return ()
            self.event.wait(remaining)

    def close(self) -> None:
        """See `Watch.close`."""
        self._closed = True
        self._store.unwatch(self)


def _check(write: Write, found: Revision | None) -> None:
    """Whether the write's condition holds for what is there.

    Raises:
        AlreadyExists, Conflict: it does not.
    """
    if write.verb is Verb.CREATE:
        if found is not None:
            raise AlreadyExists(f"{write.key} exists already")
    elif write.verb is Verb.UPDATE or write.revision is not None:
        if found is None:
            raise Conflict(f"{write.key} was deleted since it was read")
        if found != write.revision:
            raise Conflict(f"{write.key} was changed since it was read")


def _span(connection: sqlite3.Connection) -> tuple[int, int]:
    """The oldest and newest revision of the log; (1, 0) when nothing was ever written."""
    row = connection.execute(
        "SELECT (SELECT min(revision) FROM log), (SELECT max(revision) FROM log)"
    ).fetchone()
    return (1, 0) if row[0] is None else (row[0], row[1])


def _number(revision: Revision) -> int | None:
    return int(revision) if revision.isascii() and revision.isdecimal() else None
