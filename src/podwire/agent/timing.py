"""Timing: how long things took, counted where they happen; what is read of it is a plain value.

Counting costs a few microseconds and imports nothing: only a scrape brings the metrics library.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from podwire.model.cni import Code, Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from podwire.agent.gate import Calls
    from podwire.boundary import Clock
    from podwire.model.cni import Answer, Call

Labels = tuple[str, ...]

CALL_BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
TURN_BOUNDS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
STORE_BOUNDS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
OTHER = "other"
"""Label of what is none of the known: a caller's words never become a label."""
_CODE = re.compile(rb'"code":\s*([0-9]+)')
_CODES = frozenset(str(int(code)) for code in Code)
_VERBS = frozenset(Command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """What a histogram has counted."""

    buckets: tuple[tuple[str, int], ...]
    """Each bound, the last one +Inf, and how many took no longer."""
    sum_s: float


class Histogram:
    """Counts durations between fixed bounds; any thread may observe."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one."""
        place = bisect_left(self._bounds, seconds)
        with self._lock:
            self._counts[place] += 1
            self._sum += seconds

    def read(self) -> Durations:
        """What was counted so far."""
        with self._lock:
            counts, total = tuple(self._counts), self._sum
        names = (*(str(bound) for bound in self._bounds), "+Inf")
        buckets = tuple(zip(names, accumulate(counts), strict=True))
        return Durations(buckets=buckets, sum_s=total)


class Histograms:
    """One histogram for each value of the labels; there are as many as label values, so few."""

    def __init__(self, bounds: Sequence[float], known: Sequence[Labels] = ()) -> None:
        """`known`: labels that show from the start, with nothing counted."""
        self._bounds = tuple(bounds)
        self._of: dict[Labels, Histogram] = {labels: Histogram(bounds) for labels in known}

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one."""
        found = self._of.get(labels)
        if found is None:
            found = self._of.setdefault(labels, Histogram(self._bounds))
        found.observe(seconds)

    def read(self) -> Mapping[Labels, Durations]:
        """What was counted so far, by labels."""
        return {labels: histogram.read() for labels, histogram in sorted(self._of.copy().items())}


class Gauge:
    """How many are at it now; any thread may enter and leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one for as long as the block lasts."""
        with self._lock:
            self.value += 1
        try:
            yield
        finally:
            with self._lock:
                self.value -= 1


class TimedCalls:
    """Times the plugin's calls, from the whole request to the answer delivered, refusals too."""

    def __init__(self, calls: Calls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self.durations = Histograms(CALL_BOUNDS_S, [("ADD", "0"), ("DEL", "0")])
        """By verb and code; code 0 is success."""
        self.in_flight = Gauge()

    def serve(
        self,
        call: Call,
        netns: int | None,
        *,
        gone: Callable[[], bool],
        confirm: Callable[[Answer], bool],
    ) -> None:
        """Carry out one call; see `Calls.serve`."""
        last: Answer | None = None

        def noting(answer: Answer) -> bool:
            nonlocal last
            last = answer
            return confirm(answer)

        began = self._clock.monotonic()
        with self.in_flight.one_more():
            try:
                self._calls.serve(call, netns, gone=gone, confirm=noting)
            finally:
                verb = call.environment.get("CNI_COMMAND", "")
                labels = (verb if verb in _VERBS else OTHER, code_label(last))
                self.durations.observe(labels, self._clock.monotonic() - began)


def code_label(answer: Answer | None) -> str:
    """The code of an answer as a label; `other` where there was none, or none of ours."""
    if answer is None:
        return OTHER
    if answer.code == 0:
        return "0"
    found = _CODE.search(answer.stdout)
    code = "" if found is None else found[1].decode()
    return code if code in _CODES else OTHER
