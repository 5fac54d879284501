"""The narrowest wire of the cluster decides, everybody says so, and live pods follow if told to."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from podwire.model.pool import Mode
from tests.kernel.agent_cluster import AgentNode, Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADERS = 28
"""Of IPv4 and ICMP."""


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def mtu_of(node: AgentNode, device: str) -> int:
    return int(json.loads(node.ip("-json", "link", "show", device))[0]["mtu"])


def ends(pod: PodOnNode) -> tuple[int, int]:
    """MTU of the host's end and of the pod's."""
    inside = json.loads(run("ip", "-n", pod.name, "-json", "link", "show", "eth0"))[0]["mtu"]
    return mtu_of(pod.node, pod.node.routes()[pod.address].split()[1]), int(inside)


def waits_for(node: AgentNode, **fields: Any) -> dict[str, Any]:
    """The agent's MTUs, once they are these."""

    def told() -> dict[str, Any] | None:
        mtu: dict[str, Any] = (node.status() or {}).get("mtu") or {}
        return mtu if {**mtu, **fields} == mtu else None

    found: dict[str, Any] = until(f"{fields} of {node.name}", told, node.log)
    return found


def fits(here: PodOnNode, there: PodOnNode, size: int) -> bool:
    """Whether a packet of that size, which nobody may cut, gets there and back."""
    told = run(
        *("ip", "netns", "exec", here.name, "ping", "-M", "do", "-c", "1", "-W", "1"),
        *("-s", str(size - HEADERS), there.address),
        check=False,
    )
    return "1 received" in told


@pytest.mark.parametrize(
    ("mode", "overhead"),
    [
        pytest.param(Mode.NEVER, 0, id="plain", marks=pytest.mark.long),
        pytest.param(Mode.ALWAYS, 50, id="vxlan"),
    ],
)
def test_the_narrowest_node_decides(make_cluster: Make, mode: Mode, overhead: int) -> None:
    cluster = make_cluster(mode)
    one, two = cluster.nodes
    one.settings["mtuFollow"] = "true"
    cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    wide, narrow = 1500 - overhead, 1400 - overhead
    waits_for(one, pod=wide, underlay=1500, cluster=1500, narrowest=None, livePods={})
    steady = ("ping", "-i", "0.02", "-c", "150", "-s", "1200", there.address)
    with subprocess.Popen(
        ("ip", "netns", "exec", here.name, *steady), stdout=subprocess.PIPE, text=True
    ) as pings:
        two.ip("link", "set", "ens32", "mtu", "1400")
        said = {"pod": narrow, "cluster": 1400, "narrowest": "node-2"}
        waits_for(one, underlay=1500, livePods={}, **said)
        waits_for(two, underlay=1400, livePods={"demo/pod-2": wide}, **said)
        if mode is Mode.NEVER:
            assert " mtu 1400" in one.ip("route", "show", "proto", "80")
        assert ends(here) == (narrow, narrow)
        assert ends(there) == (wide, wide), "nobody told node-2 to touch live pods"
        later = PodOnNode(two, "pod-3").add()
        assert ends(later) == (narrow, narrow)
        until("large packets", lambda: fits(here, later, narrow), one.log)
        until("large packets back", lambda: fits(later, here, narrow), one.log)
        # The host tells the sender: its own cable takes them, the way does not.
        assert not fits(there, here, wide)
        two.ip("link", "set", "ens32", "mtu", "1500")
        waits_for(one, pod=wide, cluster=1500, narrowest=None, livePods={})
        waits_for(two, pod=wide, cluster=1500, narrowest=None, livePods={"demo/pod-3": narrow})
        assert ends(here) == (wide, wide)
        told, _ = pings.communicate()
    assert re.search(r"150 received, 0% packet loss", told), told + one.log()
    until("large packets again", lambda: fits(here, there, wide), one.log)
    assert " mtu " not in one.ip("route", "show", "proto", "80")
    for node in (one, two):
        node.settled()
        node.end()
        node.start()
        counters = node.settled()["counters"]
        assert counters["writes"] == counters["deletes"] == counters["storeWrites"] == 0


def test_a_check_knows_what_the_agent_changed_and_what_a_pod_did(make_cluster: Make) -> None:
    cluster = make_cluster(Mode.ALWAYS)
    one, two = cluster.nodes
    one.settings["mtuFollow"] = "true"
    cluster.start()
    run("ip", "netns", "add", "pod-1")
    run("ip", "netns", "add", "pod-2")
    pod, other = PodOnNode(one, "pod-1"), PodOnNode(one, "pod-2")
    result = pod.call("ADD")
    assert result.pop("exit") == 0
    other.address = other.call("ADD", mtu=1280)["ips"][0]["address"].partition("/")[0]
    pod.address = result["ips"][0]["address"].partition("/")[0]
    assert pod.call("CHECK", prevResult=result)["exit"] == 0
    two.ip("link", "set", "ens32", "mtu", "1400")
    until("both ends", lambda: ends(pod) == (1350, 1350), one.log)
    waits_for(one, livePods={})
    assert ends(other) == (1280, 1280), "its network asks for an MTU of its own"
    assert pod.call("CHECK", prevResult=result) == {"exit": 0}
    run("ip", "-n", "pod-1", "link", "set", "eth0", "mtu", "1300")
    assert "eth0 has MTU 1300, not 1450" in pod.call("CHECK", prevResult=result)["msg"]


def test_a_given_mtu_counts_and_one_too_large_is_told(make_cluster: Make) -> None:
    cluster = make_cluster(Mode.ALWAYS)
    one, two = cluster.nodes
    one.settings["mtu"], two.settings["mtu"] = "1300", "1500"
    cluster.start()
    assert ends(PodOnNode(one, "pod-1").add()) == (1300, 1300)
    assert ends(PodOnNode(two, "pod-2").add()) == (1500, 1500)
    words = "mtu 1500 of the configuration is more than the 1450 bytes"
    until("the concern", lambda: words in " ".join(two.ask("status")["concerns"]))
    assert one.ask("status")["concerns"] == []
