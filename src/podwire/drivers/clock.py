"""The real clock and the real dice."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime


class SystemClock:
    """Time as the machine has it (see `boundary.Clock`)."""

    def now(self) -> datetime:
        """Wall clock in UTC."""
        return datetime.now(UTC)

    def now_ns(self) -> int:
        """Wall clock in nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class SystemDice:
    """Chance enough to spread retries (see `boundary.Dice`); nothing secret hangs on it."""

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return random.uniform(low, high)  # noqa: S311
