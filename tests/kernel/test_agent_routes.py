"""Real agents on real namespaces: which routes there are, and that packets take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.model import keys
from podwire.model.node import Routing
from podwire.model.overlay import vtep_mac
from podwire.model.pool import Mode
from tests.kernel.agent_cluster import AgentNode, Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def block_of(node: AgentNode) -> str:
    return next(to for to, rest in node.routes().items() if rest == "blackhole")


@pytest.mark.parametrize("mode", list(Mode), ids=[f"vxlan-{mode.value.lower()}" for mode in Mode])
def test_pods_of_two_nodes_reach_each_other(make_cluster: Make, mode: Mode) -> None:
    one, two = make_cluster(mode).start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    assert "ttl=62" in here.ping(there.address, "-c", "1")
    assert "ttl=62" in there.ping(here.address, "-c", "1")
    assert "ttl=63" in here.ping("10.0.0.2", "-c", "1")
    assert "1 received" in run(*two.inside("ping", "-c", "1", "-W", "2", here.address))

    way = one.routes()[block_of(two)]
    match mode:
        case Mode.NEVER:
            assert way == "via 10.0.0.2 dev ens32"
        case Mode.CROSS_SUBNET:
            assert way == "via 10.0.0.2 dev ens32 onlink"
        case Mode.ALWAYS:
            vtep = way.split()[1]
            assert way == f"via {vtep} dev vxlan.calico onlink"
            neighbours = one.ip("neigh", "show", "dev", "vxlan.calico")
            assert f"{vtep} lladdr {vtep_mac('node-2')} PERMANENT" in neighbours
            fdb = run(*one.inside("bridge", "fdb", "show", "dev", "vxlan.calico"))
            assert f"{vtep_mac('node-2')} dst 10.0.0.2 self permanent" in fdb
    pod_route = one.routes()[here.address]
    assert pod_route.startswith("dev cali")
    assert pod_route.endswith("scope link")


def test_a_node_without_default_route_still_answers_its_pods(
    make_cluster: Make,
) -> None:
    cluster = make_cluster()
    one, two = cluster.nodes
    for node in (one, two):
        node.ip("route", "del", "default")
        node.settings["interface"] = "ens32"
    cluster.start()
    assert one.routes()["169.254.1.1"] == "dev ens32 scope link"
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    assert "ttl=62" in here.ping(there.address, "-c", "1")
    one.ip("route", "add", "default", "via", "10.0.0.254")
    until("the spare route goes", lambda: "169.254.1.1" not in one.routes())


def test_a_deleted_node_takes_its_routes_along(make_cluster: Make) -> None:
    cluster = make_cluster()
    one, two = cluster.start()
    gone = block_of(two)
    assert gone in one.routes()
    two.end()
    assert gone in one.routes()
    cluster.store.delete(keys.node_key("node-2"))
    until("the route goes", lambda: gone not in one.routes())
    assert block_of(two) == gone


def test_a_foreign_route_is_reported_and_never_replaced(
    make_cluster: Make,
) -> None:
    cluster = make_cluster()
    one, two = cluster.start()
    block = block_of(two)
    one.end()
    one.ip("route", "del", block)
    one.ip("route", "add", block, "via", "10.0.0.77", "proto", "static")
    one.start()
    status = one.settled()
    assert any(block in concern and "protocol 4" in concern for concern in status["concerns"])
    assert "10.0.0.77" in one.ip("route", "show", block)
    one.ip("route", "del", block)
    until("ours is written", lambda: one.routes().get(block) == "via 10.0.0.2 dev ens32")
    until("the concern is over", lambda: not one.ask("status")["concerns"])


def test_routing_by_bird_is_not_served_and_says_so(make_cluster: Make) -> None:
    one = make_cluster(routing=Routing.BIRD).nodes[0]
    one.begin()
    status = until("a reason", lambda: _because(one, "BIRD"))
    assert not status["ready"]
    assert set(one.routes().values()) <= {"blackhole"}  # its own block may be claimed already


def test_two_nodes_with_one_address_are_refused(make_cluster: Make) -> None:
    cluster = make_cluster()
    one, two = cluster.nodes
    one.start()
    two.settings["address"] = "10.0.0.1/24"
    two.begin()
    status = until("a reason", lambda: _because(two, "already has the address"))
    assert not status["ready"]
    assert cluster.store.get(keys.node_key("node-2")) is None


def _because(node: AgentNode, words: str) -> dict[str, object] | None:
    status = node.status()
    if status is None or not any(words in reason for reason in status["reasons"]):
        return None
    return status
