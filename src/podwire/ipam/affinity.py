"""Which block a node should claim next, and what a claim that is found half-done asks for. Pure.

A claim is made in three writes: affinity *pending*, block with the node as its holder, affinity
*confirmed*. It is given back in three more: affinity *pendingDeletion*, block deleted (or its
holder cleared), affinity deleted. Whoever meets a half-done claim takes the next step again; every
step is safe to repeat, so a crash between any two writes is repaired by the next reader.

The block itself decides who holds it: it is one object, created exclusively. Affinities only say
where to look.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from podwire.ipam.allocation import live
from podwire.model.addressing import block_count, blocks_from, contains
from podwire.model.block import AffinityState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Affinity, Block
    from podwire.model.pool import IPPool

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619


def fnv1_32(data: bytes) -> int:
    """The FNV-1 hash, 32 bits (Fowler, Noll, Vo).

    >>> hex(fnv1_32(b"a"))
    '0x50c5d7e'
    """
    value = _FNV_OFFSET
    for byte in data:
        value = (value * _FNV_PRIME) & 0xFFFFFFFF
        value ^= byte
    return value


def walk(pool: IPPool, node: str) -> Iterator[IPNetwork]:
    """All blocks of the pool once, from a start that depends on the node's name.

    Nodes so begin at different places and seldom race for the same block, and a node that comes
    back looks first where it was before.
    """
    yield from blocks_from(pool.cidr, pool.block_size, _start(pool, node))


def walk_position(pool: IPPool, node: str, block: IPNetwork) -> int:
    """When `walk` would come to the block: 0 for the first."""
    size = 1 << (pool.cidr.max_prefixlen - pool.block_size)
    index = (int(block.network_address) - int(pool.cidr.network_address)) // size
    return (index - _start(pool, node)) % block_count(pool.cidr, pool.block_size)


def free_blocks(pool: IPPool, node: str, taken: AbstractSet[IPNetwork]) -> Iterator[IPNetwork]:
    """The blocks of the pool that are not taken, in the order of `walk`."""
    inside = [block for block in taken if contains(pool.cidr, block)]
    # Blocks of another size are left from a pool of the same addresses that was deleted.
    odd = [block for block in inside if block.prefixlen != pool.block_size]
    free = block_count(pool.cidr, pool.block_size) - (len(inside) - len(odd))
    blocks = walk(pool, node)
    while free > 0:
        block = next(blocks, None)
        if block is None:
            return
        if block not in taken:
            free -= 1
            if not any(contains(block, other) or contains(other, block) for other in odd):
                yield block


def _start(pool: IPPool, node: str) -> int:
    # FNV-1 ends with an exclusive or, so vms100 and vms101 hash to neighbours, and each would find
    # its next block taken by the other. One round of mixing (murmur3's last step) parts them.
    value = fnv1_32(node.encode())
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return (value ^ (value >> 16)) % block_count(pool.cidr, pool.block_size)


class Step(Enum):
    """What has to be done next with a claim on a block."""

    CREATE = "the block is missing: create it"
    ADOPT = "nobody holds the block: take it"
    CONFIRM = "the block is ours: confirm the affinity"
    YIELD = "somebody else holds the block: drop our affinity"


def next_step(block: Block | None, node: str) -> Step:
    """How `node` goes on with a claim, given the block as it stands in the datastore."""
    if block is None:
        return Step.CREATE
    if block.node == node:
        return Step.CONFIRM
    return Step.ADOPT if adoptable(block, node) else Step.YIELD


def adoptable(block: Block, node: str) -> bool:
    """Whether a block without a holder can become the node's.

    Only when no other node uses an address of it: such an address would turn into a borrowed one.
    """
    return (
        block.node is None
        and block.foreign_affinity is None
        and all(allocation.attributes.get("node") == node for allocation in live(block).values())
    )


def usable(affinity: Affinity) -> bool:
    """Whether addresses may be taken from the block without looking at the claim first."""
    return affinity.state is AffinityState.CONFIRMED and not affinity.deleted
