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
from tests.kernel.cni_node import CNINode, ip, make_pod, make_uplink, pings, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLERS, STEPS = 3, 30


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    made = CNINode(tmp_path)
    made.add_pool(block_size=29)
    made.add_node()
    make_uplink()
    made.start()
    yield made
    made.stop()


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
