"""Ordinals of one block."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from podwire.ipam.allocation import (
    Claimant,
    allocate,
    end_rest,
    first_free,
    free,
    live,
    new_block,
    ordinals_of,
    release,
    timestamp,
)
from podwire.ipam.soundness import faults
from podwire.model.addressing import IPAddress, ordinal_of
from podwire.model.codec import decode_block, encode, key_of

if TYPE_CHECKING:
    from podwire.model.block import Block

CIDR = ip_network("10.0.0.8/29")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def empty() -> Block:
    return new_block(CIDR, "a", now=NOW, now_ns=1_700_000_000_000_000_000)


def skip_none(_: IPAddress) -> bool:
    return False


def take(block: Block, handle: str) -> tuple[Block, int]:
    ordinal = first_free(block, skip_none)
    assert ordinal is not None
    return allocate(block, ordinal, handle, {}), ordinal


def test_an_address_is_reused_as_late_as_possible() -> None:
    block, first = take(empty(), "h")
    block = release(block, [first], now=NOW, cooldown_s=0)
    order = []
    for _ in range(8):
        block, ordinal = take(block, "h")
        order.append(ordinal)
    assert order == [1, 2, 3, 4, 5, 6, 7, 0]


def test_a_skipped_ordinal_keeps_its_place() -> None:
    block = empty()

    def skip_first(address: IPAddress) -> bool:
        return ordinal_of(CIDR, address) == 0

    ordinal = first_free(block, skip_first)
    assert ordinal == 1
    assert allocate(block, ordinal, "h", {}).unallocated == (0, 2, 3, 4, 5, 6, 7)
    assert first_free(block, lambda _: True) is None


def test_an_allocation_keeps_the_number_of_its_write() -> None:
    block = empty()
    after, ordinal = take(block, "h")
    assert after.allocations[ordinal].sequence == block.sequence
    assert after.sequence == block.sequence + 1


def test_a_released_address_rests() -> None:
    block, ordinal = take(empty(), "h")
    block = release(block, [ordinal], now=NOW, cooldown_s=60)
    assert ordinal not in block.unallocated
    assert live(block) == {}
    early = NOW + timedelta(seconds=59)
    assert end_rest(block, now=early, cooldown_s=60) is block
    late = NOW + timedelta(seconds=60)
    assert end_rest(block, now=late, cooldown_s=60).unallocated[-1] == ordinal


def test_a_clock_set_back_begins_the_rest_anew() -> None:
    block, ordinal = take(empty(), "h")
    block = release(block, [ordinal], now=NOW + timedelta(days=400), cooldown_s=60)
    block = end_rest(block, now=NOW, cooldown_s=60)
    assert block.allocations[ordinal].released_at == timestamp(NOW)
    assert end_rest(block, now=NOW + timedelta(seconds=60), cooldown_s=60).allocations == {}


def test_only_the_owner_releases() -> None:
    block, ordinal = take(empty(), "h")
    allocation = block.allocations[ordinal]
    assert Claimant().owns(allocation)
    assert Claimant(handle="h", sequence=allocation.sequence).owns(allocation)
    assert not Claimant(handle="other").owns(allocation)
    assert not Claimant(handle="h", sequence=allocation.sequence + 1).owns(allocation)
    resting = release(block, [ordinal], now=NOW, cooldown_s=60).allocations[ordinal]
    assert not Claimant(handle="h").owns(resting)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "release", "free", "wait"]),
        st.integers(0, 7),
        st.sampled_from("hi"),
    ),
    max_size=30,
)


@given(STEPS, st.integers(0, 3))
def test_every_ordinal_is_free_or_taken_and_survives_storage(
    steps: list[tuple[str, int, str]], cooldown_s: int
) -> None:
    block, now = empty(), NOW
    for verb, number, handle in steps:
        before = block
        match verb:
            case "take":
                ordinal = first_free(block, skip_none)
                if ordinal is not None:
                    block = allocate(block, ordinal, handle, {"node": handle})
            case "release":
                block = release(block, ordinals_of(block, handle), now=now, cooldown_s=cooldown_s)
            case "free":
                block = free(block, list(block.allocations)[:number])
            case _:
                now += timedelta(seconds=number)
                block = end_rest(block, now=now, cooldown_s=cooldown_s)
        assert faults(encode(block), block.size) == ()
        assert block.sequence >= before.sequence
        stored = decode_block(key_of(block), encode(block))
        assert (stored.allocations, stored.unallocated) == (block.allocations, block.unallocated)
        assert stored.sequence == block.sequence
