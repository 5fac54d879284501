"""Hold: for a while the agent changes nothing, neither in the kernel nor in the datastore.

For maintenance, fault labs and traces. Nothing is withdrawn: what is in the kernel goes on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.errors import AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Clock


class Hold:
    """Whether this agent's writes are stopped; thread-safe.

    `on_release` is called when writes may go on, in the thread that released; it must be cheap.
    """

    def __init__(self, clock: Clock, on_release: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held = False
        self._until: float | None = None
        self.on_release = on_release

    def active(self) -> bool:
        """Whether writes are stopped now."""
        with self._lock:
            return self._still()

    def start(self, seconds: float | None = None) -> None:
        """Stop all writes, for that long or until `release`; a second hold replaces the first."""
        with self._lock:
            self._held = True
            self._until = None if seconds is None else self._clock.monotonic() + seconds

    def release(self) -> None:
        """Let writes go on."""
        with self._lock:
            self._held = False
            self._until = None
        self.on_release()

    def remaining_s(self) -> float | None:
        """Seconds until the hold ends by itself; None without an end, or without a hold."""
        with self._lock:
            if not self._still() or self._until is None:
                return None
            return self._until - self._clock.monotonic()

    def refuse(self) -> None:
        """Raise when writes are stopped.

        Raises:
            AgentUnavailable: the agent is held; names the way to release it.
        """
        if self.active():
            raise AgentUnavailable(
                "the node agent is held: it changes nothing until it is released",
                fix="run `podwire agent release`, or wait until the hold ends",
            )

    def _still(self) -> bool:
        if self._held and self._until is not None and self._clock.monotonic() >= self._until:
            self._held = False
            self._until = None
        return self._held
