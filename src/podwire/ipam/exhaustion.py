"""Says why no address is left: which pools, how full, who holds the blocks, what to do. Pure."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.errors import PoolExhausted
from podwire.ipam.allocation import live
from podwire.model.addressing import block_count, contains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.ipam.pools import Asker, Rules
    from podwire.model.block import Block
    from podwire.model.pool import IPPool


class Limit(StrEnum):
    """What kept a node from claiming another block."""

    NO_BLOCK = "every block of the pool is held"
    BLOCK_LIMIT = "the node holds as many blocks as it may"
    NO_CLAIMS = "IPAMConfig autoAllocateBlocks is false"


def exhausted(
    rules: Rules, asker: Asker, pools: Sequence[IPPool], blocks: Sequence[Block], limit: Limit
) -> PoolExhausted:
    """The error for a request that no pool could serve; `blocks` are all blocks of all nodes."""
    count = sum(block.node == asker.node for block in blocks)
    match limit:
        case Limit.BLOCK_LIMIT:
            why = f"node {asker.node} holds {count} blocks, the limit is {rules.block_limit}"
            fix = "raise maxBlocksPerHost of IPAMConfig (it needs strictAffinity)"
        case Limit.NO_CLAIMS:
            why = f"node {asker.node} may not claim a block, because autoAllocateBlocks is false"
            fix = "set autoAllocateBlocks of IPAMConfig to true"
        case Limit.NO_BLOCK:
            why = "every block is full, held by another node or reserved"
            fix = "add an IPPool, or delete pods that are not needed"
            if rules.config.strict_affinity:
                why += ", and strictAffinity forbids to borrow"
                fix += ", or set strictAffinity of IPAMConfig to false to borrow free addresses"
    states = "; ".join(_state(pool, asker.node, blocks, rules) for pool in pools)
    return PoolExhausted(
        f"no {asker.use} address is left for node {asker.node}: {states}; {why}", fix=fix
    )


def _state(pool: IPPool, node: str, blocks: Sequence[Block], rules: Rules) -> str:
    inside = [block for block in blocks if contains(pool.cidr, block.cidr)]
    used = sum(len(live(block)) for block in inside)
    resting = sum(len(block.allocations) for block in inside) - used
    notes = [f"{used} of {pool.cidr.num_addresses} addresses in use"]
    if resting:
        notes.append(f"{resting} resting for {rules.config.cooldown_s} s after their release")
    reserved = sum(
        min(cidr.num_addresses, pool.cidr.num_addresses)
        for cidr in rules.reserved
        if cidr.version == pool.cidr.version and cidr.overlaps(pool.cidr)
    )
    if reserved:
        notes.append(f"{reserved} reserved")
    holders = Counter(block.node or block.foreign_affinity or "nobody" for block in inside)
    ours = holders.pop(node, 0)
    total = block_count(pool.cidr, pool.block_size) if pool.block_size >= pool.cidr.prefixlen else 0
    others = ", ".join(f"{holder} {count}" for holder, count in holders.most_common(5))
    if len(holders) > 5:
        others += f" and {len(holders) - 5} more"
    notes.append(
        f"{len(inside)} of {total} blocks held, {ours} by this node and "
        f"{len(inside) - ours} by others" + (f" ({others})" if others else "")
    )
    return f"IPPool {pool.name} ({pool.cidr}) has {', '.join(notes)}"
