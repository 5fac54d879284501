"""One writer at a time, and each in turn: a queue for the writers of one SQLite file.

SQLite itself makes a second writer sleep and try again; under load one process can so be starved
for seconds. `flock` on a file beside the database puts the processes into a queue first.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from podwire.errors import DatastoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class WriteQueue:
    """The queue, for all threads and processes that use the same lock file.

    The lock file holds nothing that matters; deleting it costs fairness for a moment, no data.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._inside = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for our turn and hold it for the body.

        Raises:
            DatastoreUnavailable: others kept it for the whole timeout.
            OSError: the lock file can not be opened (read-only, full, no such directory).
        """
        deadline = time.monotonic() + self._timeout_s
        if not self._inside.acquire(timeout=self._timeout_s):
            raise self._too_long()
        try:
            # Opened anew for every turn: a lock file that somebody deleted is soon left behind.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _lock(descriptor, deadline):
                raise self._too_long()
            try:
                yield Turn(descriptor)
            finally:
                os.close(descriptor)
        finally:
            self._inside.release()

    def _too_long(self) -> DatastoreUnavailable:
        return DatastoreUnavailable(
            f"datastore: waited {self._timeout_s:g} s for other writers of {self.path}",
            fix=f"see who holds it with: fuser -v {self.path}",
        )


class Turn:
    """Our turn to write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ring(self) -> None:
        """Tell everybody who watches the lock file that something was committed."""
        # A full disk must not turn a committed write into a failure; watchers also look by clock.
        with suppress(OSError):
            os.pwrite(self._descriptor, b"\n", 0)


def _lock(descriptor: int, deadline: float) -> bool:
    """Take the lock by `deadline` (monotonic), else close the descriptor and return False."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _Waiter(descriptor).wait(deadline - time.monotonic())
    except OSError:
        os.close(descriptor)
        raise
    return True


class _Waiter:
    """A blocking `flock` with a time limit.

    The call has none, polling would be unfair and a signal can interrupt only the main thread: so a
    thread waits in the kernel's queue, and lets go again at once if nobody wants the lock any more.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decided = threading.Lock()
        self._locked = threading.Event()
        self._given_up = False

    def wait(self, timeout_s: float) -> bool:
        threading.Thread(target=self._block, name="datastore-queue", daemon=True).start()
        if self._locked.wait(max(timeout_s, 0.0)):
            return True
        with self._decided:
            self._given_up = not self._locked.is_set()
        return not self._given_up

    def _block(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._decided:
            if not self._given_up:
                self._locked.set()
                return
        os.close(self._descriptor)
