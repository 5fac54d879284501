"""Looks without a pause while pods come, go and vanish: no live pod ever loses its address."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from podwire.agent.leaks import Leaks
from podwire.ipam.check import check
from tests.kernel.cni_node import (
    LOOKS,
    CNINode,
    ip,
    make_pod,
    make_uplink,
    of,
    pings,
    start_agent,
    wait_for,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

CALLERS, STEPS, TURNS = 3, 30, 5


@pytest.fixture
def node(tmp_path: Path) -> CNINode:
    """A node without its agent."""
    made = CNINode(tmp_path)
    made.add_pool(block_size=29)
    made.add_node()
    make_uplink()
    return made


@dataclass
class Caller:
    """A runtime that forgets half of its DELs; each step is one of a container's life."""

    node: CNINode
    name: str
    dice: random.Random
    live: dict[str, str] = field(default_factory=dict)
    """Container → address."""
    told: list[str] = field(default_factory=list)

    def run(self) -> None:
        for number in range(STEPS):
            if self.live and self.dice.random() < 0.5:
                self.end_one()
            else:
                self.begin(f"{self.name}-{number}")
            assert set(self.live.values()) <= set(self.node.allocations()), self.told
            known = {key.container_id for key in self.node.world.endpoints.all()}
            assert self.live.keys() <= known, self.told

    def begin(self, container: str) -> None:
        make_pod(container)
        outcome = self.node.add(container, f"pod-{container}")
        assert outcome.exit == 0, outcome.stdout
        self.live[container] = outcome.address
        self.told.append(f"{container} added with {outcome.address}")

    def end_one(self) -> None:
        container = self.dice.choice(sorted(self.live))
        del self.live[container]
        how = self.dice.choice(["DEL", "namespace gone", "DEL later"])
        self.told.append(f"{container}: {how}")
        if how == "DEL":
            assert self.node.delete(container).exit == 0
        ip("netns", "delete", container)
        if how == "DEL later":
            assert self.node.delete(container).exit == 0


def test_live_pods_keep_their_addresses_and_all_others_come_back(node: CNINode) -> None:
    node.start()
    leaks = Leaks(node.attachments, grace_s=0)
    ended = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        while not ended.is_set():
            try:
                leaks.look()
            except BaseException as error:
                failures.append(error)
                return

    looker = threading.Thread(target=look)
    looker.start()
    callers = [Caller(node, f"r{number}", random.Random(number)) for number in range(CALLERS)]
    try:
        with ThreadPoolExecutor(CALLERS) as threads:
            list(threads.map(Caller.run, callers))
    finally:
        ended.set()
        looker.join()
    assert failures == []
    live = {name: address for caller in callers for name, address in caller.live.items()}
    wait_for(lambda: len(node.veths()) == len(live), "the kernel has dropped the others")
    leaks.look()
    leaks.look()
    assert node.allocations() == sorted(live.values())
    assert check(node.store.list("/").entries).problems == ()
    assert all(pings(name, "192.0.2.1") for name in live)
    node.stop()


def wait_for_veths(node: CNINode, count: int, adding: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until more than so many are there, or nobody makes any more."""

    def reached() -> bool:
        return len(node.veths()) > count or all(each.poll() is not None for each in adding)

    wait_for(reached, f"more than {count} veths are there")


def test_agents_that_die_at_any_moment_leave_nothing_and_take_nothing(
    node: CNINode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that never sends DEL, and an agent that is killed while it adds and looks."""
    monkeypatch.setenv(LOOKS, "1")
    agent = start_agent(node.folder)
    live: dict[str, str] = {}
    for turn in range(TURNS):
        names = [f"t{turn}-{number}" for number in range(5)]
        for name in names:
            make_pod(name)
        adding = [node.begin("ADD", **of(name, f"pod-{name}")) for name in names]
        wait_for_veths(node, len(live) + turn % 5, adding)
        agent.kill()
        agent.wait()
        for name, outcome in zip(names, map(node.end, adding), strict=True):
            if outcome.exit == 0:
                live[name] = outcome.address
            else:
                ip("netns", "delete", name)
        # While nobody looks, an older one vanishes too.
        for name in list(live)[: turn % 2]:
            ip("netns", "delete", name)
            del live[name]
        agent = start_agent(node.folder)
        assert set(live.values()) <= set(node.allocations())
    wait_for(
        lambda: node.allocations() == sorted(live.values()), "all but the live ones are given back"
    )
    wait_for(lambda: not check(node.store.list("/").entries).problems, "the records agree")
    assert all(pings(name, "192.0.2.1") for name in live)
    agent.terminate()
    agent.wait(30)
