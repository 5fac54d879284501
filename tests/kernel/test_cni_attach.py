"""ADD and DEL on a real kernel and a real datastore, through the real program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.cni_node import CNINode, ip, links_inside, make_pod

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node(tmp_path: Path) -> Iterator[CNINode]:
    made = CNINode(tmp_path)
    made.add_pool()
    made.add_node()
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    made.start()
    yield made
    made.stop()


def test_a_pod_is_attached_as_the_story_tells(node: CNINode) -> None:
    make_pod("c1")
    outcome = node.add(pod="demo-deployment-6cbdbd86d5-nm467")
    assert outcome.exit == 0, outcome.stdout
    told = outcome.told
    inside = links_inside("c1")
    assert told["interfaces"] == [
        {"name": "cali7a4b00317e6"},
        {"name": "eth0", "mac": inside["eth0"].mac, "mtu": 1450, "sandbox": "/run/netns/c1"},
    ]
    assert told["ips"] == [{"interface": 1, "address": f"{outcome.address}/32"}]
    assert node.veths() == ["cali7a4b00317e6"]
    print(ip("route", pod="c1"), ip("-d", "link", "show", "cali7a4b00317e6"), ip("route"))
    print(ip("addr", pod="c1"))
    assert node.delete().exit == 0
    assert node.leftovers() == {}
