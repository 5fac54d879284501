"""When nobody answers: who comes next is told so at once, and one asks for all.

A call to a server that hangs, or is cut off, ends only with its time-out. Twenty pods that are
started meanwhile would each wait for theirs, one after the other where they take turns; and all of
them together would fall upon a server that just begins to answer again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from podwire.errors import DatastoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

FIX = "see that etcd runs, is reachable from here, and has a leader"
LONG_S = 1.0
"""Who is turned away sooner than this has not waited, and nor will the next."""
PAUSE_S = 1.0
"""How long nobody is asked after a silence was noticed."""


class Silence:
    """What all threads know of the servers' last answers. Thread-safe."""

    def __init__(self, longest_call_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest_call_s = longest_call_s
        self._now = now
        self._lock = threading.Lock()
        self._heard_at = 0.0
        self._reason: DatastoreUnavailable | None = None
        self._until = 0.0

    def respect(self) -> None:
        """Raise when a call is not worth its wait now.

        The first caller after the pause makes his call, for all.

        Raises:
            DatastoreUnavailable: in the words of the call that found the silence.
        """
        with self._lock:
            if self._reason is None:
                return
            now = self._now()
            if now < self._until:
                raise DatastoreUnavailable(self._reason.message, fix=self._reason.fix)
            self._until = now + self._longest_call_s

    def answered(self) -> None:
        """Somebody got an answer."""
        with self._lock:
            self._heard_at = self._now()
            self._reason = None

    def unanswered(self, since: float, reason: DatastoreUnavailable) -> None:
        """A call that began at `since` got no answer.

        A silence it is only when it had to wait for that, and nobody else got an answer either:
        what it asked for may have been too much.
        """
        with self._lock:
            now = self._now()
            if now - since < LONG_S:
                self._reason = None
            elif self._heard_at < since:
                self._reason = reason
                self._until = now + PAUSE_S
