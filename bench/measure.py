"""Series of measurements, their medians and spread, and tables of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and the range that 80 % of the values lie in."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(
            median=statistics.median(ordered),
            low=ordered[round(last * 0.1)],
            high=ordered[round(last * 0.9)],
            count=len(ordered),
        )


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One question, answered by several subjects; the last one is the yardstick."""

    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, subject: str, value: float) -> None:
        self.values.setdefault(subject, []).append(value)

    def lines(self) -> list[str]:
        heading = f"{self.title} [{self.unit}]"
        lines = [f"{heading:<56}{'median':>10}   {'80 % of all':<22}{'n':>4}   ratio"]
        for subject, values in self.values.items():
            each = Spread.of(values)
            between = f"{each.low:.2f} … {each.high:.2f}"
            ratio = self.ratio(subject)
            lines.append(
                f"  {subject:<54}{each.median:>10.2f}   {between:<22}{each.count:>4}   {ratio}"
            )
        return lines

    def ratio(self, subject: str) -> str:
        """How the subject compares with the yardstick: in the median round, and in 80 % of them."""
        yardstick = list(self.values)[-1]
        if subject == yardstick:
            return ""
        own, theirs = self.values[subject], self.values[yardstick]
        if len(own) != len(theirs) or not all(theirs):
            return f"x{Spread.of(own).median / Spread.of(theirs).median:.2f}"
        # Round by round: what slows the machine down for a while slows both.
        each = Spread.of([mine / other for mine, other in zip(own, theirs, strict=True)])
        return f"x{each.median:.2f}  ({each.low:.2f} … {each.high:.2f})"


def interleave(rounds: int, subjects: Mapping[str, Callable[[], None]]) -> None:
    """Run every subject once a round, in turning order: what disturbs one disturbs the others."""
    names = list(subjects)
    for turn in range(rounds):
        for step in range(len(names)):
            subjects[names[(turn + step) % len(names)]]()


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, ended threads included."""
    # clock_getcpuclockid(3): the id of a process's clock is made from its pid. Source:
    # include/linux/posix-timers_types.h, CPUCLOCK_SCHED.
    return time.clock_gettime((~pid << 3) | 2)


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def save(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(exist_ok=True)
    results = [
        asdict(each)
        | {"summary": {name: asdict(Spread.of(values)) for name, values in each.values.items()}}
        for each in comparisons
    ]
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
