"""BIRD writes the routes: what ends and comes back, and nobody loses a packet."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.bird.program import find_program
from tests.fakes.http_client import Scrape, parse
from tests.lab.conftest import FIRST_NODE, Lab, make_lab, pods_manifest, wait_until
from tests.lab.watched_ping import watched_ping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    find_program() is None, reason="needs the program bird (scripts/setup brings it)"
)
NODES = ["vms100", "vms101", "vms102", "vms103"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = make_lab("--nodes", "4", "--encapsulation", "none", "--routing", "bird")
    try:
        lab.apply(pods_manifest(NODES, 1))
        until(lambda: are_birds(lab), "BIRD has written all routes")
        yield lab
    finally:
        lab.try_run("down")


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, timeout_s=60)


def routes(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """Protocols of every node's routes to other nodes' blocks, by node and block."""
    found: dict[str, dict[str, list[str]]] = {node: {} for node in NODES}
    told = lab.on(FIRST_NODE, "; ".join(f"ip -n {node} -json -details route" for node in NODES))
    for node, line in zip(NODES, told.splitlines(), strict=True):
        for route in json.loads(line):
            if route["type"] == "unicast" and route["dst"].endswith("/26"):
                found[node].setdefault(route["dst"], []).append(route["protocol"])
    return found


def are_written_by(lab: Lab, protocol: str) -> bool:
    return all(list(each.values()) == [[protocol]] * 3 for each in routes(lab).values())


def are_birds(lab: Lab) -> bool:
    return are_written_by(lab, "bird")


def sessions(lab: Lab) -> list[int]:
    return [node["bird"]["established"] for node in lab.status()["nodes"]]


@contextmanager
def pods_ping(lab: Lab) -> Iterator[dict[str, Any]]:
    """Pods ping each other all the while; at the end `lost`: who how many packets to whom."""
    pods = lab.pods()
    words = ("lab", "node", "--name", lab.name, FIRST_NODE, "--")
    sources = {pod["name"]: pod["netns"] for pod in pods}
    targets = {pod["name"]: pod["ip"] for pod in pods}
    with watched_ping(sources, targets, sys.executable, "-m", "podwire", *words) as told:
        yield told


@contextmanager
def steady_ping(lab: Lab) -> Iterator[None]:
    """The same; none must have lost a packet."""
    with pods_ping(lab) as told:
        yield
    assert told["lost"] == {}


def apply(lab: Lab, *documents: dict[str, Any]) -> str:
    text = "---\n".join(json.dumps(document) + "\n" for document in documents)
    return lab.run("node", FIRST_NODE, "--", "podwire", "apply", "-f", "-", stdin=text)


def resource(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def test_each_node_serves_how_its_sessions_fare(lab: Lab) -> None:
    for node in lab.status()["nodes"]:
        place = node["healthSocket"]
        ask = f"from tests.fakes.http_client import get; print(get({place!r}, '/metrics').text)"
        found = Scrape(parse(lab.run("node", FIRST_NODE, "--", sys.executable, "-c", ask)))
        assert found.value("podwire_bird_up") == 1
        assert found.value("podwire_bgp_sessions", state="Established") == 3
        assert found.value("podwire_bgp_sessions", state="Active") == 0
        info = {"node": node["name"], "routing": "bird", "datastore": "sqlite"}
        assert found.value("podwire_node_info", **info) == 1
        assert found.value("podwire_routes", owner="bird") == 3


def test_the_ping_that_finds_no_loss_elsewhere_finds_one_here(lab: Lab) -> None:
    (block,) = lab.node("vms101")["blocks"]
    pods = {pod["node"]: pod for pod in lab.pods()}
    one, other = pods["vms100"], pods["vms101"]
    with pods_ping(lab) as told:
        # It has a smaller metric than BIRD's, which stays and counts again afterwards.
        lab.on("vms100", f"ip route add prohibit {block}")
        ping = ("exec", f"mesh/{one['name']}", "--", "ping", "-c", "1", "-W", "1", other["ip"])
        lost_all = lab.try_run(*ping)
        lab.on("vms100", f"ip route del prohibit {block}")
    assert (lost_all.returncode, lost_all.stderr) == (1, "")
    names = one["name"], other["name"]
    assert set(told["lost"]) == {" ".join(names), " ".join(reversed(names))}


def test_a_cluster_is_switched_to_the_agents_and_back_without_a_gap(lab: Lab) -> None:
    with steady_ping(lab):
        lab.on(FIRST_NODE, "podwire bgp switch agent")
        until(lambda: are_written_by(lab, "80"), "no route of BIRD is left")
        lab.on(FIRST_NODE, "podwire bgp switch bird")
        until(lambda: are_birds(lab), "no route of the agents is left")
    assert "already" in lab.on(FIRST_NODE, "podwire bgp switch bird")


def test_a_bird_that_hangs_is_told_and_no_switch_goes_without_it(lab: Lab) -> None:
    pid = lab.node("vms103")["bird"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: not lab.node("vms103")["agent"]["ready"], "the node is not ready")
        assert "does not answer within" in status(lab, "vms103")["reasons"][0]
        lab.on(FIRST_NODE, "podwire bgp switch agent")
        done = lab.try_run(
            *("node", FIRST_NODE, "--", "podwire", "bgp", "switch", "bird", "--timeout", "6")
        )
        assert done.returncode == 1
        assert "vms103: BIRD on" in done.stderr
        assert "does not answer within" in done.stderr
        assert "nothing was switched" in done.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
    with steady_ping(lab):
        lab.on(FIRST_NODE, "podwire bgp switch bird")
    until(lambda: are_birds(lab), "no route of the agents is left")
    until(lambda: sessions(lab) == [3] * 4, "all sessions are back")


def test_agent_and_bird_may_be_killed_and_come_back(lab: Lab) -> None:
    with steady_ping(lab):
        for part in ("bird", "agent"):
            before = lab.node("vms101")[part]["pid"]
            os.kill(before, signal.SIGKILL)
            until(
                lambda part=part, before=before: (
                    lab.node("vms101")[part]["pid"]  # type: ignore[misc]
                    not in {None, before}
                ),
                f"the {part} is back",
            )
            until(lambda: sessions(lab) == [3] * 4, "all sessions are back")
            until(lambda: lab.node("vms101")["agent"]["ready"], "the node is ready")
    assert are_birds(lab)


def status(lab: Lab, node: str) -> dict[str, Any]:
    # Its exit code says whether the node is ready, which is not the question here.
    done = lab.try_run("node", node, "--", "podwire", "agent", "status", "-o", "json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_mesh_gives_way_to_reflectors_and_comes_back(lab: Lab) -> None:
    bgp = {"ipv4Address": "192.168.26.100/24"}
    with steady_ping(lab):
        told = lab.on(FIRST_NODE, "podwire bgp reflectors auto --selector 'all()' --count 2")
        assert told == "the route reflectors are vms100, vms101\n"
        until(lambda: sessions(lab) == [3, 3, 2, 2], "only the reflectors' sessions are left")
        until(lambda: are_birds(lab), "BIRD's routes alone are left")
        # By hand, in one file: one reflector that is another's place, then the mesh.
        lab.on(FIRST_NODE, "podwire bgp reflectors off")
        apply(
            lab,
            resource(
                *("Node", FIRST_NODE, {"bgp": {**bgp, "routeReflectorClusterID": "244.0.0.1"}}),
                labels={"reflector": "yes"},
            ),
            resource("BGPPeer", "to-reflectors", {"peerSelector": "reflector == 'yes'"}),
            resource("BGPConfiguration", "default", {"nodeToNodeMeshEnabled": False}),
        )
        until(lambda: sessions(lab) == [3, 1, 1, 1], "only the reflector's sessions are left")
        until(lambda: are_birds(lab), "BIRD's routes alone are left")
        apply(
            lab,
            resource("BGPConfiguration", "default", {"nodeToNodeMeshEnabled": True}),
            resource("Node", FIRST_NODE, {"bgp": bgp}, labels={"reflector": "no"}),
        )
        until(lambda: sessions(lab) == [3] * 4, "the mesh is back")
        until(lambda: are_birds(lab), "BIRD's routes alone are left")


def test_passwords_and_the_as_change_and_nobody_loses_a_packet(lab: Lab) -> None:
    write = "umask 077; mkdir -p {0}/mesh; echo geheim > {0}/mesh/one; echo anders > {0}/mesh/two"
    for node in NODES:
        lab.on(node, write.format("$(dirname $PODWIRE_CONFIG)/secrets"))

    def is_read(word: str) -> bool:
        told = "; ".join(f"cat $(dirname $PODWIRE_CONFIG)/../{node}/bird.conf" for node in NODES)
        return lab.on(FIRST_NODE, told).count(word) == 12

    with steady_ping(lab):
        for secret, as_number in (("one", 64512), ("two", 64999)):
            password = {"secretKeyRef": {"name": "mesh", "key": secret}}
            spec = {"nodeMeshPassword": password, "asNumber": as_number}
            apply(lab, resource("BGPConfiguration", "default", spec))
            until(partial(is_read, f"secret mesh/{secret}"), "every BIRD has its word")
            # Written before the sessions end: our routes still stand beside BIRD's.
            until(lambda: are_birds(lab), "BIRD's routes alone are left")
            until(lambda: sessions(lab) == [3] * 4, "all sessions are back")
            assert is_read(f" as {as_number};\n  neighbor")


def test_a_configuration_bird_does_not_take_leaves_the_last_good_one(lab: Lab) -> None:
    # Written past the command line's checks, as another version might.
    rules = [{"action": "Accept", "cidr": "10.0.0.0/8", "prefixLength": {"min": 30, "max": 9}}]
    key = "/calico/resources/v3/projectcalico.org/bgpfilters/odd"
    document = resource("BGPFilter", "odd", {"importV4": rules})
    write = (
        "import json, sys; from podwire.drivers.store.sqlite import SQLiteStore;"
        f" SQLiteStore({lab.status()['datastore']!r}).create({key!r}, json.load(sys.stdin))"
    )
    lab.run(*("node", FIRST_NODE, "--", sys.executable, "-c", write), stdin=json.dumps(document))
    peer = {"peerIP": "192.168.26.2", "asNumber": 65000, "node": "vms101", "filters": ["odd"]}
    apply(lab, resource("BGPPeer", "tor", peer))
    try:
        until(
            lambda: "keeps its last configuration" in " ".join(status(lab, "vms101")["concerns"]),
            "the agent says so",
        )
        assert lab.node("vms101")["bird"]["established"] == 3
        assert lab.ping_all() == []
    finally:
        lab.on(FIRST_NODE, "podwire delete bgppeer tor; podwire delete bgpfilter odd")
    until(lambda: lab.node("vms101")["agent"]["ready"], "the node is ready again")


def test_a_session_without_its_password_is_left_out_and_told(lab: Lab) -> None:
    secret = {"secretKeyRef": {"name": "bgp", "key": "tor"}}
    peer = {"peerIP": "192.168.26.2", "asNumber": 65000, "node": "vms101", "password": secret}
    # Where it is applied the password is there; where it is needed it is not.
    folder = "$(dirname $PODWIRE_CONFIG)/secrets/bgp"
    lab.on(FIRST_NODE, f"umask 077; mkdir -p {folder}; echo geheim > {folder}/tor")
    apply(lab, resource("BGPPeer", "tor", peer))
    try:
        until(
            lambda: any("bgp/tor" in each for each in status(lab, "vms101")["concerns"]),
            "the agent says so",
        )
        assert lab.node("vms101")["bird"]["sessions"] == 3
        assert status(lab, "vms101")["ready"]
    finally:
        lab.on(FIRST_NODE, "podwire delete bgppeer tor")
