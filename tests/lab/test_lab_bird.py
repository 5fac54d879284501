"""A lab whose routes BIRD learns: what is told of its sessions and routes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.bird.program import find_program
from tests.lab.conftest import Lab, make_lab, pods_manifest, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = ["vms100", "vms101", "vms102"]
BLOCKS = {
    "vms100": "10.244.239.128/26",
    "vms101": "10.244.198.0/26",
    "vms102": "10.244.63.64/26",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if find_program() is None:
        pytest.skip("no BIRD here: scripts/setup brings one along")
    lab = make_lab("--nodes", "3", "--encapsulation", "none", "--routing", "bird")
    lab.apply(pods_manifest(NODES, 1))
    yield lab
    lab.run("down")


def sessions(lab: Lab) -> dict[str, tuple[int, int]]:
    """Node → established sessions, all sessions."""
    found = lab.status()["nodes"]
    return {one["name"]: (one["bird"]["established"], one["bird"]["sessions"]) for one in found}


def node_status(lab: Lab, node: str) -> dict[str, Any]:
    """What `podwire node status` says there; fails unless it finds nothing amiss."""
    status: dict[str, Any] = json.loads(lab.on(node, "podwire node status -o json"))
    return status


def bird_routes(lab: Lab, node: str) -> dict[str, str]:
    """Destination → the rest of the line."""
    lines = lab.on(node, "ip route show proto bird").splitlines()
    return {line.split()[0]: line.partition(" ")[2].strip() for line in lines}


def test_the_routes_are_birds_and_all_pairs_talk(lab: Lab) -> None:
    status = lab.status()
    assert status["routing"] == "bird"
    assert bird_routes(lab, "vms100") == {
        BLOCKS["vms101"]: "via 192.168.26.101 dev ens32 metric 32",
        BLOCKS["vms102"]: "via 192.168.26.102 dev ens32 metric 32",
    }
    assert f"blackhole {BLOCKS['vms100']}" in lab.on("vms100", "ip route show proto 80")
    assert lab.ping_all() == []


def test_a_healthy_mesh_has_no_reason_to_complain(lab: Lab) -> None:
    wait_until(lambda: set(sessions(lab).values()) == {(2, 2)}, "the mesh")
    for node in NODES:
        status = node_status(lab, node)
        assert {peer["type"] for peer in status["peers"]} == {"node-to-node mesh"}
        assert {peer["name"] for peer in status["peers"]} == set(NODES) - {node}
    table = lab.on("vms100", "podwire node status")
    assert re.search(r"PEER ADDRESS +PEER TYPE +STATE +SINCE +INFO\n192.168.26.101 ", table)
    routes = {
        one["prefix"]: one for one in json.loads(lab.on("vms100", "podwire bgp routes -o json"))
    }
    assert set(routes) == set(BLOCKS.values())
    assert [one["refused"] for one in routes.values()] == [[], [], []]
    own = routes[BLOCKS["vms100"]]
    assert own["announcedTo"] == ["192.168.26.101", "192.168.26.102"]
    only = json.loads(lab.on("vms100", f"podwire bgp routes -o json --prefix {BLOCKS['vms101']}"))
    assert [one["from"] for one in only] == [["192.168.26.101"]]


def test_a_bird_that_hangs_is_told_from_one_that_is_away(lab: Lab) -> None:
    pid = lab.node("vms102")["bird"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = lab.try_run("node", "vms102", "--", "podwire", "node", "status", "-o", "json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["bird"]["reason"]["why"] == "bird-silent"
    finally:
        os.kill(pid, signal.SIGCONT)
    bird(lab, "stop")
    done = lab.try_run("node", "vms102", "--", "podwire", "node", "status", "-o", "json")
    assert json.loads(done.stdout)["bird"]["reason"]["why"] == "bird-away"
    # The others name the node whose BIRD is away, and what to do there.
    done = lab.try_run("node", "vms100", "--", "podwire", "node", "status", "-o", "json")
    assert done.returncode == 1
    peers = {peer["name"]: peer["reason"] for peer in json.loads(done.stdout)["peers"]}
    assert peers["vms101"] is None
    assert peers["vms102"]["why"] == "refused"
    assert peers["vms102"]["fix"].startswith("start BIRD on vms102")
    bird(lab, "start")
    wait_until(lambda: set(sessions(lab).values()) == {(2, 2)}, "the mesh again", 60)


def bird(lab: Lab, verb: str) -> None:
    words = ["lab", "bird", verb, "--name", lab.name, "vms102"]
    subprocess.run([sys.executable, "-m", "podwire", *words], check=True, capture_output=True)


def test_a_silent_nodes_routes_leave_and_come_back(lab: Lab) -> None:
    wait_until(lambda: BLOCKS["vms102"] in bird_routes(lab, "vms100"), "its route")
    # The cable stays in, the node says nothing any more: only the hold time can tell.
    lab.on("vms102", "ip link set ens32 down")
    wait_until(lambda: BLOCKS["vms102"] not in bird_routes(lab, "vms100"), "it to leave", 60)
    assert BLOCKS["vms101"] in bird_routes(lab, "vms100")
    lab.on("vms102", "ip link set ens32 up && ip route replace default via 192.168.26.2")
    wait_until(lambda: BLOCKS["vms102"] in bird_routes(lab, "vms100"), "it to come back", 60)
