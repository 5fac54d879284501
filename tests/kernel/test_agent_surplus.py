"""After a wave of pods a node holds what it held before, and nobody else routes more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from podwire.model import codec, keys
from tests.kernel.agent_cluster import AgentNode, Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Store

WAVE = 50


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def blackholes(node: AgentNode) -> list[str]:
    return [to for to, rest in node.routes().items() if rest == "blackhole"]


def held(store: Store) -> dict[str, object]:
    """What lies below /calico/ipam: the blocks with those who have addresses of them."""
    found: dict[str, object] = {}
    for entry in store.list(keys.IPAM).entries:
        if entry.key.startswith(keys.BLOCKS4):
            block = codec.decode_block(entry.key, entry.value)
            owners = sorted(str(taken.handle) for taken in block.allocations.values())
            found[entry.key] = (block.node, owners)
        else:
            found[entry.key] = entry.value
    return found


def test_a_wave_of_pods_leaves_no_block_behind(make_cluster: Make) -> None:
    cluster = make_cluster()
    one, two = cluster.start()
    PodOnNode(one, "pod-old").add()
    one.settled()
    before = (one.ip("route"), two.ip("route"), held(cluster.store))
    pods = [PodOnNode(one, f"pod-{number}") for number in range(WAVE)]
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda pod: pod.add(), pods))
        until("the next block is claimed ahead", lambda: len(blackholes(one)) == 2)
        assert [told["exit"] for told in callers.map(lambda pod: pod.call("DEL"), pods)] == [
            0
        ] * WAVE

    def now() -> tuple[object, ...]:
        return one.ip("route"), two.ip("route"), held(cluster.store)

    until("all is as before", lambda: now() == before)
    until("the log tells it", lambda: "block given back" in one.log())
    # It is news to the others once more when it is claimed again.
    again = [PodOnNode(one, f"pod-{number}") for number in range(WAVE)]
    for pod in again:
        told = pod.call("ADD")
        assert told["exit"] == 0
        pod.address = told["ips"][0]["address"].partition("/")[0]
    assert " 0% packet loss" in run(*two.inside("ping", "-c", "1", "-W", "2", again[-1].address))
