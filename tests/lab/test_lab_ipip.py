"""The story's own encapsulation; runs where the kernel has IPIP (scripts/with-ipip-kernel)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


def test_all_pairs_of_two_subnets() -> None:
    lab = make_warm_lab("--nodes", "4", "--encapsulation", "ipip", "--subnets", "2")
    try:
        check_mesh(lab, "ipip", 2, each=2)
    finally:
        lab.run("down")


@pytest.fixture(scope="module")
def story() -> Iterator[Lab]:
    lab = make_warm_lab("--encapsulation", "auto")
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


def test_the_ping_is_the_storys(story: Lab) -> None:
    test_lab_story.test_the_ping(story)


def test_all_pairs_on_one_subnet(story: Lab) -> None:
    story.apply(pods_manifest(["vms100", "vms103"], 1))
    assert story.ping_all() == []


def test_birds_routes_are_the_storys() -> None:
    lab = make_warm_lab("--nodes", "2", "--encapsulation", "ipip", "--routing", "bird")
    try:
        lab.apply(pods_manifest(["vms100", "vms101"], 1))
        (block,) = lab.node("vms101")["blocks"]
        (own,) = lab.node("vms100")["blocks"]
        routes = lab.on("vms100", "ip route")
        assert f"{block} via 192.168.26.101 dev tunl0 proto bird metric 32 onlink" in routes
        assert f"blackhole {own} proto 80" in routes
        tunnel = lab.on("vms100", "ip address show dev tunl0")
        assert "mtu 1480" in tunnel
        assert f"inet {lab.node('vms100')['tunnelAddress']}/32" in tunnel
        receiver = next(pod["ip"] for pod in lab.pods() if pod["node"] == "vms101")
        ping = f"ping -c 3 -i 0.2 -W 5 {receiver}"
        shown = lab.inside("mesh/p0-vms100", ping)
        assert "ttl=62" in shown
        assert " 0% packet loss" in shown
    finally:
        lab.run("down")
