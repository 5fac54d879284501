"""CHECK, GC and STATUS: what they find, and that they repair or remove nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from podwire.model import codec, keys
from tests.kernel.cni_node import (
    CNINode,
    Outcome,
    ip,
    make_pod,
    of,
    running_node,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "cali7a4b00317e6"
POD = "demo-deployment-6cbdbd86d5-nm467"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    with running_node(tmp_path) as made:
        yield made


def check(node: CNINode, added: Outcome, container: str = "c1", **fields: Any) -> Outcome:
    return node.call("CHECK", node.config(prevResult=added.told, **fields), **of(container))


# --- CHECK ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_sound_attachment_passes(node: CNINode, version: str) -> None:
    added = node.call("ADD", node.config(version))
    done = node.call("CHECK", node.config(version, prevResult=added.told))
    assert (done.exit, done.stdout) == (0, "")


def test_more_routes_in_the_pod_are_allowed(node: CNINode) -> None:
    added = node.add()
    ip("route", "add", "198.51.100.0/24", "via", "169.254.1.1", pod="c1")
    assert check(node, added).exit == 0


@pytest.mark.parametrize(
    ("damage", "pod", "word"),
    [
        ("address delete {address}/32 dev eth0", "c1", "address"),
        ("link set eth0 address 02:00:00:00:00:99", "c1", "MAC"),
        ("link set eth0 mtu 1400", "c1", "MTU"),
        ("link set eth0 down", "c1", "down"),
        ("route delete default", "c1", "0.0.0.0/0"),
        ("link set eth0 name eth9", "c1", "missing"),
        ("link set {host} address 02:00:00:00:00:99", None, "MAC"),
        ("link set {host} down", None, "down"),
        ("route delete {address}", None, "route"),
        ("link set {host} alias nothing", None, "missing"),
    ],
)
def test_a_difference_is_told_and_not_repaired(
    node: CNINode, damage: str, pod: str | None, word: str
) -> None:
    added = node.add(pod=POD)
    if "eth9" in damage:
        ip("link", "set", "eth0", "down", pod="c1")
    ip(*damage.format(address=added.address, host=HOST).split(), pod=pod)
    for _ in range(2):
        outcome = check(node, added)
        assert (outcome.code, word in outcome.told["msg"]) == (103, True), outcome.stdout


def test_a_changed_switch_is_told(node: CNINode) -> None:
    added = node.add(pod=POD)
    proxy_arp = Path(f"/proc/sys/net/ipv4/conf/{HOST}/proxy_arp")
    proxy_arp.write_text("0")
    outcome = check(node, added)
    assert (outcome.code, "proxy_arp" in outcome.told["msg"]) == (103, True)
    assert proxy_arp.read_text().strip() == "0"


def test_a_lost_allocation_is_told(node: CNINode) -> None:
    added = node.add()
    node.world.ipam.release_handle("pods.c1")
    outcome = check(node, added)
    assert (outcome.code, added.address in outcome.told["msg"]) == (103, True)


def test_another_result_than_adds_is_told(node: CNINode) -> None:
    added = node.add()
    added.stdout = added.stdout.replace(added.address, "10.244.0.99")
    outcome = check(node, added)
    assert (outcome.code, "prevResult" in outcome.told["msg"]) == (103, True)


def test_what_is_not_attached_fails(node: CNINode) -> None:
    added = node.add()
    assert check(node, added, "c2").code == 103
    node.delete()
    assert check(node, added).code == 103


# --- GC -------------------------------------------------------------------------------------------


def collect(node: CNINode, valid: object, **fields: Any) -> Outcome:
    # An ADD counts as in flight until the agent has taken in the plugin's confirmation.
    wait_for(lambda: not node.attachments.working(), "nothing is in flight")
    config = node.config("1.1.0", **{"cni.dev/valid-attachments": valid, **fields})
    return node.call("GC", config, CONTAINERID=None, NETNS=None, IFNAME=None)


def listed(*containers: str) -> list[dict[str, str]]:
    return [{"containerID": name, "ifname": "eth0"} for name in containers]


def test_only_valid_attachments_stay(node: CNINode) -> None:
    addresses = {name: node.add(name).address for name in ("c1", "c2", "c3")}
    done = collect(node, listed("c2", "unknown"))
    assert (done.exit, done.stdout) == (0, "")
    assert node.allocations() == [addresses["c2"]]
    assert len(node.veths()) == 1


def test_an_empty_list_removes_all_of_this_network_only(node: CNINode) -> None:
    node.add("c1")
    other = node.call("ADD", node.config(name="other"), **of("c2"))
    assert collect(node, []).exit == 0
    assert node.allocations() == [other.address]
    assert collect(node, [], name="other").exit == 0
    assert node.leftovers() == {}


def test_a_missing_list_removes_nothing(node: CNINode) -> None:
    node.add("c1")
    done = node.call("GC", node.config("1.1.0"))
    assert done.code == 7
    assert len(node.veths()) == 1


def test_an_add_in_flight_is_exempt(node: CNINode) -> None:
    node.add("c1")
    node.others_know.clear()
    process = node.begin("ADD", **of("c2"))
    wait_for(lambda: len(node.waits) == 2, "the ADD waits for other nodes")
    config = node.config("1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.call("GC", config).exit == 0
    node.others_know.set()
    added = node.end(process)
    assert added.exit == 0
    assert node.allocations() == [added.address]


def test_a_call_at_work_is_waited_for_and_not_for_ever(node: CNINode) -> None:
    assert node.attachments.wait_until_idle(0)
    node.others_know.clear()
    process = node.begin("ADD", **of("c1"))
    wait_for(lambda: len(node.waits) == 1, "the ADD waits for other nodes")
    assert not node.attachments.wait_until_idle(0.01)
    node.others_know.set()
    assert node.end(process).exit == 0
    assert node.attachments.wait_until_idle(5)


def test_the_same_container_with_another_interface_is_not_valid(node: CNINode) -> None:
    node.add("c1")
    collect(node, [{"containerID": "c1", "ifname": "eth1"}])
    assert node.leftovers() == {}


def test_addresses_without_endpoint_are_collected_and_tunnels_are_not(node: CNINode) -> None:
    from podwire.ipam.service import AssignRequest
    from podwire.model.pool import Use

    world = node.world
    lost = {"node": world.node, "namespace": "default", "pod": "lost"}
    tunnel = {"node": world.node, "type": "ipipTunnelAddress"}
    world.ipam.assign(AssignRequest(handle="pods.lost", attributes=lost))
    world.ipam.assign(AssignRequest(handle="other.lost", attributes=lost))
    kept = world.ipam.assign(
        AssignRequest(handle="ipip-tunnel-addr-node-1", attributes=tunnel, use=Use.TUNNEL)
    )
    assert collect(node, listed("lost")).exit == 0
    assert len(node.allocations()) == 3
    assert collect(node, []).exit == 0
    assert len(node.allocations()) == 2
    assert collect(node, [], name="other").exit == 0
    assert node.allocations() == [str(kept.address)]


# --- STATUS ---------------------------------------------------------------------------------------


def status(node: CNINode) -> Outcome:
    return node.call("STATUS", node.config("1.1.0"), CONTAINERID=None, NETNS=None, IFNAME=None)


def freeze(node: CNINode, ready: bool) -> None:
    key = keys.cluster_key()
    entry = node.store.get(key)
    cluster = replace(codec.decode_cluster(key, entry.value), ready=ready)
    node.store.update(key, codec.encode(cluster), entry.revision)


def test_a_ready_node_says_so(node: CNINode) -> None:
    assert (status(node).exit, status(node).stdout) == (0, "")


def test_a_held_node_is_not_ready_and_changes_nothing(node: CNINode) -> None:
    first = node.add("c1")
    node.is_held = True
    assert (status(node).code, "held" in status(node).told["msg"]) == (50, True)
    assert node.add("c2").code == 11
    assert collect(node, []).code == 11
    assert check(node, first).exit == 0
    assert node.delete("c1").exit == 0
    assert node.allocations() == [first.address]
    assert len(node.veths()) == 1
    node.is_held = False
    wait_for(lambda: node.attachments.drain() or not node.leftovers(), "the spool is drained")
    assert node.leftovers() == {}


def test_a_frozen_cluster_takes_no_pods(node: CNINode) -> None:
    node.add("c1")
    freeze(node, ready=False)
    assert (status(node).code, "datastoreReady" in status(node).told["msg"]) == (50, True)
    refused = node.add("c2")
    assert (refused.code, "datastoreReady" in refused.told["msg"]) == (11, True)
    assert node.delete("c1").exit == 0
    assert node.veths() == []
    assert len(node.allocations()) == 1
    freeze(node, ready=True)
    node.attachments.drain()
    assert node.leftovers() == {}


def test_a_waiting_delete_comes_before_a_new_add(node: CNINode) -> None:
    first = node.add("c1")
    freeze(node, ready=False)
    node.delete("c1")
    freeze(node, ready=True)
    second = node.add("c1")
    assert second.exit == 0, second.stdout
    assert node.allocations() == [second.address]
    node.attachments.drain()
    assert node.allocations() == [second.address] != [first.address]


def test_a_node_without_addresses_is_not_ready(tmp_path: Path) -> None:
    node = CNINode(tmp_path)
    node.add_node()
    node.start()
    assert (status(node).code, "IPPool" in status(node).told["msg"]) == (50, True)
    node.add_pool("10.1.0.0/30", block_size=30)
    node.world.ipam.usage()
    wait_for(lambda: status(node).exit == 0, "ready with a pool")
    for name in ("a", "b", "c", "d"):
        make_pod(name)
        assert node.add(name).exit == 0
    assert (status(node).code, "is left for node" in status(node).told["msg"]) == (50, True)
    node.stop()


def test_an_unregistered_node_is_not_ready(node: CNINode) -> None:
    node.store.delete(keys.node_key("node-1"))
    assert status(node).code == 50


def test_check_needs_its_namespace(node: CNINode) -> None:
    added = node.add()
    namespaces.delete_named("c1")
    assert check(node, added).code == 4
