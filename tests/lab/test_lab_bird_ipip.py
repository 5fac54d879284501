"""The story's very routes: `proto bird onlink` through tunl0, learnt by stock BIRD."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.bird.program import find_program
from podwire.lab.topology import STORY_BLOCKS
from tests.lab import test_lab_story
from tests.lab.test_lab_ipip import _kernel  # noqa: F401  # skips where there is no IPIP
from tests.lab.warm import make_warm_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.conftest import Lab


@pytest.fixture(scope="module")
def story() -> Iterator[Lab]:
    if find_program() is None:
        pytest.skip("no BIRD here: scripts/setup brings one along")
    lab = make_warm_lab("--encapsulation", "ipip", "--routing", "bird")
    lab.run("apply", "-f", str(test_lab_story.EXAMPLES / "story-pods.yaml"))
    yield lab
    lab.run("down")


def test_the_storys_routes_are_birds(story: Lab) -> None:
    lines = story.on("vms103", "ip route").splitlines()
    told = {line.strip() for line in lines if "proto bird" in line}
    numbers = {name: name.removeprefix("vms") for name in STORY_BLOCKS}
    assert told == {
        f"{block} via 192.168.26.{numbers[name]} dev tunl0 proto bird metric 32 onlink"
        for name, block in STORY_BLOCKS.items()
        if name != "vms103"
    }
    test_lab_story.test_the_routes_of_a_node(story, test_lab_story.SENDER)
    [tunnel] = json.loads(story.on("vms103", "ip -j addr show tunl0"))
    assert tunnel["mtu"] == 1480
    [address] = [one["local"] for one in tunnel["addr_info"] if one["family"] == "inet"]
    assert story.node("vms103")["tunnelAddress"] == address


def test_a_ping_crosses_in_ipip(story: Lab) -> None:
    before = outer_packets(story)
    test_lab_story.test_the_ping(story)
    assert outer_packets(story) >= before + 3


def outer_packets(lab: Lab) -> int:
    """Packets of protocol 4 that vms105 has taken from the wire, as its tunnel counts them."""
    [tunnel] = json.loads(lab.on("vms105", "ip -j -s link show tunl0"))
    return int(tunnel["stats64"]["rx"]["packets"])
