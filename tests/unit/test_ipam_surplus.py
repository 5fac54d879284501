"""Blocks that a node no longer needs go back, and no others."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.ipam.service import WITHDRAWAL_S
from podwire.model import keys
from podwire.model.block import AffinityState
from podwire.model.codec import decode_affinity
from tests.fakes.ipam_world import World, asked, pool, reservation

P = pool("p", "10.0.0.0/27", block_size=29)


def stored(world: World) -> set[str]:
    return {entry.key for entry in world.store.list(keys.IPAM).entries}


@pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])
def test_a_wave_of_pods_leaves_what_was_before(batches: bool) -> None:
    world = World(P, batches=batches)
    ipam = world.node("a")
    ipam.claim_ahead()
    before = stored(world)
    for number in range(20):
        ipam.assign(asked(f"h{number}"))
        world.later(1)
        ipam.claim_ahead()
    assert len(ipam.blocks()) == 3
    for number in range(20):
        ipam.release_handle(f"h{number}")
    given_back = ipam.give_back()
    assert len(given_back.blocks) == 2
    assert given_back.again_in_s is None
    assert stored(world) == before
    assert ipam.give_back().blocks == ()
    world.check()


def test_the_block_claimed_last_goes_first() -> None:
    world = World(P)
    ipam = world.node("a")
    first, second = ip_network("10.0.0.24/29"), ip_network("10.0.0.8/29")
    for block in (first, second):
        assert ipam.claim(block)
        world.later(1)
    assert ipam.give_back().blocks == (second,)
    assert ipam.blocks() == (first,)


def test_half_a_block_stays_free() -> None:
    world = World(P)
    ipam = world.node("a")
    for number in range(5):
        ipam.assign(asked(f"h{number}"))
    assert ipam.claim(ip_network("10.0.0.8/29")) or ipam.claim(ip_network("10.0.0.16/29"))
    assert len(ipam.blocks()) == 2
    assert ipam.give_back().blocks == ()
    ipam.release_handle("h0")
    assert len(ipam.give_back().blocks) == 1


def test_a_block_with_resting_addresses_goes_after_their_rest() -> None:
    world = World(P, cooldown_s=30)
    ipam = world.node("a")
    for number in range(9):
        ipam.assign(asked(f"h{number}"))
    for number in range(9):
        ipam.release_handle(f"h{number}")
    given_back = ipam.give_back()
    assert (given_back.blocks, given_back.again_in_s) == ((), 30)
    world.later(31)
    assert len(ipam.give_back().blocks) == 1


def test_the_last_block_stays_even_when_no_pool_serves_the_node() -> None:
    world = World(P)
    ipam = world.node("a")
    ipam.claim_ahead()
    assert ipam.give_back().blocks == ()
    world.store.delete(keys.pool_key("p"))
    assert ipam.give_back().blocks == ()
    assert len(ipam.blocks()) == 1


def test_blocks_of_a_pool_that_is_no_use_any_more_go() -> None:
    old = pool("old", "10.1.0.0/29")
    world = World(P, old)
    ipam = world.node("a")
    assert ipam.claim(ip_network("10.1.0.0/30"))
    assert ipam.claim(ip_network("10.0.0.0/29"))
    world.put(pool("old", "10.1.0.0/29", disabled=True))
    assert ipam.give_back().blocks == (ip_network("10.1.0.0/30"),)


def test_reserved_addresses_are_no_reserve() -> None:
    world = World(P, reservation("r", "10.0.0.0/29"))
    ipam = world.node("a")
    assert ipam.claim(ip_network("10.0.0.0/29"))
    world.later(1)
    assert ipam.claim(ip_network("10.0.0.8/29"))
    assert ipam.give_back().blocks == (ip_network("10.0.0.0/29"),)


def test_others_hear_of_it_before_anybody_can_claim_it() -> None:
    world = World(P)
    ipam = world.node("a")
    blocks = [ip_network("10.0.0.0/29"), ip_network("10.0.0.8/29")]
    for block in blocks:
        assert ipam.claim(block)
        world.later(1)
    seen: list[AffinityState] = []
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        entry = world.store.get(keys.affinity_key("a", blocks[1]))
        assert entry is not None
        seen.append(decode_affinity(entry.key, entry.value).state)
        assert not world.node("b").claim(blocks[1])

    world.clock.sleep = sleep  # type: ignore[method-assign]
    assert ipam.give_back().blocks == (blocks[1],)
    assert (seen, pauses) == ([AffinityState.PENDING_DELETION], [WITHDRAWAL_S])
    assert world.node("b").claim(blocks[1])


def test_a_block_put_to_use_meanwhile_stays() -> None:
    world = World(P)
    ipam = world.node("a")
    blocks = [ip_network("10.0.0.0/29"), ip_network("10.0.0.8/29")]
    for block in blocks:
        assert ipam.claim(block)
        world.later(1)
    other = world.node("a")
    other.blocks()

    def sleep(seconds: float) -> None:
        world.later(seconds)
        other.claim(blocks[1])
        for number in range(9):
            other.assign(asked(f"h{number}"))

    world.clock.sleep = sleep  # type: ignore[method-assign]
    assert ipam.give_back().blocks == ()
    assert len(world.users()) == 9
    assert set(world.confirmed()["a"]) == {str(block) for block in blocks}
    world.check()


@given(st.lists(st.integers(0, 11), max_size=40))
def test_giving_back_and_claiming_ahead_never_undo_each_other(moves: list[int]) -> None:
    """Pods come and go; whichever of the two acts, the other has nothing to do afterwards."""
    world = World(P)
    ipam = world.node("a")
    here: set[int] = set()
    for pod in moves:
        if pod in here:
            here.discard(pod)
            ipam.release_handle(f"h{pod}")
        else:
            here.add(pod)
            ipam.assign(asked(f"h{pod}"))
        world.later(1)
        if ipam.claim_ahead() is not None:
            assert ipam.give_back().blocks == ()
        if ipam.give_back().blocks:
            assert ipam.claim_ahead() is None
    world.check()
