"""Drift, hold, restart and death of a real agent."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.model.pool import Mode
from tests.kernel.agent_cluster import Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def test_what_is_changed_by_hand_is_put_right(make_cluster: Make) -> None:
    one, two = make_cluster(Mode.ALWAYS).start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    one.settled()
    before = one.routes()
    host = before[here.address].split()[1]
    neighbours = one.neighbours()
    fdb = run(*one.inside("bridge", "fdb", "show", "dev", "vxlan.calico"))
    mac = fdb.split()[0]
    for damage in (
        ("route", "flush", "proto", "80"),
        ("route", "replace", here.address, "dev", "ens32", "proto", "80"),
        ("neigh", "flush", "nud", "permanent"),
        ("link", "set", "vxlan.calico", "down"),
        ("link", "set", "vxlan.calico", "mtu", "1400"),
        ("link", "del", "vxlan.calico"),
        ("addr", "flush", "dev", "vxlan.calico"),
        ("addr", "add", "10.9.9.9/32", "dev", "vxlan.calico"),
        ("link", "set", host, "down"),
        ("link", "set", host, "address", "02:00:00:00:00:07"),
    ):
        one.ip(*damage)
        until(f"routes after {damage}", lambda: one.routes() == before)
    run(*one.inside("bridge", "fdb", "del", mac, "dev", "vxlan.calico", "self"))
    run(*one.inside("sysctl", "-w", f"net.ipv4.conf.{host}.proxy_arp=0", "net.ipv4.ip_forward=0"))
    until("neighbours", lambda: one.neighbours() == neighbours)
    until(
        "forwarding entries",
        lambda: run(*one.inside("bridge", "fdb", "show", "dev", "vxlan.calico")) == fdb,
    )
    replaced = ("dev", "vxlan.calico", "dst", "10.0.0.99", "self", "permanent")
    run(*one.inside("bridge", "fdb", "replace", mac, *replaced))
    until(
        "the forwarding entry that was replaced",
        lambda: run(*one.inside("bridge", "fdb", "show", "dev", "vxlan.calico")) == fdb,
    )
    until("the stray address goes", lambda: "10.9.9.9" not in one.ip("addr"))
    until("the MTU", lambda: "mtu 1450" in one.ip("link", "show", "vxlan.calico"))
    until("the host MAC", lambda: "ee:ee:ee:ee:ee:ee" in one.ip("link", "show", host))
    switches = ("sysctl", "-n", f"net.ipv4.conf.{host}.proxy_arp", "net.ipv4.ip_forward")
    until("sysctls", lambda: run(*one.inside(*switches)).split() == ["1", "1"])
    assert "0% packet loss" in here.ping(there.address, "-c", "1")


def test_a_restart_with_nothing_changed_writes_nothing(
    make_cluster: Make,
) -> None:
    one, two = make_cluster(Mode.ALWAYS).start()
    PodOnNode(one, "pod-1").add()
    PodOnNode(two, "pod-2").add()
    one.settled()
    routes = one.ip("-d", "route")
    one.end()
    one.start()
    counters = one.settled()["counters"]
    assert counters["writes"] == counters["deletes"] == counters["storeWrites"] == 0
    assert one.ip("-d", "route") == routes


def test_a_held_agent_changes_nothing_until_it_is_released(
    make_cluster: Make,
) -> None:
    cluster = make_cluster()
    one, _ = cluster.start()
    pod = PodOnNode(one, "pod-1").add()
    before = one.settled()
    routes = one.routes()
    assert one.ask("hold")["held"]
    one.ip("route", "flush", "proto", "80")
    run("ip", "netns", "add", "pod-9")
    refused = PodOnNode(one, "pod-9").call("ADD")
    assert refused["code"] == 11
    assert "held" in refused["msg"]
    assert pod.call("DEL")["exit"] == 0
    held = one.settled()
    assert held["held"]
    assert held["counters"]["writes"] == before["counters"]["writes"]
    assert one.routes() == {}
    one.ask("release")
    del routes[pod.address]
    until("all but the deleted pod is back", lambda: one.routes() == routes)


def test_a_hold_ends_by_itself(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    routes = one.routes()
    one.ask("hold", seconds=0.5)
    one.ip("route", "flush", "proto", "80")
    until("the routes are back", lambda: one.routes() == routes)
    assert not one.ask("status")["held"]


def test_traffic_outlives_the_agent(make_cluster: Make) -> None:
    one, two = make_cluster(Mode.ALWAYS).start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    with subprocess.Popen(
        ("ip", "netns", "exec", here.name, "ping", "-i", "0.05", "-c", "60", there.address),
        stdout=subprocess.PIPE,
        text=True,
    ) as ping:
        for node in (one, two):
            node.end(signal.SIGKILL)
            node.start()
        told, _ = ping.communicate()
    assert re.search(r"60 received, 0% packet loss", told), told + one.log() + two.log()


def test_a_veth_that_nothing_explains_is_removed(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    pod = PodOnNode(one, "pod-1").add()
    host = one.routes()[pod.address].split()[1]
    one.ip("link", "add", "caliabandoned", "type", "veth", "peer", "name", "caliother")
    one.ip("link", "add", "califoreign", "type", "veth", "peer", "name", "califoreign2")
    one.ip("link", "set", "caliabandoned", "alias", "podwire 0815 demo/gone eth0")
    until("the stray goes", lambda: "caliabandoned" not in one.ip("link"))
    assert "califoreign" in one.ip("link")
    assert host in one.ip("link")


def test_a_second_agent_on_one_socket_is_refused(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    command = (sys.executable, "-m", "podwire", "agent", "--node", "x", "--config")
    done = subprocess.run(
        one.inside(*command, str(one.config())), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "another agent serves" in done.stderr


def test_the_agent_refuses_to_start_beside_felix(make_cluster: Make) -> None:
    one = make_cluster().nodes[0]
    # Felix is the program calico-node; the name is all there is to see of it from outside.
    with subprocess.Popen(
        one.inside("bash", "-c", "exec -a calico-node sleep 60"), stdout=subprocess.DEVNULL
    ) as felix:
        until("felix runs", lambda: "calico-node" in cmdline(felix.pid))
        process = one.begin()
        assert process.wait(30) == 1
        felix.kill()
    assert "Felix runs in this network namespace" in one.log()


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
