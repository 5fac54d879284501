"""Agents that find what leaked, on their own node and after nodes that were deleted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.clock import SystemClock, SystemDice
from podwire.ipam.check import check
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.ipam_world import pod_endpoint
from tests.kernel.agent_cluster import AgentNode, Cluster, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GONE = "node-3"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes that do not wait long."""
    with clusters(tmp_path) as make:
        made = make()
        for node in made.nodes:
            node.settings.update(leakScanPeriod="1s", leakGracePeriod="2s")
        made.start()
        yield made


def leaks(node: AgentNode) -> dict[str, Any]:
    found: dict[str, Any] = node.ask("status")["leaks"]
    return found


def objections(node: AgentNode) -> dict[str, int | None]:
    lost: Any = leaks(node)["lostNodes"]
    return {name: each["pods"] for name, each in lost.items()}


def total(cluster: Cluster, counter: str) -> int:
    return sum(leaks(node)[counter] for node in cluster.nodes)


def looks(cluster: Cluster, number: int) -> None:
    """Let every agent look that often."""
    before = [leaks(node)["looks"] for node in cluster.nodes]

    def passed() -> bool:
        now = [leaks(node)["looks"] for node in cluster.nodes]
        return all(one >= was + number for one, was in zip(now, before, strict=True))

    until(f"{number} looks", passed)


def problems(cluster: Cluster) -> list[str]:
    found = check(cluster.store.list("/").entries).problems
    return [problem.sentence for problem in found]


def of_node(cluster: Cluster, name: str) -> dict[str, object]:
    """Everything that names the node."""
    found = {e.key: e.value for e in cluster.store.list("/").entries}
    return {key: value for key, value in found.items() if name in f"{key}{value}"}


def test_a_pod_whose_endpoint_was_deleted_is_a_concern(cluster: Cluster) -> None:
    one = cluster.nodes[0]
    pod = PodOnNode(one, "pod-1").add()
    (entry,) = cluster.store.list(keys.ENDPOINTS).entries
    cluster.store.delete(entry.key)
    told = until("the concern", lambda: one.ask("status")["concerns"], one.log)
    assert [text.partition(":")[0] for text in told] == [
        "pod demo/pod-1 runs, and its WorkloadEndpoint was deleted"
    ]
    looks(cluster, 1)
    assert cluster.store.list(keys.ENDPOINTS).entries == ()
    assert pod.call("DEL")["exit"] == 0
    assert one.ask("status")["concerns"] == []


def test_a_pod_that_vanishes_is_found_and_its_address_given_back(cluster: Cluster) -> None:
    one = cluster.nodes[0]
    gone, kept = PodOnNode(one, "pod-1").add(), PodOnNode(one, "pod-2").add()
    run("ip", "netns", "delete", gone.name)
    found = until("the suspicion", lambda: leaks(one)["suspected"], one.log)
    assert [(each["pod"], each["addresses"]) for each in found] == [("demo/pod-1", [gone.address])]
    assert found[0]["proof"] == ["no veth of demo/pod-1 (pods.pod-1) is in the kernel"]
    shown = run(sys.executable, "-m", "podwire", "agent", "status", "--socket", one.socket)
    assert f"leak suspected: {gone.address} of demo/pod-1" in shown
    until("the release", lambda: leaks(one)["released"] == 1, one.log)
    assert not of_node(cluster, "pod-1")
    assert problems(cluster) == []
    assert " 0% packet loss" in kept.ping("10.0.0.1", "-c", "1")
    assert gone.call("DEL")["exit"] == 0


def lose_a_node(cluster: Cluster) -> Node:
    """A third node, with pods, a tunnel's address and a publication, whose machine is no more."""
    node = Node(metadata=Metadata(name=GONE))
    cluster.store.create(codec.key_of(node), codec.encode(node))
    ipam = IPAM(cluster.store, GONE, SystemClock(), SystemDice(), node_labels={})
    for number in range(3):
        owner = {"node": GONE, "namespace": f"ns{number}", "pod": "web"}
        got = ipam.assign(AssignRequest(handle=f"net.gone{number}", attributes=owner))
        endpoint = pod_endpoint("web", str(got.address), GONE, namespace=f"ns{number}")
        cluster.store.create(codec.key_of(endpoint), codec.encode(endpoint))
    tunnel = {"node": GONE, "type": "ipipTunnelAddress"}
    ipam.assign(AssignRequest(handle=f"ipip-tunnel-addr-{GONE}", attributes=tunnel))
    cluster.store.create(keys.applied_key(GONE), {"blocks": []})
    return node


def test_what_a_deleted_node_left_is_cleared_up_once(cluster: Cluster) -> None:
    one, two = cluster.nodes
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    node = lose_a_node(cluster)
    before = of_node(cluster, GONE)
    looks(cluster, 3)
    assert of_node(cluster, GONE) == before, "a silent node is no deleted one"
    cluster.store.delete(codec.key_of(node))
    until("its loss is seen", lambda: all(leaks(n)["lostNodes"] for n in cluster.nodes))
    cluster.store.create(codec.key_of(node), codec.encode(node))
    looks(cluster, 3)
    assert of_node(cluster, GONE) == before, "it came back at once"
    cluster.store.delete(codec.key_of(node))
    until("all of it is gone", lambda: not of_node(cluster, GONE), one.log)
    looks(cluster, 2)
    assert total(cluster, "nodesCleared") == 1
    assert total(cluster, "released") == 0
    assert problems(cluster) == []
    assert " 0% packet loss" in here.ping(there.address, "-c", "1")


def test_addresses_of_live_pods_of_a_deleted_node_are_not_taken(cluster: Cluster) -> None:
    one, two = cluster.nodes
    pod = PodOnNode(one, "pod-1").add()
    cluster.store.delete(keys.node_key(one.name))
    until("the objection", lambda: cluster.store.get(keys.objection_key(one.name)), one.log)
    heeded = {one.name: 1}
    until("the other heeds it", lambda: objections(two) == heeded, two.log)
    looks(cluster, 3)
    handles = [entry.key for entry in cluster.store.list(keys.HANDLES).entries]
    assert keys.handle_key("pods.pod-1") in handles
    assert ["its agent runs, with 1 of its pods" in each for each in problems(cluster)] == [True]
    assert pod.call("DEL")["exit"] == 0
    until("all of it is gone", lambda: not of_node(cluster, one.name), two.log)
    assert problems(cluster) == []
    one.end()
    one.start()
    again = PodOnNode(one, "pod-3").add()
    assert " 0% packet loss" in again.ping("10.0.0.2", "-c", "1")
    assert problems(cluster) == []


@pytest.mark.long
def test_handles_without_addresses_are_deleted_once(cluster: Cluster) -> None:
    one, _ = cluster.nodes
    pod = PodOnNode(one, "pod-1").add()
    ghosts = [keys.handle_key(f"pods.ghost{number}") for number in range(3)]
    for ghost in ghosts:
        value = {"block": {"10.244.0.0/26": 1}, "deleted": False}
        cluster.store.create(ghost, value)
    until("they are gone", lambda: not any(map(cluster.store.get, ghosts)), one.log)
    looks(cluster, 2)
    assert total(cluster, "handlesCollected") == len(ghosts)
    assert cluster.store.get(keys.handle_key("pods.pod-1")) is not None
    assert problems(cluster) == []
    assert pod.call("DEL")["exit"] == 0
