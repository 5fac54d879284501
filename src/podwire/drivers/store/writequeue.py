"""One writer at a time, and each in turn: a queue for the writers of one SQLite file.

SQLite itself makes a second writer sleep and try again; under load one process can so be starved
for seconds. One lock beside the database is not enough either: whoever just let go is running, and
those it wakes are not, so on a busy machine it takes the lock again, hundreds of times. Hence two
locks, a gate and the turn: who waits for the turn holds the gate, and who let go of the turn finds
the gate shut until the one before it has had its turn.

The locks are open file description locks on two bytes of one file (fcntl(2), F_OFD_SETLK): they
belong to the descriptor, so threads of one process are told apart, and the kernel drops them with
the process.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from podwire.errors import DatastoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


GATE, TURN = 0, 1
"""The bytes of the lock file; they need not exist."""


class WriteQueue:
    """The queue, for all threads and processes that use the same lock file.

    The lock file holds nothing that matters; deleting it costs fairness for a moment, no data.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._gate = threading.Lock()
        self._inside = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for our turn and hold it for the body.

        Raises:
            DatastoreUnavailable: others kept it for the whole timeout.
            OSError: the lock file can not be opened (read-only, full, no such directory).
        """
        deadline = time.monotonic() + self._timeout_s
        if not self._take_inside(deadline):
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

    def _take_inside(self, deadline: float) -> bool:
        """The same gate and turn among the threads of this process."""
        if not self._gate.acquire(timeout=self._timeout_s):
            return False
        try:
            return self._inside.acquire(timeout=max(deadline - time.monotonic(), 0.0))
        finally:
            self._gate.release()

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
    """Take the turn by `deadline` (monotonic), else close the descriptor and return False."""
    try:
        if _take(descriptor, GATE, wait=False) and _take(descriptor, TURN, wait=False):
            _let_go(descriptor, GATE)
            return True
    except OSError:
        os.close(descriptor)
        raise
    return _Waiter(descriptor).wait(deadline - time.monotonic())


def _take(descriptor: int, byte: int, *, wait: bool) -> bool:
    """Lock one byte; what this descriptor holds already is success."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(descriptor, command, _range(fcntl.F_WRLCK, byte))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _let_go(descriptor: int, byte: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range(fcntl.F_UNLCK, byte))


def _range(type: int, byte: int) -> bytes:
    """A struct flock of one byte (type, whence, start, length, pid); the pid must be 0."""
    return struct.pack("hhqqi4x", type, os.SEEK_SET, byte, 1, 0)


class _Waiter:
    """Taking the turn with a time limit.

    The call has none, polling would be unfair and a signal can interrupt only the main thread: so a
    thread waits in the kernel's queue, and lets go again at once if nobody wants the turn any more.
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
        _take(self._descriptor, GATE, wait=True)
        _take(self._descriptor, TURN, wait=True)
        _let_go(self._descriptor, GATE)
        with self._decided:
            if not self._given_up:
                self._locked.set()
                return
        os.close(self._descriptor)
