"""Observe: threads that wait for the datastore to change, and the one inbox they all write to.

Only the fact that something changed matters (the loop looks at the whole state), so a message may
come twice or late, but never not at all.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog

from podwire.errors import Compacted, PodwireError, Restored
from podwire.reconcile.backoff import LONGEST_DELAY_S, delay_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.boundary import Change, Entry, Revision, Store, Watch
    from podwire.reconcile.backoff import Draw


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything below a prefix."""

    prefix: str
    entries: Sequence[Entry]
    is_restored: bool = False
    """The datastore was restored from a backup: equal revisions may have other values."""


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
class Waiting:
    """A human has to decide something before the datastore is followed."""

    reason: str | None
    """None: it is decided."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Something else changed: look again."""

    endpoints: bool = False
    """The local endpoints did."""


Message: TypeAlias = Listed | Changed | Away | Waiting | Nudge


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
    """Follows one prefix of the datastore in a thread of its own: list once, then watch.

    A watch that breaks is begun again where it ended, for nothing was missed: after an outage a
    hundred agents that listed everything again would be the next one. Only who asks for changes
    that are no longer kept has to list, and who follows a datastore that was restored.

    `on_restored` is told of that, before what is listed then, with how long the datastore was away.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        inbox: Inbox,
        draw: Draw,
        on_restored: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._inbox = inbox
        self._draw = draw
        self._on_restored = on_restored
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._position: Revision | None = None
        self._failures = 0
        """In a row."""
        self.away_at: float | None = None
        """Since when the datastore does not tell of this prefix (monotonic); None: it does."""
        self.losses = 0
        """How often following ended because the datastore went away."""
        self.relists = 0
        """How often changes were missed and everything was listed again."""
        self.restores = 0
        """How often the datastore was found to be restored from a backup."""
        self._is_restored = False
        """Whether it was, and has not been listed since."""
        self._restored_at = -LONGEST_DELAY_S
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
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except Restored as error:
                self._stopped.wait(delay_s(self._on_restore(error), self._draw))
            except Compacted:
                self.relists += 1  # changes were missed: list again
                self._position = None
                self._stopped.wait(delay_s(1, self._draw))
            except PodwireError as error:
                # Mostly that it is away; but whatever it is, following never ends by it.
                if self.away_at is None:
                    self.away_at = time.monotonic()
                    self.losses += 1
                self._inbox.put(Away(self._prefix, error.message))
                self._stopped.wait(delay_s(self._count_failure(began), self._draw))

    def _count_failure(self, began: float) -> int:
        # A watch that lived for a while was a success, one that breaks at once was none.
        lived = time.monotonic() - began > LONGEST_DELAY_S
        self._failures = 1 if lived else self._failures + 1
        return self._failures

    def _on_restore(self, error: Restored) -> int:
        """Trust nothing; how often that came to pass in a row."""
        now, before = time.monotonic(), self._restored_at
        self._restored_at = now
        self.restores += 1
        self._position = None
        self._is_restored = True
        # Two datastores that answer in turn must not make a busy loop.
        self._failures = 1 if now - before > LONGEST_DELAY_S else self._failures + 1
        log.warning("datastore restored", prefix=self._prefix, reason=error.message)
        self._on_restored(0.0 if self.away_at is None else now - self.away_at)
        return self._failures

    def _follow(self) -> None:
        if self._position is None:
            listing = self._store.list(self._prefix)
            self._inbox.put(Listed(self._prefix, listing.entries, self._is_restored))
            self._is_restored = False
            self._position = listing.revision
        self._watch = self._store.watch(self._prefix, self._position)
        self.away_at = None
        try:
            # Said without a change as well: whoever heard that it was away hears that it is back.
            self._inbox.put(Changed(self._prefix, ()))
            while not self._stopped.is_set():
                changes = self._watch.wait()
                if changes:
                    self._inbox.put(Changed(self._prefix, changes))
        finally:
            self._position = self._watch.position
            self._watch.close()
