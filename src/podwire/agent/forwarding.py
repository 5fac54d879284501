"""Whether other firewalls of this node let pods' packets be forwarded.

The rules are asked with the model that traces use (trace/forwarded.py). Nothing is changed here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.drivers.collect import collect_rules
from podwire.drivers.rulesets import legacy_tables
from podwire.errors import PodwireError
from podwire.model.kernelstate import NamespaceRef
from podwire.trace.forwarded import complaints

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Clock

PAUSE_S = 1.0
IDLE = 50
"""How many times as long as a look takes nothing is looked at: large rule sets take long."""


class Forwarding:
    """Looks in a thread of its own; the loop begins it and reads what came of it."""

    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._due = True
        self._not_before = 0.0
        self._thread: threading.Thread | None = None
        self._found: tuple[str, ...] = ()

    def concerns(self) -> tuple[str, ...]:
        """Who drops what pods send or get, and the fix."""
        return self._found

    def suspect(self) -> None:
        """iptables-legacy tells of no change: where it has rules, look again."""
        self._due |= _has_legacy()

    def look(self, device: str, *, changed: bool, may_drop: Callable[[], bool]) -> None:
        """Begin to look where it is time to; `device` is the one that leads to other nodes.

        `changed`: whether rules of others have; `may_drop`: whether nftables has a chain that drops
        what no rule accepts.
        """
        self._due |= changed
        now = self._clock.monotonic()
        busy = self._thread is not None and self._thread.is_alive()
        if not self._due or busy or now < self._not_before:
            return
        self._due, self._not_before = False, now + PAUSE_S
        if not (may_drop() or _has_legacy()):
            self._found = ()
            return
        self._thread = threading.Thread(
            target=self._look, args=(device,), name="forwarding", daemon=True
        )
        self._thread.start()

    def next_wait_s(self) -> float | None:
        """Seconds until a look that is due may begin; None when none is."""
        wait = self._not_before - self._clock.monotonic()
        return wait if self._due and wait > 0 else None

    def _look(self, device: str) -> None:
        begun = self._clock.monotonic()
        try:
            found = complaints(collect_rules(NamespaceRef(inode=0, name="this node")), device)
        except PodwireError as error:
            found = (f"forwarding what pods send and get: nobody can say: {error}",)
        ended = self._clock.monotonic()
        self._not_before = max(self._not_before, ended + IDLE * (ended - begun))
        if found != self._found:
            self._found = found
            self._on_change()


def _has_legacy() -> bool:
    try:
        return any("filter" in tables for tables in legacy_tables().values())
    except OSError:
        return False
