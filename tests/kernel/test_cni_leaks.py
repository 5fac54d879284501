"""Addresses whose pod went without a DEL: found by this node's own kernel, and given back once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.agent.leaks import Leaks
from podwire.ipam.check import check
from podwire.ipam.request import AssignRequest
from podwire.model import keys
from tests.kernel.cni_node import (
    CNINode,
    ip,
    make_pod,
    of,
    pings,
    running_node,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    with running_node(tmp_path, block_size=29) as made:
        yield made


def leaks_of(node: CNINode) -> Leaks:
    """As the agent's, but ripe as soon as they were seen twice."""
    return Leaks(node.attachments, grace_s=0)


def lose_namespace(name: str, node: CNINode) -> None:
    before = len(node.veths())
    ip("netns", "delete", name)
    wait_for(lambda: len(node.veths()) == before - 1, f"the kernel has dropped {name}")


def is_clean(node: CNINode) -> bool:
    return check(node.store.list("/calico/").entries).problems == ()


def test_a_namespace_that_went_without_del(node: CNINode) -> None:
    lost, kept = node.add("c1", "web-0"), node.add("c2", "web-1")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    before = node.leftovers()
    leaks.look()
    assert node.leftovers() == before
    (suspicion,) = leaks.suspicions.values()
    assert suspicion.tenant.title == "demo/web-0"
    assert [str(each) for each in suspicion.tenant.addresses] == [lost.address]
    assert suspicion.proof == ("no veth of demo/web-0 (pods.c1) is in the kernel",)
    leaks.look()
    assert leaks.released == 1
    assert node.allocations() == [kept.address]
    assert list(node.stored(keys.HANDLES)) == [keys.handle_key("pods.c2")]
    assert len(node.stored(keys.ENDPOINTS)) == len(node.world.endpoints.all()) == 1
    assert is_clean(node)
    assert pings("c2", "192.0.2.1")
    leaks.look()
    assert (leaks.released, dict(leaks.suspicions)) == (1, {})
    assert node.delete("c1", ARGS="K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-0").exit == 0


def test_a_veth_that_was_deleted(node: CNINode) -> None:
    node.add("c1")
    leaks = leaks_of(node)
    (host,) = node.veths()
    ip("link", "delete", host)
    leaks.look()
    leaks.look()
    assert node.leftovers() == {}
    assert is_clean(node)
    assert node.add("c1").exit == 0  # its namespace is still there, and welcome again
    leaks.look()
    assert not leaks.suspicions


def test_a_live_pod_is_never_in_doubt(node: CNINode) -> None:
    """Whatever somebody does to its mark, its route or its endpoint: it has a veth."""
    outcome = node.add("c1", "web-0")
    (host,) = node.veths()
    leaks = leaks_of(node)
    for damage in (
        ("link", "set", host, "alias", "something else"),
        ("route", "delete", outcome.address),
        ("link", "set", host, "down"),
    ):
        ip(*damage)
        leaks.look()
        assert not leaks.suspicions, damage
    (endpoint,) = node.stored(keys.ENDPOINTS)
    node.store.delete(endpoint)
    for key in node.world.endpoints.all():
        node.world.endpoints.remove(key)
    leaks.look()
    leaks.look()
    assert not leaks.suspicions
    assert node.allocations() == [outcome.address]


def test_a_route_into_another_pods_veth_keeps_an_address(node: CNINode) -> None:
    lost = node.add("c1")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    node.add("c2")
    (other,) = node.veths()
    ip("route", "add", lost.address, "dev", other)
    leaks.look()
    leaks.look()
    assert not leaks.suspicions
    ip("route", "delete", lost.address)
    leaks.look()
    leaks.look()
    assert leaks.released == 1


def test_what_somebody_deals_with_is_passed_over(node: CNINode) -> None:
    """A DEL that waits in the spool; tunnels; other tools; other nodes' pods in our block."""
    node.add("c1")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    node.is_held = True
    assert node.delete("c1").exit == 0
    node.is_held = False
    owners = (
        {"node": "node-1", "type": "vxlanTunnelAddress"},
        {"node": "node-1", "note": "a tool's"},
        {"node": "node-2", "namespace": "demo", "pod": "far"},
    )
    for number, attributes in enumerate(owners):
        node.world.ipam.assign(AssignRequest(handle=f"pods.h{number}", attributes=attributes))
    before = node.leftovers()
    leaks.look()
    leaks.look()
    assert not leaks.suspicions
    assert node.leftovers() == before
    node.attachments.drain()
    assert len(node.allocations()) == len(owners)


def test_what_was_not_looked_at_for_long_must_hold_anew(node: CNINode) -> None:
    node.add("c1")
    lose_namespace("c1", node)
    leaks = Leaks(node.attachments, grace_s=0, gap_s=0)
    for _ in range(3):
        leaks.look()
        assert [each.looks for each in leaks.suspicions.values()] == [1]
    assert len(node.allocations()) == 1


def test_a_pod_that_comes_back_ends_the_doubt(node: CNINode) -> None:
    node.add("c1")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    leaks.look()
    assert leaks.suspicions
    make_pod("c1")
    again = node.add("c1")
    assert again.exit == 0, again.stdout
    leaks.look()
    assert not leaks.suspicions
    assert leaks.released == 0
    assert node.allocations() == [again.address]


def test_a_newer_container_keeps_what_is_its(node: CNINode) -> None:
    """The old one's veth goes without DEL; pod, host name and endpoint are the new one's."""
    node.add("c1", "web-0")
    new = node.add("c2", "web-0")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    leaks.look()
    leaks.look()
    assert leaks.released == 1
    assert node.allocations() == [new.address]
    (endpoint,) = node.stored(keys.ENDPOINTS).values()
    assert endpoint["spec"]["containerID"] == "c2"
    assert is_clean(node)
    assert pings("c2", "192.0.2.1")


def test_a_pod_under_a_handle_of_calicos_old_days(node: CNINode) -> None:
    """It names no container: the pod is known by its address, without its route, too."""
    outcome = node.add("c1", "web-0")
    (key,) = node.stored(keys.BLOCKS4)
    entry, handle = node.store.get(key), node.store.get(keys.handle_key("pods.c1"))
    assert entry is not None
    assert handle is not None
    attributes = [{**each, "handle_id": "demo.web-0"} for each in entry.value["attributes"]]
    node.store.update(key, {**entry.value, "attributes": attributes}, entry.revision)
    node.store.create(keys.handle_key("demo.web-0"), handle.value)
    node.store.delete(handle.key)
    ip("route", "delete", outcome.address)
    leaks = leaks_of(node)
    leaks.look()
    assert not leaks.suspicions
    lose_namespace("c1", node)
    leaks.look()
    leaks.look()
    assert leaks.released == 1
    assert node.leftovers() == {}


def test_an_agent_in_a_foreign_namespace_takes_nobody_for_gone(node: CNINode) -> None:
    node.add("c1")
    leaks = leaks_of(node)
    (host,) = node.veths()
    ip("address", "delete", "192.0.2.1/24", "dev", "up0")
    ip("link", "delete", host)
    leaks.look()
    leaks.look()
    assert not leaks.suspicions


def test_after_a_reboot_nothing_of_the_old_boot_is_left(node: CNINode) -> None:
    for name in ("c1", "c2"):
        assert node.add(name).exit == 0
    (block,) = node.stored(keys.BLOCKS4).values()
    assert {each["secondary"]["boot"] for each in block["attributes"]} == {node.boot[:8]}
    node.stop()
    for name in ("c1", "c2"):
        lose_namespace(name, node)
    node.boot = "b0071d01-0000-4000-8000-000000000002"
    node.start()
    assert node.leftovers() == {}
    assert is_clean(node)


def test_containers_that_vanish_while_the_agent_is_away(node: CNINode) -> None:
    """And an endpoint that cannot be read, which keeps the start from judging; the look does."""
    node.add("c1", "web-0")
    kept = node.add("c2", "web-1")
    node.stop()
    lose_namespace("c1", node)
    for key in node.stored(keys.ENDPOINTS):
        if "web--0" in key:
            node.store.delete(key)
    node.store.create(keys.endpoint_key("demo", "broken"), {"spec": 7})
    node.boot = "b0071d01-0000-4000-8000-000000000002"
    node.start()
    leaks = leaks_of(node)
    leaks.look()
    (suspicion,) = leaks.suspicions.values()
    assert suspicion.proof[1:] == ("the machine was booted since the address was given out",)
    leaks.look()
    assert leaks.released == 1
    assert node.allocations() == [kept.address]


def test_the_last_gc_is_told_as_evidence(node: CNINode) -> None:
    node.add("c1")
    node.add("c2")
    leaks = leaks_of(node)
    config = node.config("1.1.0")
    valid = [{"containerID": name, "ifname": "eth0"} for name in ("c1", "c2")]
    gc = {"CONTAINERID": None, "NETNS": None, "IFNAME": None}
    assert node.call("GC", {**config, "cni.dev/valid-attachments": valid}, **gc).exit == 0
    lose_namespace("c1", node)
    leaks.look()
    (suspicion,) = leaks.suspicions.values()
    assert len(suspicion.proof) == 1
    assert node.attachments.valid_in("pods") == {"c1", "c2"}
    assert node.add("c3").exit == 0  # newer than the list, and no stranger for it
    wait_for(lambda: node.attachments.valid_in("pods") == {"c1", "c2", "c3"}, "it is noted")


def test_a_release_waits_for_a_call_under_way(node: CNINode) -> None:
    """The look had its doubts; by the time it is its turn the container has been added again."""
    node.add("c1")
    leaks = leaks_of(node)
    lose_namespace("c1", node)
    leaks.look()
    suspicion = leaks.suspicions["pods.c1"]
    make_pod("c1")
    again = node.end(node.begin("ADD", **of("c1")))
    leaks._release(suspicion)
    assert leaks.released == 0
    assert node.allocations() == [again.address]
    assert len(node.stored(keys.ENDPOINTS)) == len(node.world.endpoints.all()) == 1
