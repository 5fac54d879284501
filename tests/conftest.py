"""How much the property tests try; the score of the fault tests as a table after the run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    Row = tuple[str, str, str]

# No deadline and no judgement of slowness: a busy machine is no defect.
settings.register_profile(
    "quick", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")

SCORE = "fault score"
"""Key of a test's property: (network, named|wrong|silent|false alarm, fault)."""
WORDS = ("named", "wrong", "silent", "false alarm")


class ScoreTable:
    """Gathers what the tests scored, wherever they ran: reports come from the workers, too."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            properties = report.user_properties
            self.rows += [cast("Row", value) for key, value in properties if key == SCORE]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = list(table(self.rows))
        for line in lines:
            terminalreporter.write_line(line)
        kept = os.environ.get("PODWIRE_TEST_SCORES")
        if kept and lines:
            # Not created: in /tmp only the owner of a file may open it so.
            with Path(kept).open("r+") as file:
                file.seek(0, os.SEEK_END)
                file.write("".join(f"{line}\n" for line in ["", *lines]))


def table(rows: list[Row]) -> Iterator[str]:
    """Lines: one a network, the sum, and what was not as it should be."""
    if not rows:
        return
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    title = f"faults named by trace, as {user}"
    yield "".join([f"{title:36}", *(f"{word:>13}" for word in WORDS)])
    networks = list(dict.fromkeys(network for network, _, _ in rows))
    for network in (*networks, "all"):
        counts = Counter(word for name, word, _ in rows if network in {name, "all"})
        yield "".join([f"  {network:34}", *(f"{counts[word]:13}" for word in WORDS)])
    for network, word, fault in rows:
        if word in {"wrong", "false alarm"}:
            yield f"  {word}: {fault} in {network}"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ScoreTable(), "fault-scores")
