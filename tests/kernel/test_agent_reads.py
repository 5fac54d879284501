"""What an ADD costs the agent: reads of etcd and turns of the loop, counted by the agent itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from podwire.model.config import DatastoreConfig, EtcdConfig
from podwire.model.pool import Mode
from tests.fakes.etcd_server import EtcdServer
from tests.fakes.http_client import scrape
from tests.kernel.agent_cluster import PodOnNode, clusters, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.agent_cluster import AgentNode, Cluster

QUIET_S = 1.5
"""By then all that follows a call is done, and a watch that has just begun is believed."""
READS = 2
"""ClusterInformation, which may freeze everything, and the endpoint that may be there."""
TURNS = 4
"""One when the ADD is done, and the datastore tells of what it wrote."""
ADDS = 5


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    etcd = EtcdConfig(endpoints=(server.endpoint,))
    with clusters(tmp_path) as make:
        yield make(Mode.NEVER, datastore=DatastoreConfig(type="etcd", etcd=etcd))
    server.kill()


def reads(node: AgentNode) -> int:
    """Requests of the agent that etcd answers with a range."""
    name = "podwire_datastore_request_duration_seconds_count"
    found = scrape(node.health)
    reading = ("get", "list")
    return int(sum(found.value(name, operation=each, outcome="ok") for each in reading))


def test_a_lone_add_asks_etcd_only_what_it_must(cluster: Cluster) -> None:
    for each in cluster.nodes:
        each.settings["resyncPeriod"] = "1h"
    node, _ = cluster.start()
    PodOnNode(node, "pod-0").add()
    counts = []
    for number in range(1, ADDS + 1):
        pod = PodOnNode(node, f"pod-{number}")
        run("ip", "netns", "add", pod.name)
        time.sleep(QUIET_S)
        before = reads(node)
        assert pod.call("ADD")["exit"] == 0
        time.sleep(QUIET_S)
        counts.append(reads(node) - before)
    # Now and then a sweep begins in between.
    assert sorted(counts)[ADDS // 2] == READS, counts


def test_the_loop_looks_at_an_add_when_it_is_done(cluster: Cluster) -> None:
    cluster.nodes[0].settings["resyncPeriod"] = "1h"
    node = cluster.nodes[0].start()
    PodOnNode(node, "pod-0").add()
    turns = []
    for number in range(1, ADDS + 1):
        pod = PodOnNode(node, f"pod-{number}")
        run("ip", "netns", "add", pod.name)
        before = node.settled()["counters"]["turns"]
        assert pod.call("ADD")["exit"] == 0
        turns.append(node.settled()["counters"]["turns"] - before)
    assert sorted(turns)[ADDS // 2] <= TURNS, turns
