"""Hold: for a while the agent changes nothing, neither in the kernel nor in the datastore.

Somebody asks for it, for maintenance, fault labs and traces; or the agent stands back by itself, as
long as it may not serve the node. Nothing is withdrawn: what is in the kernel goes on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.errors import AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Clock
    from podwire.errors import PodwireError


class Hold:
    """Whether this agent's writes are stopped; thread-safe.

    `on_release` is called when writes may go on, in the thread that released; it must be cheap.
    """

    def __init__(self, clock: Clock, on_release: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held = False
        self._until: float | None = None
        self._standing_back: PodwireError | None = None
        self.on_release = on_release

    def active(self) -> bool:
        """Whether writes are stopped now, by whomever."""
        with self._lock:
            return self._standing_back is not None or self._still()

    def is_asked(self) -> bool:
        """Whether somebody has stopped them."""
        with self._lock:
            return self._still()

    def stand_back(self, why: PodwireError | None) -> None:
        """Stop all writes for that reason, or no longer; one that was asked for goes on."""
        with self._lock:
            before, self._standing_back = self._standing_back, why
        if before is not None and why is None:
            self.on_release()

    def refuse_standing_back(self) -> None:
        """Raise while the agent stands back.

        Raises:
            AgentUnavailable: it may not serve the node; says why.
        """
        why = self._standing_back
        if why is not None:
            raise AgentUnavailable(why.message, fix=why.fix)

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
        """Raise when somebody has stopped the writes.

        Raises:
            AgentUnavailable: the agent is held; names the way to release it.
        """
        if self.is_asked():
            raise AgentUnavailable(
                "the node agent is held: it changes nothing until it is released",
                fix="run `podwire agent release`, or wait until the hold ends",
            )

    def _still(self) -> bool:
        if self._held and self._until is not None and self._clock.monotonic() >= self._until:
            self._held = False
            self._until = None
        return self._held
