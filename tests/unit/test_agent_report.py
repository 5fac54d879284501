"""The agent's report where values cannot vanish: none is written."""

from __future__ import annotations

from podwire.agent.hold import Hold
from podwire.agent.report import Reporter
from podwire.drivers.clock import SystemClock
from podwire.drivers.store.single_object import SingleObjectStore


def test_without_leases_nothing_is_reported() -> None:
    store, clock = SingleObjectStore(), SystemClock()
    reporter = Reporter(store, "here", clock, Hold(clock, on_release=lambda: None), min)
    reporter.start()
    reporter.stop()
    assert (reporter.writes, store.writes) == (0, 0)
