"""ADD and DEL on a real kernel and a real datastore, through the real program."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from podwire.model.link import HOST_MAC
from tests.kernel.cni_node import (
    CNINode,
    inside,
    ip,
    links_inside,
    make_pod,
    of,
    pings,
    running_node,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

STORY = "demo-deployment-6cbdbd86d5-nm467"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    with running_node(tmp_path, pods=2) as made:
        yield made


def setting(name: str) -> str:
    return Path("/proc/sys/net", name).read_text().strip()


def test_a_pod_is_attached_as_the_story_tells(node: CNINode) -> None:
    outcome = node.add(pod=STORY)
    assert outcome.exit == 0, outcome.stdout
    eth0 = links_inside("c1")["eth0"]
    assert outcome.told["interfaces"] == [
        {"name": "cali7a4b00317e6"},
        {"name": "eth0", "mac": eth0.mac, "mtu": 1450, "sandbox": "/run/netns/c1"},
    ]
    assert outcome.told["ips"] == [{"interface": 1, "address": f"{outcome.address}/32"}]
    assert eth0.mac is not None
    assert int(eth0.mac[:2], 16) & 3 == 2
    routes = "default via 169.254.1.1 dev eth0 169.254.1.1 dev eth0 scope link"
    assert ip("route", pod="c1").split() == routes.split()
    assert f"{outcome.address} dev cali7a4b00317e6 proto 80 scope link" in ip("route")
    neighbour = ip("neighbour", "show", "dev", "cali7a4b00317e6")
    assert f"{outcome.address} lladdr {eth0.mac} PERMANENT" in neighbour
    shown = ip("link", "show", "cali7a4b00317e6")
    assert f"alias podwire c1 demo/{STORY} eth0" in shown
    assert HOST_MAC in shown


def test_the_kernels_switches_are_set(node: CNINode) -> None:
    name = node.add(pod=STORY).told["interfaces"][0]["name"]
    conf = f"ipv4/conf/{name}"
    found = {
        key: setting(f"{conf}/{key}")
        for key in ("proxy_arp", "forwarding", "rp_filter", "route_localnet")
    }
    assert set(found.values()) == {"1"}
    assert setting(f"ipv4/neigh/{name}/proxy_delay") == "0"
    assert inside("c1", lambda: setting("ipv4/ip_forward")) == "0"
    assert setting("ipv4/ip_forward") == "1"


def test_what_the_datastore_holds_is_calicos(node: CNINode) -> None:
    address = node.add(pod="web-0").address
    ((key, endpoint),) = node.stored(
        "/calico/resources/v3/projectcalico.org/workloadendpoints/"
    ).items()
    assert key.endswith("/demo/node--1-k8s-web--0-eth0")
    assert endpoint["metadata"]["labels"] == {
        "projectcalico.org/namespace": "demo",
        "projectcalico.org/orchestrator": "k8s",
    }
    spec = endpoint["spec"]
    assert (spec["node"], spec["pod"], spec["containerID"]) == ("node-1", "web-0", "c1")
    assert spec["ipNetworks"] == [f"{address}/32"]
    assert spec["profiles"] == ["kns.demo"]
    assert list(node.stored("/calico/ipam/v2/handle/")) == ["/calico/ipam/v2/handle/pods.c1"]
    assert node.allocations() == [address]


def test_without_kubernetes_names_follow_the_container(node: CNINode) -> None:
    assert node.add().exit == 0
    (endpoint,) = node.stored(
        "/calico/resources/v3/projectcalico.org/workloadendpoints/default/"
    ).values()
    assert endpoint["metadata"]["name"] == "node--1-cni-c1-eth0"
    assert endpoint["spec"]["profiles"] == ["pods"]


def test_pods_reach_each_other_and_their_node_at_once(node: CNINode) -> None:
    one, two = node.add("c1", "web-1").address, node.add("c2", "web-2").address
    assert pings("c1", two)
    assert pings("c2", one)
    assert pings("c1", "192.0.2.1")


def test_delete_leaves_nothing(node: CNINode) -> None:
    for container in ("c1", "c2"):
        assert node.add(container, f"web-{container}").exit == 0
    for container in ("c1", "c2"):
        assert node.delete(container).exit == 0
    assert node.leftovers() == {}
    assert set(links_inside("c1")) == {"lo"}


def test_delete_of_the_unknown_or_again_is_success(node: CNINode) -> None:
    assert node.delete("never").exit == 0
    node.add()
    assert [node.delete().exit, node.delete().exit] == [0, 0]
    assert node.leftovers() == {}


def test_delete_needs_no_namespace(node: CNINode) -> None:
    node.add()
    namespaces.delete_named("c1")
    assert node.delete(NETNS="").exit == 0
    wait_for(lambda: not node.leftovers(), "everything gone")


def test_delete_forgets_connections(node: CNINode) -> None:
    address = node.add().address
    connection = f"-p udp --sport 1 --dport 2 -t 100 -u SEEN_REPLY -d 192.0.2.9 -s {address}"
    made = subprocess.run(
        ["conntrack", "-I", *connection.split()],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("needs conntrack in the kernel and its program")
    node.delete()
    left = subprocess.run(["conntrack", "-L"], capture_output=True, text=True, check=True).stdout
    assert address not in left


def test_a_second_add_gives_the_same_result(node: CNINode) -> None:
    first = node.add(pod="web-0")
    second = node.add(pod="web-0")
    assert (second.exit, second.told) == (0, first.told)
    assert node.allocations() == [first.address]


def test_a_second_add_to_a_changed_interface_is_refused_and_changes_nothing(
    node: CNINode,
) -> None:
    node.add(pod="web-0")
    ip("address", "flush", "dev", "eth0", pod="c1")
    outcome = node.add(pod="web-0")
    assert outcome.code == 100
    assert "lacks address" in outcome.told["msg"]
    assert len(node.allocations()) == 1


def test_a_foreign_interface_is_never_touched(node: CNINode) -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", pod="c1")
    before = ip("link", pod="c1")
    outcome = node.add()
    assert outcome.code == 100
    assert "eth0" in outcome.told["msg"]
    assert ip("link", pod="c1") == before
    assert node.leftovers() == {}


def test_a_foreign_host_interface_is_never_touched(node: CNINode) -> None:
    ip("link", "add", "cali7a4b00317e6", "type", "veth", "peer", "name", "other")
    outcome = node.add(pod=STORY)
    assert outcome.code == 100
    assert node.leftovers() == {"veths": ["cali7a4b00317e6"]}
    ip("link", "delete", "cali7a4b00317e6")


def test_a_second_interface_in_one_network_is_refused(node: CNINode) -> None:
    node.add(pod="web-0")
    outcome = node.add(pod="web-0", IFNAME="eth1")
    assert (outcome.code, "eth0" in outcome.told["msg"]) == (7, True)
    assert node.delete(IFNAME="eth1").exit == 0
    assert len(node.allocations()) == 1
    assert node.delete().exit == 0
    assert node.leftovers() == {}


def test_a_second_network_gives_a_second_interface(node: CNINode) -> None:
    first = node.add(pod="web-0")
    arguments = "K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-0"
    ip("route", "delete", "default", pod="c1")
    ip("route", "delete", "169.254.1.1", pod="c1")
    second = node.call("ADD", node.config(name="more"), IFNAME="eth1", ARGS=arguments)
    assert second.exit == 0, second.stdout
    assert len(node.veths()) == 2
    assert node.call("DEL", node.config(name="more"), IFNAME="eth1", ARGS=arguments).exit == 0
    assert node.allocations() == [first.address]
    assert node.delete().exit == 0
    assert node.leftovers() == {}


def test_a_new_container_takes_its_pods_place(node: CNINode) -> None:
    old = node.add("c1", "web-0")
    new = node.add("c2", "web-0")
    assert new.exit == 0, new.stdout
    assert new.address != old.address
    assert new.told["interfaces"][0] == old.told["interfaces"][0]
    assert len(node.veths()) == 2
    assert pings("c2", "192.0.2.1")
    assert node.delete("c1").exit == 0
    assert node.veths() == [new.told["interfaces"][0]["name"]]
    assert node.allocations() == [new.address]
    assert pings("c2", "192.0.2.1")
    assert node.call("CHECK", node.config(prevResult=new.told), **of("c2")).exit == 0
    assert node.delete("c2").exit == 0
    assert node.leftovers() == {}


def test_a_container_that_comes_back_in_a_new_namespace_is_attached_anew(node: CNINode) -> None:
    first = node.add(pod="web-0")
    namespaces.delete_named("c1")
    make_pod("c1")
    second = node.add(pod="web-0")
    assert second.exit == 0, second.stdout
    assert node.allocations() == [second.address]
    assert second.address != first.address


def test_an_interface_at_work_is_not_moved_to_another_namespace(node: CNINode) -> None:
    first = node.add("c1")
    second = node.call("ADD", **of("c1", NETNS="/run/netns/c2"))
    assert (second.exit, second.code) == (1, 100)
    assert "c1" in second.told["msg"]
    assert "eth0" not in links_inside("c2")
    assert node.allocations() == [first.address]
    assert node.call("CHECK", node.config(prevResult=first.told), **of("c1")).exit == 0


def test_an_address_may_be_asked_for(node: CNINode) -> None:
    assert node.add("c1", ARGS="IP=10.244.7.9").address == "10.244.7.9"
    taken = node.add("c2", ARGS="IP=10.244.7.9")
    assert (taken.code, "10.244.7.9" in taken.told["msg"]) == (101, True)


def test_an_address_that_a_route_still_carries_is_passed_over(node: CNINode) -> None:
    first = node.add("c1").address
    following = str(ip_address(first) + 1)
    ip("link", "add", "cali-left", "type", "veth", "peer", "name", "left")
    ip("link", "set", "cali-left", "up")
    ip("route", "add", following, "dev", "cali-left")
    assert node.add("c2").address not in {first, following}
    ip("link", "delete", "cali-left")


def test_other_nodes_are_waited_for(node: CNINode) -> None:
    address = node.add().address
    (block,) = node.waits
    assert isinstance(block, IPv4Network)
    assert ip_address(address) in block


def test_a_chain_is_continued(node: CNINode) -> None:
    previous: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "net0", "sandbox": "/run/netns/c1"}],
        "ips": [{"interface": 0, "address": "198.51.100.2/24"}],
        "dns": {"nameservers": ["198.51.100.53"]},
    }
    outcome = node.call("ADD", node.config(prevResult=previous))
    told = outcome.told
    assert told["interfaces"][0]["name"] == "net0"
    assert told["ips"][0] == previous["ips"][0]
    assert told["ips"][1]["interface"] == 2
    assert told["dns"] == previous["dns"]
    assert node.call("CHECK", node.config(prevResult=told)).exit == 0


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_is_answered_in_itself(node: CNINode, version: str) -> None:
    outcome = node.call("ADD", node.config(version))
    assert outcome.told["cniVersion"] == version
    assert node.call("DEL", node.config(version)).stdout == ""
