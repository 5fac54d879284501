"""Which pools may serve, and the order of claims."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import NoPool
from podwire.ipam.affinity import fnv1_32, free_blocks, walk, walk_position
from podwire.ipam.pools import Asker, Rules, select_pools
from podwire.ipam.records import collapsed
from podwire.model.pool import Use
from tests.fakes.ipam_world import pool

BIG = pool("big", "10.0.0.0/24")


def names(rules: Rules, **fields: object) -> list[str]:
    asker = Asker(**{"node": "a", **fields})  # type: ignore[arg-type]
    return [each.name for each in select_pools(rules, asker)]


def reason(rules: Rules, **fields: object) -> str:
    with pytest.raises(NoPool) as caught:
        names(rules, **fields)
    assert caught.value.fix is not None
    return caught.value.message


def test_without_pools_the_reason_says_so() -> None:
    assert "no IPPool for IPv4 exists" in reason(Rules())


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"disabled": True}, "is disabled"),
        ({"automatic": False}, "assignmentMode Manual"),
        ({"node_selector": "zone == 'b'"}, "nodeSelector \"zone == 'b'\", which node a"),
        ({"node_selector": "zone = 'b'"}, "malformed nodeSelector"),
        ({"namespace_selector": "all()"}, "this address is no pod's"),
        ({"allowed_uses": (Use.TUNNEL,)}, "allowedUses Tunnel, not Workload"),
        ({"block_size": 20}, "smaller than one of its blocks"),
    ],
)
def test_each_pool_passed_over_has_its_reason(fields: dict[str, object], part: str) -> None:
    message = reason(Rules(pools=(pool("p", "10.0.0.0/24", **fields),)))
    assert part in message
    assert "p (10.0.0.0/24)" in message


def test_an_unreadable_pool_is_named() -> None:
    assert "spec.cidr" in reason(Rules(unreadable=("…/ippools/p: spec.cidr is missing",)))


def test_selectors_choose() -> None:
    here = pool("here", "10.1.0.0/24", node_selector="zone == 'a'")
    demo = pool("only-demo", "10.2.0.0/24", namespace_selector="projectcalico.org/name == 'demo'")
    rules = Rules(pools=(BIG, here, demo), node_labels={"zone": "a"})
    assert names(rules) == ["big", "here"]
    assert names(rules, namespace="demo") == ["big", "here", "only-demo"]
    assert names(rules, namespace="other") == ["big", "here"]


def test_pools_asked_for_keep_their_order_and_need_no_selector() -> None:
    manual = pool("manual", "10.1.0.0/24", automatic=False, node_selector="has(gpu)")
    rules = Rules(pools=(BIG, manual))
    assert names(rules, pools=["10.1.0.0/24", "big"]) == ["manual", "big"]
    assert "'absent', which was asked for, does not exist" in reason(rules, pools=["absent"])
    off = Rules(pools=(pool("off", "10.1.0.0/24", disabled=True),))
    assert "which was asked for, is disabled" in reason(off, pools=["off"])


def test_fnv1_is_the_published_hash() -> None:
    # From the authors' test suite, draft-eastlake-fnv.
    assert fnv1_32(b"") == 0x811C9DC5
    assert fnv1_32(b"a") == 0x050C5D7E
    assert fnv1_32(b"foobar") == 0x31F0B262


@given(st.text(max_size=20), st.integers(0, 8))
def test_a_walk_visits_every_block_once(node: str, extra: int) -> None:
    each = pool("p", f"10.0.0.0/{30 - extra}")
    visited = list(walk(each, node))
    assert len(visited) == len(set(visited)) == 2**extra
    assert [walk_position(each, node, block) for block in visited] == list(range(2**extra))
    assert list(walk(each, node)) == visited


def test_taken_blocks_are_passed_over_and_so_is_what_overlaps_them() -> None:
    small = pool("p", "10.0.0.0/28")
    taken = {ip_network("10.0.0.4/30"), ip_network("10.0.0.8/31"), ip_network("10.9.0.0/30")}
    found = set(free_blocks(small, "a", taken))
    assert found == {ip_network("10.0.0.0/30"), ip_network("10.0.0.12/30")}


def test_neighbouring_names_start_apart() -> None:
    wide = pool("p", "10.0.0.0/16", block_size=26)
    starts = [next(walk(wide, f"vms10{n}")) for n in range(7)]
    assert len(set(starts)) == 7
    gaps = [int(b.network_address) - int(a.network_address) for a, b in pairwise(starts)]
    assert all(abs(gap) > 64 for gap in gaps)


def test_reservations_count_together() -> None:
    reserved = collapsed(
        map(ip_network, ("10.0.0.0/31", "10.0.0.2/31", "10.0.0.1/32", "fd00::/64"))
    )
    assert reserved == (ip_network("10.0.0.0/30"), ip_network("fd00::/64"))
    rules = Rules(reserved=reserved)
    assert rules.is_reserved(ip_network("10.0.0.0/30"))
    assert not rules.is_reserved(ip_network("10.0.0.0/29"))
    assert rules.is_reserved(ip_address("fd00::1"))
