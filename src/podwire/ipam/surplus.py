"""How many free addresses a node should hold, and which of its blocks it can do without. Pure.

The next block is claimed when the free addresses would not fill a quarter of one; an empty block is
given back only while the others have half a block free without it. Between the two nothing moves,
so a pod that comes and goes never makes the node claim and give back in turns.

An address that rests is neither free nor gone: it cannot be handed out, and its block stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.addressing import address_at, contains

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.ipam.pools import Rules
    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Block
    from podwire.model.pool import IPPool

AHEAD = 0.75
"""How full the last block is when the next one is claimed."""
SPARE = 0.5
"""How much of a block must be free in the others when an empty one is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBack:
    """What a look for blocks to give back came to."""

    blocks: tuple[IPNetwork, ...] = ()
    """No longer the node's."""
    again_in_s: float | None = None
    """Another look is worth its while then: addresses that rest now will rest no more."""


def free_in(block: Block, rules: Rules) -> int:
    """How many addresses of the block can be handed out now."""
    if not rules.reserved:
        return len(block.unallocated)
    addresses = (address_at(block.cidr, ordinal) for ordinal in block.unallocated)
    return sum(not rules.is_reserved(address) for address in addresses)


def enough(blocks: Sequence[Block], rules: Rules) -> bool:
    """Whether these blocks, in the order in which they are used, will do for a while."""
    free = sum(free_in(block, rules) for block in blocks)
    return bool(blocks) and free > (1 - AHEAD) * blocks[-1].size


def surplus(blocks: Iterable[Block], pools: Sequence[IPPool], rules: Rules) -> list[IPNetwork]:
    """The empty blocks the node can do without, those it claimed last before the others.

    `pools` are those the node takes addresses from. Blocks of other pools are of no use to it.
    Never all blocks: a node without any would make its first pod wait for one.
    """
    kept = {block.cidr: block for block in blocks}
    useful = {cidr for cidr in kept if any(contains(pool.cidr, cidr) for pool in pools)}
    free = sum(free_in(kept[cidr], rules) for cidr in useful)
    found = []
    for block in sorted(kept.values(), key=_age, reverse=True):
        if block.allocations or len(kept) == 1:
            continue
        if block.cidr in useful:
            rest = free - free_in(block, rules)
            others = [kept[cidr].size for cidr in useful & kept.keys() if cidr != block.cidr]
            if not others or rest < SPARE * max(others):
                continue
            free = rest
        del kept[block.cidr]
        found.append(block.cidr)
    return found


def _age(block: Block) -> tuple[str, int]:
    return block.claimed or "", int(block.cidr.network_address)
