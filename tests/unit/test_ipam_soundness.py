"""Blocks that count wrongly: found whatever is wrong, and mended without taking from anybody."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.ipam.soundness import faults, lost_owners, mended
from podwire.model import keys
from podwire.model.blockcodec import decode_block, encode_block

CIDR = ip_network("10.0.0.8/29")
KEY = keys.block_key(CIDR)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = "2026-11-22T13:00:00Z"


def stored(**fields: Any) -> dict[str, Any]:
    """A sound block of eight with one address in use, and what is wrong with it."""
    return {
        "cidr": str(CIDR),
        "affinity": "host:a",
        "allocations": [0, *[None] * 7],
        "unallocated": [1, 2, 3, 4, 5, 6, 7],
        "attributes": [{"handle_id": "net.x", "secondary": {"pod": "x"}}],
        "sequenceNumber": 1_766_400_000_000_000_001,
        "sequenceNumberForAllocation": {"0": 1_766_400_000_000_000_000},
        "deleted": False,
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, []),
        ({"allocations": [3, *[None] * 7]}, ["ordinal 0 points to no attribute", "nobody's"]),
        ({"attributes": [{}, {}]}, ["1 attributes are nobody's"]),
        ({"attributes": [{"releasedAt": LATER}]}, ["released in the future"]),
        ({"unallocated": [1, 2, 3, 4, 5, 6, 8]}, ["out of range"]),
        ({"unallocated": [1, 2, 3, 4, 5, 6, "7"]}, ["out of range"]),
        ({"unallocated": [1, 2, 3, 4, 5, 6, 6]}, ["free twice"]),
        ({"unallocated": [0, 2, 3, 4, 5, 6, 7]}, ["free and allocated"]),
        ({"unallocated": [1, 2, 3]}, ["3 free + 1 allocated is not 8"]),
        ({"allocations": "x"}, ["is no list"]),
    ],
)
def test_what_is_wrong_is_told(fields: dict[str, Any], words: list[str]) -> None:
    found = faults(stored(**fields), CIDR.num_addresses, NOW)
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))


INDEXES = st.one_of(st.none(), st.integers(-1, 4), st.sampled_from(["0", True]))
ANYTHING = st.fixed_dictionaries(
    {
        "allocations": st.lists(INDEXES, max_size=10),
        "unallocated": st.lists(st.integers(-1, 9), max_size=12),
        "attributes": st.lists(
            st.one_of(
                st.builds(
                    lambda handle, when: {"handle_id": handle, "secondary": {}, **when},
                    st.sampled_from(["net.x", "net.y"]),
                    st.sampled_from([{}, {"releasedAt": LATER}]),
                ),
                st.just(7),
            ),
            max_size=3,
        ),
    }
)


@given(fields=ANYTHING)
def test_a_mended_block_is_sound_and_nobody_has_lost_an_address(fields: dict[str, Any]) -> None:
    before = stored(**fields)
    after = mended(before, CIDR.num_addresses, NOW)
    assert after is not None
    assert faults(after, CIDR.num_addresses, NOW) == ()
    block = decode_block(KEY, after)
    assert block.sequence == before["sequenceNumber"] + 1
    lost = lost_owners(before)
    for ordinal, index in enumerate(before["allocations"][: CIDR.num_addresses]):
        owner = block.allocations.get(ordinal)
        assert (owner is None) == (index is None or ordinal in lost)
        if owner is not None:
            assert owner.handle == before["attributes"][index]["handle_id"]
    # What was free keeps its place in the queue: rest and reuse go on as they were.
    kept = [o for o in dict.fromkeys(before["unallocated"]) if o in block.unallocated]
    assert list(block.unallocated[: len(kept)]) == kept
    # Written by us it says the same; owners that were there twice have become one.
    assert decode_block(KEY, encode_block(block)).allocations == block.allocations
