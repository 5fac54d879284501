"""Many at once, and sudden deaths: nothing leaked, doubled or half-made."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.netlink.session import Session
from tests.kernel.cni_node import (
    CNINode,
    Outcome,
    ip,
    links_inside,
    make_pod,
    make_uplink,
    of,
    pings,
    start_agent,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CROWD = 50


@pytest.fixture
def node(tmp_path: Path) -> CNINode:
    """A node whose agent is a process of its own."""
    made = CNINode(tmp_path)
    made.add_pool()
    made.add_node()
    make_uplink()
    return made


def names(count: int, prefix: str = "c") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def begin(node: CNINode, command: str, containers: Iterable[str]) -> list[subprocess.Popen[bytes]]:
    return [node.begin(command, **of(name, f"pod-{name}")) for name in containers]


def finish(node: CNINode, processes: Iterable[subprocess.Popen[bytes]]) -> list[Outcome]:
    return [node.end(process) for process in processes]


def wait_for_veths(node: CNINode, count: int, processes: list[subprocess.Popen[bytes]]) -> None:
    def reached() -> bool:
        ended = all(process.poll() is not None for process in processes)
        return ended or len(node.veths()) >= count

    wait_for(reached, f"{count} veths are there")


def stop(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    agent.wait(30)


class SteadyPing:
    """A ping every 20 ms between two pods, from before to after."""

    def __init__(self, pod: str, address: str) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", pod, "ping", "-n", "-i", "0.02", "-W", "1", address],
            stdout=subprocess.PIPE,
            text=True,
        )

    def lost(self) -> str:
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=30)
        return next(line for line in out.splitlines() if "packet loss" in line)


def test_fifty_at_once(node: CNINode) -> None:
    agent = start_agent(node.folder)
    containers = names(CROWD)
    for name in containers:
        make_pod(name)
    outcomes = finish(node, begin(node, "ADD", containers))
    assert [outcome.code for outcome in outcomes] == [0] * CROWD, outcomes[0].stdout
    addresses = [outcome.address for outcome in outcomes]
    assert len(set(addresses)) == CROWD
    assert len(node.veths()) == CROWD
    assert all(pings("c0", address) for address in addresses[1:])
    outcomes = finish(node, begin(node, "DEL", containers))
    assert [outcome.code for outcome in outcomes] == [0] * CROWD
    assert node.leftovers() == {}
    stop(agent)


@pytest.mark.parametrize("victim", ["agent", "plugin", "both"])
def test_sudden_death_in_the_middle(node: CNINode, victim: str) -> None:
    """Ten times over: start many, kill at a different moment, clean up as a runtime does."""
    agent = start_agent(node.folder)
    for name in ("old1", "old2"):
        make_pod(name)
    old1, old2 = (node.add(name, f"pod-{name}") for name in ("old1", "old2"))
    ping = SteadyPing("old1", old2.address)
    before = node.leftovers()
    containers = names(12)
    for name in containers:
        make_pod(name)
    for turn in range(10):
        processes = begin(node, "ADD", containers)
        # Let a different number of pods get that far, from none to nearly all.
        wait_for_veths(node, 2 + turn, processes)
        if victim != "agent":
            for process in processes[::2]:
                process.kill()
        if victim != "plugin":
            agent.kill()
            agent.wait()
        outcomes = finish(node, processes)
        if victim != "plugin":
            agent = start_agent(node.folder)
        added = [outcome.address for outcome in outcomes if outcome.exit == 0]
        assert len(set(added)) == len(added)
        for address in added:
            assert pings("old1", address), (turn, address)
        deletes = finish(node, begin(node, "DEL", containers))
        assert [outcome.code for outcome in deletes] == [0] * len(containers)
        wait_for(lambda: node.leftovers() == before, f"turn {turn}: only the old pods are left")
        for name in containers:
            assert set(links_inside(name)) == {"lo"}
    assert " 0% packet loss" in ping.lost()
    assert old1.exit == 0
    stop(agent)


def test_a_restart_adopts_and_writes_nothing(node: CNINode) -> None:
    agent = start_agent(node.folder)
    for name in names(3):
        make_pod(name)
        assert node.add(name, f"pod-{name}").exit == 0
    before, revision = node.leftovers(), node.store.list("/").revision
    agent.kill()
    agent.wait()
    agent = start_agent(node.folder)
    assert node.leftovers() == before
    assert node.store.list("/").revision == revision
    assert [node.delete(name).exit for name in names(3)] == [0, 0, 0]
    assert node.leftovers() == {}
    stop(agent)


@pytest.mark.parametrize(
    "damage",
    ["link delete {host}", "netns delete c0", "-n c0 address flush dev eth0"],
)
def test_a_half_made_attachment_is_taken_back_at_start(node: CNINode, damage: str) -> None:
    agent = start_agent(node.folder)
    for name in names(2):
        make_pod(name)
    broken = node.add("c0", "pod-c0")
    kept = node.add("c1", "pod-c1")
    agent.kill()
    agent.wait()
    host = broken.told["interfaces"][0]["name"]
    ip(*damage.format(host=host).split())
    with Session.open() as session:
        wait_for(
            lambda: damage != "netns delete c0" or session.link(host) is None,
            "the namespace has ended",
        )
    agent = start_agent(node.folder)
    assert node.allocations() == [kept.address]
    assert len(node.veths()) == 1
    assert len(list(node.stored("/calico/ipam/v2/handle/"))) == 1
    assert node.delete("c0").exit == 0
    assert pings("c1", "192.0.2.1")
    stop(agent)


def test_a_veth_without_its_mark_is_recognised(node: CNINode) -> None:
    """The alias is set one message after the veth is made; a crash can fall in between."""
    agent = start_agent(node.folder)
    make_pod("c0")
    host = node.add("c0", "pod-c0").told["interfaces"][0]["name"]
    agent.kill()
    agent.wait()
    ip("link", "set", host, "alias", "")
    agent = start_agent(node.folder)
    assert node.leftovers() == {}
    stop(agent)


def test_only_one_agent_serves_a_socket(node: CNINode) -> None:
    agent = start_agent(node.folder)
    make_pod("c0")
    with pytest.raises(Exception, match="another agent"):
        CNINode(node.folder).start()
    assert node.add("c0").exit == 0
    stop(agent)
    assert not (node.folder / "agent.sock").exists()
    assert list((node.folder / "spool").iterdir()) == []
