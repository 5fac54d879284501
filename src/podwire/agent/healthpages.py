"""Health pages: what the agent answers at each path."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.agent.health import liveness, page
from podwire.agent.healthserver import Page, Query, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.agent.collector import Collector
    from podwire.agent.sources import Sources


def pages(sources: Sources) -> Mapping[str, Page]:
    """By path."""

    def livez(query: Query) -> Reply:
        checks = liveness(sources.loop.pace, sources.config.agent_socket)
        status, text = page("livez", checks, verbose=query.verbose)
        return Reply(status=status, body=text.encode())

    def readyz(query: Query) -> Reply:
        status, text = page("readyz", sources.readiness.checks(), verbose=query.verbose)
        return Reply(status=status, body=text.encode())

    return {
        "/livez": Page(about="200 while the agent lives, else 503; ?verbose", answer=livez),
        "/readyz": Page(about="200 while pods can be attached, else 503; ?verbose", answer=readyz),
        "/metrics": Page(about="metrics for Prometheus", answer=Metrics(sources).answer),
    }


class Metrics:
    """Answers scrapes, one at a time; the metrics library is loaded by the first one."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._turn = threading.Lock()
        self._collector: Collector | None = None

    def answer(self, query: Query) -> Reply:
        """One scrape."""
        with self._turn:
            if self._collector is None:
                from podwire.agent.collector import Collector

                self._collector = Collector(self._sources)
            body, kind = self._collector.scrape(query.accept)
        return Reply(status=200, body=body, type=kind)
