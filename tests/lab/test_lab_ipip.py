"""The story's own encapsulation; runs where the kernel has IPIP (scripts/with-ipip-kernel)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.bird.program import find_program
from podwire.lab.topology import STORY_BLOCKS
from tests.lab import test_lab_story
from tests.lab.conftest import pods_manifest, require_ipip
from tests.lab.test_lab_mesh import check_mesh
from tests.lab.warm import make_warm_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.conftest import Lab


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    require_ipip()


def routing() -> str:
    """BIRD's where there is one: the agents' routes under IPIP are those of the fault tests."""
    return "agent" if find_program() is None else "bird"


def test_all_pairs_of_two_subnets() -> None:
    words = ("--nodes", "4", "--encapsulation", "ipip", "--subnets", "2", "--routing", routing())
    lab = make_warm_lab(*words)
    try:
        check_mesh(lab, "ipip", 2, each=2)
        # CrossSubnet: plain to the neighbour, through the tunnel behind the router.
        routes = [line for line in lab.on("vms100", "ip route").splitlines() if "via" in line]
        ways = {word: line for line in routes for word in line.split() if word.endswith("/26")}
        assert sorted("tunl0" in line for line in ways.values()) == [False, True, True]
    finally:
        lab.run("down")


@pytest.fixture(scope="module")
def story() -> Iterator[Lab]:
    lab = make_warm_lab("--encapsulation", "auto", "--routing", routing())
    lab.run("apply", "-f", str(test_lab_story.EXAMPLES / "story-pods.yaml"))
    yield lab
    lab.run("down")


def test_automatic_is_ipip(story: Lab) -> None:
    status = story.status()
    assert (status["encapsulation"], status["mode"]) == ("ipip", "always")
    assert {node["tunnelAddress"] is None for node in status["nodes"]} == {False}
    mtu = story.inside(f"demo/{test_lab_story.SENDER}", "cat /sys/class/net/eth0/mtu")
    assert mtu.strip() == "1480"


def test_the_routes_are_the_storys(story: Lab) -> None:
    name = test_lab_story.SENDER
    test_lab_story.test_the_routes_of_a_node(story, name)
    test_lab_story.test_inside_a_pod(story, name)
    test_lab_story.test_the_host_side_of_the_cable(story, name)


def test_bird_has_learnt_them(story: Lab) -> None:
    if find_program() is None:
        pytest.skip("no BIRD here: scripts/setup brings one along")
    lines = story.on("vms103", "ip route").splitlines()
    assert {line.strip() for line in lines if "proto bird" in line} == {
        f"{block} via 192.168.26.{name.removeprefix('vms')} dev tunl0 proto bird metric 32 onlink"
        for name, block in STORY_BLOCKS.items()
        if name != "vms103"
    }
    [tunnel] = json.loads(story.on("vms103", "ip -j addr show tunl0"))
    addresses = [one["local"] for one in tunnel["addr_info"] if one["family"] == "inet"]
    assert (tunnel["mtu"], addresses) == (1480, [story.node("vms103")["tunnelAddress"]])


def test_the_ping_is_the_storys_and_crosses_in_ipip(story: Lab) -> None:
    before = out_of_the_tunnel(story)
    wire = "tcpdump -l -n -p -c 3 -i ens32 'ip proto 4' > /tmp/wire 2> /tmp/wire.err &"
    story.on("vms105", f"{wire} until grep -q listening /tmp/wire.err; do sleep 0.1; done")
    test_lab_story.test_the_ping(story)
    assert out_of_the_tunnel(story) >= before + 3
    seen = story.on(
        "vms105", "until [ $(grep -c IP /tmp/wire) = 3 ]; do sleep 0.1; done; cat /tmp/wire"
    )
    assert seen.count("192.168.26.103 > 192.168.26.105: IP 10.244.38.") >= 1


def out_of_the_tunnel(lab: Lab) -> int:
    """How many packets of protocol 4 vms105 has taken from the wire and unpacked."""
    [tunnel] = json.loads(lab.on("vms105", "ip -j -s link show tunl0"))
    return int(tunnel["stats64"]["rx"]["packets"])


def test_all_pairs_on_one_subnet(story: Lab) -> None:
    story.apply(pods_manifest(["vms100", "vms103"], 1))
    assert story.ping_all() == []
