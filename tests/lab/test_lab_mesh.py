"""Every pod reaches every pod and every node, with the very first packet.

vms100 ─┐                ┌─ vms101        four nodes, three pods each;
vms102 ─┤ 192.168.26.0/24├─ vms103        with two subnets vms101 and vms103
        └── underlay ────┘                are in 192.168.27.0/24
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.conftest import Lab, pods_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

MTU = {"vxlan": 1450, "none": 1500, "ipip": 1480}
NODES = ["vms100", "vms101", "vms102", "vms103"]


@pytest.mark.parametrize("subnets", [1, 2])
@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_all_pairs(new_lab: Callable[..., Lab], encapsulation: str, subnets: int) -> None:
    lab = new_lab(
        "--nodes", "4", "--encapsulation", encapsulation, "--subnets", str(subnets)
    )  # fmt: skip
    check_mesh(lab, encapsulation, subnets)
    lab.run("down")


def check_mesh(lab: Lab, encapsulation: str, subnets: int, *, each: int = 3) -> None:
    lab.apply(pods_manifest(NODES, each))
    assert lab.ping_all() == []
    pods = {pod["name"]: pod for pod in lab.pods()}
    assert len({pod["ip"] for pod in pods.values()}) == len(NODES) * each
    assert {pod["phase"] for pod in pods.values()} == {"Running"}

    ways = {"p1-vms100", "p0-vms102", "p0-vms101"}
    found = lab.ping({"it": pods["p0-vms100"]["netns"]}, {name: pods[name]["ip"] for name in ways})
    # One node routes between its own pods, two within a subnet; without encapsulation the gateway
    # between the subnets is a third router.
    far = 61 if subnets == 2 and encapsulation == "none" else 62
    assert found["it"] == {"p1-vms100": 63, "p0-vms102": 62, "p0-vms101": far}
    assert lab.inside("mesh/p0-vms100", "cat /sys/class/net/eth0/mtu").strip() == str(
        MTU[encapsulation]
    )
