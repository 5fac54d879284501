"""One SQLite file: making it, checking it, connections to it, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from podwire.drivers.store.durability import Durability, SyncFailed
from podwire.drivers.store.writequeue import WriteQueue
from podwire.errors import DatastoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.drivers.store.writequeue import Turn

APPLICATION_ID = 0x706F6477
"""In the file's header: "podw"; a stranger's database is never touched."""
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE log (revision INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value TEXT);
"""
"""`log` holds every write in order (value NULL: deleted), pruned from below; its keys, which never
repeat, are the revisions."""

BESIDE = 64 * 1024
"""Bytes that opening needs on the disk: the shared memory of the -shm file has 32 KB."""
BUSY_TIMEOUT_S = 5.0
WAL_LIMIT_BYTES = 16 << 20


class SQLiteFile:
    """Connections to one database file, made when needed and kept for the next caller.

    Never opens the file but through SQLite: closing any descriptor of it would drop the POSIX locks
    of every connection of this process.
    """

    def __init__(self, path: Path, *, create: bool, timeout_s: float) -> None:
        self.path = path
        self.queue = WriteQueue(path.with_name(f"{path.name}-lock"), timeout_s=timeout_s)
        self._durability = Durability(path.with_name(f"{path.name}-wal"))
        self._create = create
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._identity: tuple[int, int] | None = None
        self._immutable = False
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: one moment of the database.

        Raises:
            DatastoreUnavailable: it can not be read; names path and fix.
        """
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a write transaction; committed at the end, undone by any exception.

        Returns when the commit is on disk, or inside `together` when it is made.

        Raises:
            DatastoreUnavailable: it can not be written; nothing was.
        """
        with self._turn() as turn, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            turn.ring()
        with self._synced():
            self._durability.committed()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Writes of this thread inside the block wait for the disk only once, at its end.

        Raises:
            DatastoreUnavailable: the disk refused; a power failure may take the writes back.
        """
        with self._synced(), self._durability.together():
            yield

    def close(self) -> None:
        """Close all connections; one in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _synced(self) -> Iterator[None]:
        try:
            yield
        except SyncFailed as error:
            raise self._meaning(sqlite3.SQLITE_IOERR, error) from None

    @contextmanager
    def _turn(self) -> Iterator[Turn]:
        try:
            self._check_directory()
            with self._lock:
                if self._identity is None and not self._create:
                    self._check_exists()
            with self.queue.turn() as turn:
                yield turn
        except OSError as error:
            raise self._refused(error) from None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            try:
                connection = self._take()
            except OSError as error:  # the path leads through a directory closed to us
                raise self._unreadable(f"cannot be opened: {error.strerror}") from None
            yield connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
                connection = None
            raise self._translated(error) from None
        finally:
            if connection is not None:
                self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise DatastoreUnavailable(f"datastore {self.path} was closed by this program")
            if self._identity is None:
                return self._open_first()
            self._check_same_file()
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not (self._closed or self._immutable):
                self._idle.append(connection)
                return
        connection.close()

    def _open_first(self) -> sqlite3.Connection:
        self._check_directory()
        if not self._create:
            self._check_exists()
        connection = self._connect(make=self._create)
        try:
            self._check_ours(connection)
            status = self.path.stat()
            self._identity = (status.st_dev, status.st_ino)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, *, make: bool = False) -> sqlite3.Connection:
        if make and not self.path.exists():
            # Ours alone to read: the mode is inherited by the -wal and -shm files. O_EXCL, so that
            # no descriptor of a file in use is ever closed here.
            with suppress(FileExistsError):
                try:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    os.close(os.open(self.path, flags, 0o600))
                except FileExistsError:
                    raise
                except OSError as error:
                    raise self._refused(error) from None
        try:
            connection = self._plain("?mode=rw")
        except sqlite3.OperationalError as error:
            if not self._readable_as_it_lies(error):
                raise
            # Reading a WAL database needs its -shm file; where none can be made, nobody can be
            # writing either, and with an empty log the main file alone is the whole truth.
            self._immutable = True
            connection = self._plain("?mode=ro&immutable=1")
        return connection

    def _plain(self, query: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}{query}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # The checkpoint's own syncs stay; those of the commits are made in durability.py.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _readable_as_it_lies(self, error: sqlite3.OperationalError) -> bool:
        primary = error.sqlite_errorcode & 0xFF
        if primary not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            return False
        log = self.path.with_name(f"{self.path.name}-wal")
        try:
            return os.access(self.path, os.R_OK) and not (log.exists() and log.stat().st_size)
        except OSError:
            return False

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        application, version, tables = self._marks(connection)
        if application == 0 and not tables:
            self._make_schema(connection)
            application, version, tables = self._marks(connection)
        if application != APPLICATION_ID:
            raise DatastoreUnavailable(
                f"{self.path} is an SQLite database of another program, not a datastore",
                fix="name another file with --datastore, or in the agent's configuration",
            )
        if version != SCHEMA_VERSION:
            raise DatastoreUnavailable(
                f"datastore {self.path} has format {version}; this podwire reads {SCHEMA_VERSION}",
                fix="use the podwire that made it, or a newer one",
            )

    def _make_schema(self, connection: sqlite3.Connection) -> None:
        # Several processes may come here at once; BEGIN IMMEDIATE lets the first one do it. The
        # journal mode can not change inside a transaction; setting it twice is harmless.
        self._write_ahead(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._tables(connection):
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @staticmethod
    def _write_ahead(connection: sqlite3.Connection) -> None:
        # Changing the mode needs the file for oneself, and SQLite does not wait for that when it
        # could deadlock: two who make the same new file meet here.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def _marks(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        """Application, format and number of tables, at one moment."""
        connection.execute("BEGIN")
        try:
            tables = self._tables(connection)
            application: int = connection.execute("PRAGMA application_id").fetchone()[0]
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.execute("ROLLBACK")
        return application, version, tables

    @staticmethod
    def _tables(connection: sqlite3.Connection) -> int:
        count: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        return count

    def _check_directory(self) -> None:
        if not self.path.parent.is_dir():
            raise DatastoreUnavailable(
                f"datastore {self.path}: the directory {self.path.parent} does not exist",
                fix=f"mkdir -p {self.path.parent}, or name another file with --datastore",
            )
        if self.path.is_dir():
            raise DatastoreUnavailable(
                f"datastore {self.path} is a directory",
                fix=f"name the file in it, such as {self.path / 'datastore.db'}",
            )

    def _check_exists(self) -> None:
        if not self.path.exists():
            raise DatastoreUnavailable(
                f"there is no datastore {self.path}",
                fix="start the agent or `podwire apply` a pool, which make one; or name the right"
                " file with --datastore",
            )

    def _check_same_file(self) -> None:
        """A removed file lives on for those who have it open: writes to it would be lost."""
        try:
            status = self.path.stat()
            same = (status.st_dev, status.st_ino) == self._identity
        except OSError:
            same = False
        if not same:
            raise DatastoreUnavailable(
                f"datastore {self.path} was removed or replaced while it was in use",
                fix="put the file back, or restart this program to use the new one",
            )

    def _refused(self, error: OSError) -> DatastoreUnavailable:
        """Why the operating system lets us make no file beside or at the path."""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            code = sqlite3.SQLITE_FULL
        elif error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            code = sqlite3.SQLITE_READONLY
        else:
            return self._unreadable(f"cannot be written: {error.strerror}")
        return self._meaning(code, error)

    def _unreadable(self, problem: str) -> DatastoreUnavailable:
        return DatastoreUnavailable(
            f"datastore {self.path} {problem}",
            fix=f"make {self.path} and its directory accessible for this user",
        )

    def _translated(self, error: sqlite3.Error) -> DatastoreUnavailable:
        """What SQLite's result code means to the user (https://sqlite.org/rescode.html)."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_IOERR and self._is_full():
            # So it says it of the files beside the file, which are made when it is opened.
            code = sqlite3.SQLITE_FULL
        return self._meaning(code, error)

    def _is_full(self) -> bool:
        try:
            room = os.statvfs(self.path.parent)
        except OSError:
            return False
        return room.f_bavail * room.f_frsize < BESIDE

    def _meaning(self, code: int, error: Exception) -> DatastoreUnavailable:
        match code:
            case sqlite3.SQLITE_FULL:
                problem = "cannot be written: no space left on its file system"
                fix = f"free some space below {self.path.parent}; nothing was changed"
            case sqlite3.SQLITE_READONLY:
                problem = "cannot be written: the file, its directory or file system is read-only"
                fix = f"make {self.path} and {self.path.parent} writable for this user"
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return self._unreadable("cannot be opened")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                problem = f"is locked: waited {BUSY_TIMEOUT_S:g} s for another program"
                fix = f"see who holds it with: fuser -v {self.path}"
            case sqlite3.SQLITE_NOTADB:
                problem = "is not an SQLite database"
                fix = "name another file with --datastore, or in the agent's configuration"
            case sqlite3.SQLITE_CORRUPT:
                problem = f"is damaged ({error})"
                fix = f"stop all agents and restore a copy, or try: sqlite3 {self.path} .recover"
            case _:
                problem = f"failed: {error}"
                fix = f"look at the disk that holds {self.path.parent}"
        return DatastoreUnavailable(f"datastore {self.path} {problem}", fix=fix)
