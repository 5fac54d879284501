"""A real Prometheus scrapes a real agent, and understands every query we ship."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from tests.fakes.prometheus import HERE, MISSING, Prometheus, ask
from tests.kernel.agent_cluster import PodOnNode, clusters, until
from tests.unit.test_metrics import panels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.peer,
    pytest.mark.long,
    pytest.mark.skipif(not HERE, reason=MISSING),
]
TARGET = "127.0.0.1:9091"


@pytest.fixture
def query(tmp_path: Path) -> Iterator[Any]:
    """Asks a Prometheus on a node whose agent it scrapes, and whose pod was just attached."""
    with clusters(tmp_path) as make:
        node = make().nodes[0]
        node.settings["healthAddress"] = TARGET
        node.start()
        PodOnNode(node, "pod-1").add()
        server = Prometheus(tmp_path / "prometheus", [TARGET]).start(*node.inside())
        here = namespaces.open_namespace(namespaces.named_path(node.netns))
        try:
            yield lambda path, **fields: namespaces.call_in(here, partial(ask, path, **fields))
        finally:
            os.close(here)
            server.terminate()
            server.wait()


def test_prometheus_understands_all_of_it(query: Any) -> None:
    def scraped() -> Any:
        found = query("query", query="podwire_endpoints")
        return found and found["result"]

    until("a scrape", scraped)
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "10s")
            text = text.replace("$job", ".*").replace("$instance", ".*")
            answer = query("query", query=text)
            assert isinstance(answer, dict), (text, answer)
    (group,) = query("rules")["groups"]
    until("every alert was judged", lambda: healthy(query("rules")["groups"][0]))
    assert [rule["state"] for rule in group["rules"]] == ["inactive"] * len(group["rules"])


def healthy(group: Any) -> bool:
    return all(rule["health"] == "ok" for rule in group["rules"])
