"""A real router in front of the nodes: it learns the blocks and reaches the pods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podwire.errors import Unsupported
from podwire.lab.router import Make
from podwire.lab.tor import require_router
from tests.lab.conftest import make_lab, pods_manifest, wait_until

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

HOST = "198.51.100.10"
BLOCKS = {"10.244.239.128/26", "10.244.198.0/26"}


@pytest.mark.parametrize(
    ("make", "options"), [(Make.FRR, ()), (Make.GOBGP, ("--reflectors", "1"))], ids=str
)
def test_pods_and_a_host_behind_the_router_reach_each_other(
    make: Make, options: tuple[str, ...]
) -> None:
    try:
        require_router(make)
    except Unsupported as error:
        pytest.skip(str(error))
    words = ("--nodes", "2", "--subnets", "2", "--encapsulation", "none", "--routing", "bird")
    lab = make_lab(*words, "--tor", make.value, *options)
    try:
        lab.apply(pods_manifest(["vms100", "vms101"], 1))
        wait_until(lambda: learnt(lab) == BLOCKS, "the router to learn the blocks", 60)
        pods = {pod["node"]: pod for pod in lab.pods()}
        sources = {node: pod["netns"] for node, pod in pods.items()}
        sources["outside"] = "/run/netns/outside"
        targets = {node: pod["ip"] for node, pod in pods.items()} | {"outside": HOST}

        def all_reach_all() -> bool:
            found = lab.ping(sources, targets)
            return all(set(answered) == set(targets) for answered in found.values())

        wait_until(all_reach_all, "all to reach all", 60)
        status = json.loads(lab.on("vms101", "podwire node status -o json"))
        kinds = {peer["name"]: peer["type"] for peer in status["peers"]}
        assert kinds.pop("tor-vms101") == "node specific"
        assert set(kinds) == ({"reflectors"} if options else {"vms100"})
        assert [peer["reason"] for peer in status["peers"]] == [None, None]
    finally:
        lab.run("down")


def learnt(lab: Lab) -> set[str]:
    """What the router has from BGP in its kernel."""
    told = lab.on("vms100", "ip -n underlay route show proto bgp")
    return {line.split()[0] for line in told.splitlines()}
