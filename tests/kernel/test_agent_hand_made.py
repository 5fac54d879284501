"""Routes that a person makes where the agent wants its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.agent_cluster import AgentNode, Make, PodOnNode, clusters, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def concern(node: AgentNode, *words: str) -> bool:
    concerns = node.ask("status")["concerns"]
    return any(all(word in text for word in words) for text in concerns)


def test_ours_replaced_by_hand_is_taken_back(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    pod = PodOnNode(one, "pod-1").add()
    one.settled()
    before = one.routes()
    (own,) = (to for to, rest in before.items() if rest == "blackhole")
    (remote,) = (to for to, rest in before.items() if "via 10.0.0.2" in rest)
    damages = (
        ("replace", remote, "via", "10.0.0.77"),
        ("change", remote, "via", "10.0.0.77"),
        ("replace", "unreachable", remote),
        ("replace", own, "dev", "ens32"),
        ("replace", pod.address, "dev", "ens32"),
    )
    for number, damage in enumerate(damages, 1):
        one.ip("route", *damage)
        until(f"routes after {damage}", lambda: one.routes() == before)
        assert one.ask("status")["counters"]["retaken"] == number
    assert not one.ask("status")["concerns"]


def test_a_route_of_another_program_in_our_place_is_a_conflict(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    one.settled()
    before = one.routes()
    (remote,) = (to for to, rest in before.items() if "via 10.0.0.2" in rest)
    one.ip("route", "replace", remote, "via", "10.0.0.77", "proto", "static")
    until("a concern", lambda: concern(one, remote, "protocol 4"))
    assert "10.0.0.77" in one.ip("route", "show", remote)

    one.ip("route", "del", remote)
    until("ours again", lambda: one.routes() == before)


def test_a_hand_made_route_from_before_our_start_is_a_conflict(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    one.settled()
    (remote,) = (to for to, rest in one.routes().items() if "via 10.0.0.2" in rest)
    one.end()
    one.ip("route", "replace", remote, "via", "10.0.0.77")
    one.start()
    until("a concern", lambda: concern(one, remote, "protocol 3"))
    assert "10.0.0.77" in one.ip("route", "show", remote)


def test_what_is_made_by_hand_during_a_hold_is_taken_back_after_it(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    one.settled()
    before = one.routes()
    (remote,) = (to for to, rest in before.items() if "via 10.0.0.2" in rest)
    one.ask("hold")
    one.ip("route", "del", remote)
    one.ip("route", "add", remote, "via", "10.0.0.77")
    one.ask("release")
    until("ours again", lambda: one.routes() == before)
