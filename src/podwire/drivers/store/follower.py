"""One thread per store that hears of commits by inotify and wakes the watches they concern.

Writers touch the lock file after each commit. The write-ahead log itself would ring too early:
its pages are written before the commit can be seen. A look once a second is the net below it: for
a writer killed between commit and touch, and where inotify has no instance left to give.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

IN_MODIFY = 0x00000002
IN_NONBLOCK = 0o4000
IN_CLOEXEC = 0o2000000

LOOK_EVERY_MS = 1000


class Follower:
    """Wakes subscribers whose prefix a new revision touches."""

    def __init__(
        self, bell: Path, look: Callable[[int], tuple[int, Collection[str] | None]]
    ) -> None:
        """Store what is given.

        `look(position)` returns the newest revision and the keys written after `position`; None for
        the keys when they are not all known any more.
        """
        self._bell = bell
        self._look = look
        self._lock = threading.Lock()
        self._subscribers: dict[threading.Event, str] = {}
        self._thread: threading.Thread | None = None
        self._wake: int | None = None
        self._position = 0

    def subscribe(self, event: threading.Event, prefix: str, position: int) -> None:
        """Set `event` after every commit below `prefix` later than `position`."""
        with self._lock:
            self._subscribers[event] = prefix
            if self._thread is None:
                self._position = position
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(
                    target=self._run, args=(self._wake,), name="datastore-follower", daemon=True
                )
                self._thread.start()

    def unsubscribe(self, event: threading.Event) -> None:
        """Forget the event and set it a last time."""
        with self._lock:
            self._subscribers.pop(event, None)
        event.set()

    def close(self) -> None:
        """End the thread and wake everybody."""
        with self._lock:
            thread, self._thread = self._thread, None
            events = list(self._subscribers)
            self._subscribers.clear()
        if thread is not None and self._wake is not None:
            os.eventfd_write(self._wake, 1)
            thread.join()
            os.close(self._wake)
        for event in events:
            event.set()

    def _run(self, wake: int) -> None:
        inotify = _inotify()
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        if inotify is not None:
            poller.register(inotify, select.POLLIN)
        try:
            quiet = True
            while True:
                if inotify is not None and quiet:
                    # Again after every quiet second: a lock file made anew has a new inode.
                    _listen(inotify, self._bell)
                # Looked at before each wait, so the first look is after listening began.
                self._tell()
                ready = {descriptor for descriptor, _ in poller.poll(LOOK_EVERY_MS)}
                if wake in ready:
                    return
                quiet = not ready
                if inotify is not None and not quiet:
                    _drain(inotify)
        finally:
            if inotify is not None:
                os.close(inotify)

    def _tell(self) -> None:
        keys: Collection[str] | None
        try:
            self._position, keys = self._look(self._position)
        except PodwireError:
            keys = None  # the watches find out for themselves and report it
        with self._lock:
            concerned = [
                event
                for event, prefix in self._subscribers.items()
                if keys is None or any(key.startswith(prefix) for key in keys)
            ]
        for event in concerned:
            event.set()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _inotify() -> int | None:
    """A new inotify instance; None when the user has no more (fs.inotify.max_user_instances)."""
    descriptor: int = _libc().inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    return None if descriptor < 0 else descriptor


def _listen(inotify: int, path: Path) -> None:
    with suppress(OSError):  # a read-only directory: nobody writes there either
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    _libc().inotify_add_watch(inotify, os.fsencode(path), ctypes.c_uint32(IN_MODIFY))


def _drain(inotify: int) -> None:
    with suppress(BlockingIOError):
        while os.read(inotify, 65536):
            pass
