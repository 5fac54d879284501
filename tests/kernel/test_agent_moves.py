"""A node gets another address, another device, or an address on no wire at all: nobody restarts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from podwire.model import codec, keys
from podwire.model.pool import Mode
from tests.kernel.agent_cluster import AgentNode, Cluster, Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN, VXLAN = pytest.param(Mode.NEVER, id="plain"), pytest.param(Mode.ALWAYS, id="vxlan")
LONG_PLAIN = pytest.param(Mode.NEVER, id="plain", marks=pytest.mark.long)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def known_as(cluster: Cluster, node: AgentNode) -> str:
    key = keys.node_key(node.name)
    entry = cluster.store.get(key)
    assert entry is not None
    return str(codec.decode_node(key, entry.value).address)


def pods(one: AgentNode, two: AgentNode) -> tuple[PodOnNode, PodOnNode]:
    return PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()


def reach(here: PodOnNode, there: PodOnNode) -> None:
    """Both ways, as soon as everybody has heard."""
    for one, other in ((here, there), (there, here)):
        words = ("ip", "netns", "exec", one.name, "ping", "-c", "1", "-W", "1", other.address)
        until(f"{one.name} reaches {other.name}", partial(is_heard, words), one.node.log)


def is_heard(words: tuple[str, ...]) -> bool:
    return "1 received" in run(*words, check=False)


def json_of(node: AgentNode, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(node.ip("-d", "-json", *words) or "[]")
    return found


def vxlan_of(node: AgentNode) -> dict[str, Any]:
    link = json_of(node, "link", "show", "vxlan.calico")[0]
    return {"index": link["ifindex"], "mtu": link["mtu"], **link["linkinfo"]["info_data"]}


def to_blocks(node: AgentNode) -> dict[str, list[tuple[str, str]]]:
    """Gateway and device of each next hop towards other nodes' blocks."""
    found = {}
    for route in json_of(node, "route", "show", "proto", "80"):
        hops = route.get("nexthops", [route])
        if "gateway" in hops[0]:
            found[route["dst"]] = sorted((hop["gateway"], hop["dev"]) for hop in hops)
    return found


def leads_by(node: AgentNode, *ways: Any) -> bool:
    """Whether the other node's one block is reached by exactly these ways."""
    return list(to_blocks(node).values()) == list(ways)


@pytest.mark.parametrize("mode", [PLAIN, VXLAN])
def test_a_renumbered_node_is_found_under_its_new_address(make_cluster: Make, mode: Mode) -> None:
    cluster = make_cluster(mode)
    one, two = cluster.start()
    here, there = pods(one, two)
    before, destinations = two.settled(), set(one.routes())
    device = vxlan_of(two)["index"] if mode is Mode.ALWAYS else 0
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    two.ip("addr", "add", "10.0.0.22/16", "dev", "ens32")
    two.ip("route", "add", "default", "via", "10.0.0.254")
    until("the Node object", lambda: known_as(cluster, two) == "10.0.0.22/16", two.log)
    reach(here, there)
    assert set(one.routes()) == destinations
    after = two.settled()
    assert after["pid"] == before["pid"]
    assert after["counters"]["deletes"] == before["counters"]["deletes"]
    if mode is Mode.ALWAYS:
        assert vxlan_of(two)["index"] == device, "the device was made anew"
        assert vxlan_of(two)["local"] == "10.0.0.22"
        fdb = run(*one.inside("bridge", "fdb", "show", "dev", "vxlan.calico"))
        assert "dst 10.0.0.22 self" in fdb
        assert "dst 10.0.0.2 " not in fdb
    else:
        assert leads_by(one, [("10.0.0.22", "ens32")])


def test_an_address_of_another_node_is_refused_while_running(make_cluster: Make) -> None:
    cluster = make_cluster()
    one, two = cluster.start()
    two.ip("addr", "flush", "dev", "ens32")
    two.ip("addr", "add", "10.0.0.1/24", "dev", "ens32")
    two.ip("route", "add", "default", "via", "10.0.0.254")
    words = "Node node-1 already has the address 10.0.0.1"
    until("the refusal", lambda: words in " ".join((two.status() or {})["reasons"]), two.log)
    assert known_as(cluster, two) == "10.0.0.2/24"
    two.ip("addr", "flush", "dev", "ens32")
    two.ip("addr", "add", "10.0.0.3/24", "dev", "ens32")
    two.ip("route", "add", "default", "via", "10.0.0.254")
    two.wait_ready()
    assert known_as(cluster, two) == "10.0.0.3/24"
    until("node-1 follows", lambda: leads_by(one, [("10.0.0.3", "ens32")]))


@pytest.mark.parametrize("mode", [LONG_PLAIN, VXLAN])
def test_an_address_that_flaps_withdraws_nothing(make_cluster: Make, mode: Mode) -> None:
    cluster = make_cluster(mode)
    one, two = cluster.nodes
    # Without a default route there is none to come later than the address.
    two.ip("route", "del", "default")
    two.settings["interface"] = "ens32"
    cluster.start()
    here, there = pods(one, two)
    before, routes = two.settled()["counters"], (one.routes(), two.routes())
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    until("the agent sees it", lambda: not (two.status() or {"ready": True})["ready"])
    two.ip("addr", "add", "10.0.0.2/24", "dev", "ens32")
    two.wait_ready()
    after = two.settled()["counters"]
    assert after["storeWrites"] == before["storeWrites"]
    assert after["deletes"] == before["deletes"]
    assert (one.routes(), two.routes()) == routes
    reach(here, there)


def carrier(node: AgentNode, kind: str) -> str:
    """A device of that kind on top of ens32."""
    words = ["link", "ens32"] if kind == "macvlan" else []
    made = run(
        *("ip", "-n", node.netns, "link", "add", *words, "name", "top0", "type", kind), check=False
    )
    if "top0" not in made + node.ip("link"):
        pytest.skip(f"this kernel has no {kind}")
    if kind != "macvlan":
        node.ip("link", "set", "ens32", "down")
        node.ip("link", "set", "ens32", "master", "top0")
        node.ip("link", "set", "ens32", "up")
    node.ip("link", "set", "top0", "up")
    return "top0"


@pytest.mark.parametrize(
    "kind", ["bridge", "bond", pytest.param("macvlan", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("mode", [LONG_PLAIN, VXLAN])
def test_the_same_address_moves_to_another_device(
    make_cluster: Make, mode: Mode, kind: str
) -> None:
    cluster = make_cluster(mode)
    one, two = cluster.start()
    here, there = pods(one, two)
    before = two.settled()["counters"]["storeWrites"]
    device = vxlan_of(two)["index"] if mode is Mode.ALWAYS else 0
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    top = carrier(two, kind)
    two.ip("addr", "add", "10.0.0.2/24", "dev", top)
    two.ip("route", "add", "default", "via", "10.0.0.254")
    two.wait_ready()
    reach(here, there)
    assert two.settled()["counters"]["storeWrites"] == before
    if mode is Mode.ALWAYS:
        assert vxlan_of(two)["index"] == device
        assert vxlan_of(two)["link"] == top
    else:
        until("the route", lambda: leads_by(two, [("10.0.0.1", top)]))


def second_wire(cluster: Cluster) -> None:
    """ens33 beside ens32, and on lo the address every other node has a route to, over both."""
    one, two = cluster.nodes
    one.ip("link", "add", "ens33", "type", "veth", "peer", "name", "ens33", "netns", two.netns)
    for node, other in ((one, two), (two, one)):
        node.ip("link", "set", "ens33", "up")
        node.ip("addr", "add", f"10.0.1.{node.number}/24", "dev", "ens33")
        node.ip("addr", "add", f"10.9.9.{node.number}/32", "dev", "lo")
        run(*node.inside("sysctl", "-qw", "net.ipv4.conf.all.ignore_routes_with_linkdown=1"))
        for device in ("ens32", "ens33"):
            switch = f"net.ipv4.conf.{device}.ignore_routes_with_linkdown=1"
            run(*node.inside("sysctl", "-qw", switch))
        node.ip(
            *("route", "add", f"10.9.9.{other.number}", "src", f"10.9.9.{node.number}"),
            *("nexthop", "via", f"10.0.0.{other.number}", "dev", "ens32"),
            *("nexthop", "via", f"10.0.1.{other.number}", "dev", "ens33"),
        )


@pytest.mark.parametrize("mode", [PLAIN, VXLAN])
def test_an_address_on_lo_is_reached_over_all_uplinks(make_cluster: Make, mode: Mode) -> None:
    cluster = make_cluster(mode)
    second_wire(cluster)
    for node in cluster.nodes:
        node.ip("route", "del", "default")
        node.settings["interface"] = "lo"
    one, two = cluster.start()
    assert known_as(cluster, one) == "10.9.9.1/32"
    here, there = pods(one, two)
    reach(here, there)
    run(sys.executable, "-m", "podwire", "trace", "demo/pod-1", there.address, "-q")
    both = [("10.0.0.2", "ens32"), ("10.0.1.2", "ens33")]
    if mode is Mode.ALWAYS:
        assert vxlan_of(one)["local"] == "10.9.9.1"
        assert "link" not in vxlan_of(one)
        assert vxlan_of(one)["mtu"] == 1450
    else:
        assert leads_by(one, both)
    for device in ("ens32", "ens33"):
        two.ip("link", "set", device, "down")
        reach(here, there)
        if mode is Mode.NEVER:
            left = [hop for hop in both if hop[1] != device]
            until("one way is left", partial(leads_by, one, left), one.log)
        two.ip("link", "set", device, "up")
        if mode is Mode.NEVER:
            until("both are back", partial(leads_by, one, both), one.log)
    one.settled()
    one.end()
    one.start()
    counters = one.settled()["counters"]
    assert counters["writes"] == counters["deletes"] == counters["storeWrites"] == 0


def test_routes_follow_those_of_the_routing_daemon(make_cluster: Make) -> None:
    cluster = make_cluster()
    second_wire(cluster)
    one, two = cluster.nodes
    for node in (one, two):
        node.settings["addressDetection"] = "cidr=10.9.0.0/16"
    cluster.start()
    here, there = pods(one, two)
    one.ip("route", "replace", "10.9.9.2", "via", "10.0.1.2", "src", "10.9.9.1")
    until("one way", lambda: leads_by(one, [("10.0.1.2", "ens33")]), one.log)
    one.ip("route", "del", "10.9.9.2")
    until("default", lambda: leads_by(one, [("10.0.0.254", "ens32")]), one.log)
    one.ip("route", "add", "10.9.9.2", "via", "10.0.0.2", "src", "10.9.9.1")
    until("the other", lambda: leads_by(one, [("10.0.0.2", "ens32")]), one.log)
    reach(here, there)


@pytest.mark.long
@pytest.mark.parametrize("mode", [PLAIN, VXLAN])
def test_a_new_address_beside_the_old_one_loses_no_packet(make_cluster: Make, mode: Mode) -> None:
    cluster = make_cluster(mode)
    one, two = cluster.start()
    here, there = pods(one, two)
    reach(here, there)
    # When the first address of a subnet goes the kernel lets the second one stay.
    run(*two.inside("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1"))
    steady = ("ping", "-i", "0.01", there.address)
    with subprocess.Popen(
        ("ip", "netns", "exec", here.name, *steady), stdout=subprocess.PIPE, text=True
    ) as pings:
        two.ip("addr", "add", "10.0.0.22/24", "dev", "ens32")
        two.settings["address"] = "10.0.0.22/24"
        two.end()
        two.start()
        until("node-1 has heard", lambda: leads_to(one, "10.0.0.22"), one.log)
        two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
        run("ip", "netns", "exec", here.name, "ping", "-i", "0.01", "-c", "50", there.address)
        pings.send_signal(signal.SIGINT)
        told, _ = pings.communicate()
    sent, received = map(int, re.findall(r"(\d+) (?:packets transmitted|received)", told))
    assert sent - received <= 1, told  # the last one may have been on its way


def leads_to(node: AgentNode, address: str) -> bool:
    """Whether packets to the other node go to that address of its, in a tunnel or not."""
    fdb = run(*node.inside("bridge", "fdb", "show"))
    return f"via {address} " in node.ip("route", "show", "proto", "80") or f"dst {address} " in fdb
