"""Agents and BIRDs together: sessions and routes follow a node that is changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from podwire.agent.bird import IDLE
from podwire.model.node import Routing
from tests.kernel.agent_cluster import AgentNode, Make, PodOnNode, clusters, run, until
from tests.kernel.bird_pair import Bird, require_bird

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


@pytest.fixture
def birds(tmp_path: Path) -> Iterator[list[Bird]]:
    require_bird()
    made = [Bird(tmp_path, f"{netns}.bird", netns=netns) for netns in ("n1", "n2")]
    yield made
    for bird in made:
        bird.end()


def gateways(node: AgentNode, protocol: str) -> set[str]:
    """Next hops of the routes that one protocol has written."""
    found: list[dict[str, Any]] = json.loads(node.ip("-json", "route", "show", "proto", protocol))
    return {route["gateway"] for route in found if "gateway" in route}


def test_sessions_and_routes_follow_a_changed_node(make_cluster: Make, birds: list[Bird]) -> None:
    cluster = make_cluster(routing=Routing.BIRD)
    for bird in birds:
        bird.start(IDLE)
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    until("BIRD's route", lambda: gateways(one, "bird") == {"10.0.0.2"}, one.log)
    two.ip("addr", "del", "10.0.0.2/24", "dev", "ens32")
    two.ip("addr", "add", "10.0.0.22/24", "dev", "ens32")
    two.ip("route", "add", "default", "via", "10.0.0.254")
    # Sessions take their time; meanwhile the agents' own routes lead to the new address.
    until("a stand-in", lambda: "10.0.0.22" in gateways(one, "80") | gateways(one, "bird"))
    words = ("ip", "netns", "exec", here.name, "ping", "-c", "1", "-W", "1", there.address)
    until("the pod", lambda: "1 received" in run(*words, check=False), one.log)
    until("BIRD's new route", lambda: gateways(one, "bird") == {"10.0.0.22"}, birds[0].log)
    until("the session", lambda: (one.ask("status")["bird"] or {})["established"] == 1)
    until("the stand-in ends", lambda: not gateways(one, "80"), one.log)
    assert "1 received" in run(*words)
    two.ip("link", "set", "ens32", "mtu", "1400")
    until("BIRD's route knows", lambda: " mtu 1400" in one.ip("route", "show", "proto", "bird"))
    for bird in birds:
        assert "10.0.0.22" in bird.config.read_text()
        assert "10.0.0.2 " not in bird.config.read_text()
