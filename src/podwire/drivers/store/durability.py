"""When a commit counts as written: once the write-ahead log is on the disk, one sync for many.

SQLite would sync inside every commit, with all other writers waiting. Here a commit only hands its
frames to the kernel (synchronous=NORMAL), the next writer goes ahead, and whoever wants to be sure
waits for a sync that began after its own commit. Everybody who waits is served by the next sync.

Others may thus see a write shortly before it would outlive a power failure. They run on the same
machine and would end with it; and because one sync covers the whole log, what is on disk is always
everything up to some commit. A killed process loses nothing: its frames are the kernel's already.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SyncFailed(Exception):
    """The disk refused; whether what was committed outlives a power failure is unknown."""


class Durability:
    """Syncs of one write-ahead log, for all threads of this process."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._counting = threading.Lock()
        self._syncing = threading.Lock()
        self._committed = 0
        self._synced = 0
        self._lost = 0
        self._owed = threading.local()

    def committed(self) -> None:
        """This thread has just committed: return when that is on disk, unless it waits `together`.

        Raises:
            SyncFailed: the disk refused.
        """
        with self._counting:
            self._committed += 1
            mine = self._committed
        if getattr(self._owed, "depth", 0):
            self._owed.latest = mine
        else:
            self._wait(mine)

    @property
    def waiting(self) -> int:
        """How many commits are not known to be on disk."""
        with self._counting:
            return self._committed - max(self._synced, self._lost)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, commits of this thread do not wait; the end of the block waits for all of them.

        A block that ends by an exception waits as well: what was committed stays committed.

        Raises:
            SyncFailed: the disk refused.
        """
        self._owed.depth = getattr(self._owed, "depth", 0) + 1
        try:
            yield
        finally:
            self._owed.depth -= 1
            latest = getattr(self._owed, "latest", 0)
            if latest and not self._owed.depth:
                self._owed.latest = 0
                self._wait(latest)

    def _wait(self, mine: int) -> None:
        with self._syncing:
            if mine <= self._lost:
                raise SyncFailed("a sync of its log failed")
            if mine <= self._synced:
                return
            with self._counting:
                covered = self._committed
            self._sync(covered)

    def _sync(self, covered: int) -> None:
        try:
            # Opened anew: SQLite deletes the log with the last connection and makes another. It
            # keeps no POSIX locks on this file, so closing a descriptor of it drops none.
            descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._synced = covered  # the last connection was closed, and synced the database itself
            return
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            # The kernel tells of lost pages once. Whoever waits for them must hear of it too, and
            # not take the next sync's success for theirs.
            self._lost = covered
            raise SyncFailed(str(error)) from error
        finally:
            os.close(descriptor)
        self._synced = covered
