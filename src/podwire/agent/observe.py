"""Observe: threads that wait for the datastore to change, and the one inbox they all write to.

Only the fact that something changed matters (the loop looks at the whole state), so a message may
come twice or late, but never not at all.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from podwire.errors import Compacted, DatastoreUnavailable
from podwire.reconcile.backoff import delay_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Change, Entry, Store, Watch
    from podwire.reconcile.backoff import Draw


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything below a prefix."""

    prefix: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Changed:
    """What was written below a prefix since."""

    prefix: str
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Away:
    """The datastore does not answer for this prefix."""

    prefix: str
    reason: str


@dataclass(frozen=True, slots=True)
class Nudge:
    """Something else changed: look again."""

    endpoints: bool = False
    """The local endpoints did."""


Message: TypeAlias = Listed | Changed | Away | Nudge


class Inbox:
    """Messages for the loop; any thread writes, one reads. Selectable by its `fileno`."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable when messages wait."""
        return self._bell

    def put(self, message: Message) -> None:
        """Add a message and wake the loop."""
        self._messages.append(message)
        self.ring()

    def ring(self) -> None:
        """Wake the loop without a message."""
        os.eventfd_write(self._bell, 1)

    def take(self) -> list[Message]:
        """All messages, in order."""
        # The bell first: a message that comes now rings it again.
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        messages: list[Message] = []
        with suppress(IndexError):
            while True:
                messages.append(self._messages.popleft())
        return messages


class StoreObserver:
    """Follows one prefix of the datastore in a thread of its own: list, watch, and begin again."""

    def __init__(self, store: Store, prefix: str, inbox: Inbox, draw: Draw) -> None:
        self._store = store
        self._prefix = prefix
        self._inbox = inbox
        self._draw = draw
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        name = f"watch {prefix.rstrip('/').rsplit('/', 1)[-1]}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.close()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                self._follow()
                failures = 0
            except Compacted:
                continue  # changes were missed: list again
            except DatastoreUnavailable as error:
                failures += 1
                self._inbox.put(Away(self._prefix, error.message))
                self._stopped.wait(delay_s(failures, self._draw))

    def _follow(self) -> None:
        listing = self._store.list(self._prefix)
        self._inbox.put(Listed(self._prefix, listing.entries))
        self._watch = self._store.watch(self._prefix, listing.revision)
        try:
            while not self._stopped.is_set():
                changes = self._watch.wait()
                if changes:
                    self._inbox.put(Changed(self._prefix, changes))
        finally:
            self._watch.close()
