"""An etcd restored from a snapshot: agents notice, and nothing of what came after is lost."""

from __future__ import annotations

import signal
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.model.cni import Code
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.kernel.agent_cluster import PodOnNode, until
from tests.kernel.bridged_cluster import bridged_cluster
from tests.kernel.test_agent_outage import no_ping_lost, says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.agent_cluster import AgentNode
    from tests.kernel.bridged_cluster import BridgedCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[BridgedCluster]:
    cidr = ip_network("10.244.0.0/16")
    pool = IPPool(metadata=Metadata(name="default"), cidr=cidr, block_size=30)
    settings = {"leakScanPeriod": "1s", "leakGracePeriod": "2s"}
    with bridged_cluster(tmp_path, [pool], 3, settings=settings) as made:
        made.start()
        yield made


def pods(node: AgentNode, name: str, count: int) -> list[PodOnNode]:
    return [PodOnNode(node, f"{name}-{node.number}-{number}").add() for number in range(count)]


def wait_for_way(here: PodOnNode, there: PodOnNode) -> None:
    until("the way", lambda: "1 received" in here.ping(there.address, "-c", "1"))


def test_a_restored_etcd_is_told_of_the_pods_it_does_not_know(cluster: BridgedCluster) -> None:
    """By agents that ran on, and by one that was started afterwards."""
    one, _, three = cluster.nodes
    before = [pod for node in cluster.nodes for pod in pods(node, "before", 2)]
    wait_for_way(before[0], before[-1])
    cluster.save()
    gone = before.pop(1)
    assert gone.call("DEL")["exit"] == 0
    # More than the blocks of the snapshot hold.
    after = [pod for node in cluster.nodes for pod in pods(node, "after", 3)]
    living = [*before, *after]
    known = {pod.name: pod.address for pod in living}
    with no_ping_lost(before[0], before[-1].address):
        three.end(signal.SIGKILL)
        cluster.restore()
        until("it is said", lambda: says(one, "restored from a backup"), cluster.logs)
        assert after[0].call("STATUS", "1.1.0")["code"] == Code.NOT_AVAILABLE
        three.begin()
        until("all are known again", lambda: cluster.endpoints() == known, cluster.logs)
        cluster.wait_recovered()
        living += [pod for node in cluster.nodes for pod in pods(node, "new", 3)]
    addresses = [pod.address for pod in living]
    assert len(set(addresses)) == len(addresses)
    assert cluster.allocated() == sorted(addresses)
    first, last = after[0], after[-1]
    for here, there in ((first, last), (last, first), (living[-1], after[4]), (after[4], first)):
        wait_for_way(here, there)
    assert cluster.metrics("podwire_datastore_restores_total") == [1, 1, 0]
    for pod in living:
        assert pod.call("DEL")["exit"] == 0
    assert cluster.allocated() == []
    assert cluster.handles() == set()
