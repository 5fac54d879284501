"""Choices: run something for every way its open questions can be answered.

A question is open because packets are spread by chance, or because nobody knows the answer. The
run is repeated with another answer until all are through; equal results need no answer at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MAX_RUNS = 256


class TooMany(Exception):
    """More ways than anybody wants to read."""


@dataclass(slots=True)
class Choices:
    """The answers of one run."""

    script: tuple[int, ...] = ()
    made: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def pick(self, count: int) -> int:
        """One of `count` answers."""
        place = len(self.made)
        found = self.script[place] if place < len(self.script) else 0
        self.made.append(found)
        self.counts.append(count)
        return found


@dataclass(frozen=True, slots=True)
class Way(Generic[T]):
    """One run's result and its answers."""

    result: T
    answers: tuple[int, ...]


def explore(run: Callable[[Choices], T]) -> list[Way[T]]:
    """All runs, the one with the first answers first.

    Raises:
        TooMany: there are more than MAX_RUNS.
    """
    found: list[Way[T]] = []
    scripts: list[tuple[int, ...]] = [()]
    while scripts:
        if len(found) >= MAX_RUNS:
            raise TooMany
        script = scripts.pop()
        choices = Choices(script)
        found.append(Way(run(choices), tuple(choices.made)))
        for place in range(len(script), len(choices.made)):
            before = tuple(choices.made[:place])
            scripts += [(*before, other) for other in range(1, choices.counts[place])]
    return found
