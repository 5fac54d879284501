"""Pace: how the loop goes. When it must show itself again, and how long its work takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.agent.timing import TURN_BOUNDS_S, Histogram

if TYPE_CHECKING:
    from podwire.boundary import Clock

LONGEST_TURN_S = 90.0
"""A turn that takes longer is stuck (Felix's watchdog waits as long)."""
REPAIR_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class Pace:
    """Written by the loop's thread; any other may read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic() + LONGEST_TURN_S
        self._began = 0.0
        self._work_since: float | None = None
        self.turns = Histogram(TURN_BOUNDS_S)
        """One look, decide, act and tell."""
        self.repairs = Histogram(REPAIR_BOUNDS_S)
        """From the turn that found something to do until nothing was left to do."""

    def rest(self, longest_s: float) -> None:
        """The loop waits now, at most so long."""
        self._due = self._clock.monotonic() + longest_s + LONGEST_TURN_S

    def begin(self) -> None:
        """A turn begins."""
        self._began = self._clock.monotonic()
        self._due = self._began + LONGEST_TURN_S

    def end(self, *, changed: bool, busy: bool) -> None:
        """A turn ended that changed the kernel, or not; `busy`: there is more to do at once."""
        now = self._clock.monotonic()
        self.turns.observe(now - self._began)
        if self._work_since is None and (changed or busy):
            self._work_since = self._began
        if self._work_since is not None and not busy:
            self.repairs.observe(now - self._work_since)
            self._work_since = None

    def why_stuck(self) -> tuple[str, ...]:
        """A sentence when the loop should have shown itself by now; none while all is well."""
        late_s = self._clock.monotonic() - self._due
        if late_s <= 0:
            return ()
        return (f"the loop has not turned for {LONGEST_TURN_S + late_s:.0f} s",)
