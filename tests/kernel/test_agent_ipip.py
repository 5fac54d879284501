"""IPIP between nodes that move; runs where the kernel has it (scripts/with-ipip-kernel)."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.model.pool import Mode
from tests.kernel.agent_cluster import Cluster, PodOnNode, pool, run, until
from tests.kernel.test_agent_moves import carrier, reach, second_wire
from tests.lab.conftest import require_ipip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    require_ipip()
    made = Cluster(tmp_path, replace(pool(), ipip_mode=Mode.ALWAYS))
    yield made
    made.close()


def mtu_of_tunnel(cluster: Cluster) -> int:
    return int(json.loads(cluster.nodes[0].ip("-json", "link", "show", "tunl0"))[0]["mtu"])


def test_a_tunnel_follows_its_node(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    assert mtu_of_tunnel(cluster) == 1480
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    two.ip("addr", "add", "10.0.0.22/24", "dev", "ens32")
    two.ip("route", "add", "default", "via", "10.0.0.254")
    reach(here, there)
    assert "via 10.0.0.22 dev tunl0 onlink" in one.ip("route", "show", "proto", "80")
    two.ip("link", "set", "ens32", "mtu", "1400")
    until("the narrower tunnel", lambda: mtu_of_tunnel(cluster) == 1380, one.log)


def test_a_tunnel_outlives_the_move_into_a_bond(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    before = one.routes()
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    bond = carrier(two, "bond")
    two.ip("addr", "add", "10.0.0.2/24", "dev", bond)
    two.ip("route", "add", "default", "via", "10.0.0.254")
    two.wait_ready()
    reach(here, there)
    assert one.routes() == before


def test_an_address_on_lo_needs_routes_that_name_it(cluster: Cluster) -> None:
    second_wire(cluster)
    for node in cluster.nodes:
        node.settings["interface"] = "lo"
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    reach(here, there)
    assert "via 10.9.9.2 dev tunl0 onlink" in one.ip("route", "show", "proto", "80")
    words = "IPIP to node-2 does not leave with the node's address 10.9.9.1"

    def is_said() -> bool:  # a kernel with IPIP and without nftables has other concerns, too
        return words in " ".join(one.ask("status")["concerns"])

    assert not is_said()
    one.ip("route", "replace", "10.9.9.2", "via", "10.0.0.2")
    until("the concern", is_said, one.log)
    one.ip("route", "replace", "10.9.9.2", "via", "10.0.0.2", "src", "10.9.9.1")
    until("no concern", lambda: not is_said(), one.log)
    run(sys.executable, "-m", "podwire", "trace", "demo/pod-1", there.address, "-q")
