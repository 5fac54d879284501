"""When to try again what failed: a function of how often it failed, with the dice passed in."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.errors import PodwireError

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0

Key = TypeVar("Key", bound=Hashable)
Draw: TypeAlias = Callable[[float, float], float]
"""The dice: a number between the two, which are passed in by whoever has chance."""


def delay_s(attempt: int, draw: Draw) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (1, 2, …).

    Doubles from 0.1 s to 10 s, and is drawn from its upper half so that many nodes that failed
    together do not come back together.
    """
    ceiling = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 16))
    return draw(ceiling / 2, ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong with one object, how often in a row, and when it is tried again."""

    error: PodwireError
    attempts: int
    not_before: float
    """On the clock that was passed in, seconds."""


class Failures(Generic[Key]):
    """The objects that failed; one failing object harms only itself."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._failures: dict[Key, Failure] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._failures))

    def find(self, key: Key) -> Failure | None:
        """The failure of this object, or None."""
        return self._failures.get(key)

    def all(self) -> Mapping[Key, Failure]:
        """By object."""
        return dict(self._failures)

    def failed(self, key: Key, error: PodwireError, now: float) -> bool:
        """Note a failure; whether it is news (the first in a row, or with another reason)."""
        before = self._failures.get(key)
        attempts = 1 if before is None else before.attempts + 1
        self._failures[key] = Failure(
            error=error, attempts=attempts, not_before=now + delay_s(attempts, self._draw)
        )
        return before is None or str(before.error) != str(error)

    def succeeded(self, key: Key) -> None:
        """Forget the failures of this object."""
        self._failures.pop(key, None)

    def may_try(self, key: Key, now: float) -> bool:
        """Whether the object never failed or its wait is over."""
        failure = self._failures.get(key)
        return failure is None or failure.not_before <= now

    def try_at_once(self) -> None:
        """Something changed that may have been the reason: nobody waits any longer."""
        for key, failure in self._failures.items():
            self._failures[key] = Failure(
                error=failure.error, attempts=failure.attempts, not_before=0.0
            )

    def next_try(self) -> float | None:
        """The earliest moment at which a wait is over; None when nothing failed."""
        return min((failure.not_before for failure in self._failures.values()), default=None)
