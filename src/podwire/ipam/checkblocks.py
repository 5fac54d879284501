"""The part of the check that is about blocks, who holds them, and where they lie. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from podwire.ipam.allocation import live
from podwire.ipam.problem import REPAIR, Problem, Trouble
from podwire.ipam.soundness import faults
from podwire.model.addressing import contains
from podwire.model.block import AffinityState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podwire.ipam.checkworld import World
    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Affinity, Block
    from podwire.model.pool import IPPool

T = TypeVar("T")

EMPTY_FIRST = "move its pods elsewhere, then check again"


def blocks(world: World) -> Iterator[Problem]:
    """Everything that is wrong with readable blocks and the claims on them."""
    for block in world.blocks:
        said = faults(block.wire, block.size, world.now)
        if said:
            yield Problem(
                trouble=Trouble.BROKEN_BLOCK,
                subject=str(block.cidr),
                sentence=f"block {block.cidr}: {'; '.join(said)}",
                fix=REPAIR,
                block=block.cidr,
                sequence=block.sequence,
            )
        stray = _why_stray(block.cidr, world.pools)
        if stray is not None:
            yield _given_back(block, Trouble.STRAY_BLOCK, f"block {block.cidr} {stray}")
    yield from _claims(world)
    yield from _overlaps(world.blocks, world.pools)


def _why_stray(cidr: IPNetwork, pools: Sequence[IPPool]) -> str | None:
    around = [pool for pool in pools if contains(pool.cidr, cidr)]
    if not around:
        return "lies in no IPPool"
    if all(pool.block_size != cidr.prefixlen for pool in around):
        return f"is no block of IPPool {around[0].name}, whose blocks are /{around[0].block_size}"
    return None


def _given_back(block: Block, trouble: Trouble, sentence: str) -> Problem:
    return Problem(
        trouble=trouble,
        subject=str(block.cidr),
        sentence=sentence,
        fix=EMPTY_FIRST if live(block) else REPAIR,
        block=block.cidr,
        node=block.node,
        sequence=block.sequence,
    )


def _claims(world: World) -> Iterator[Problem]:
    claimants: defaultdict[IPNetwork, dict[str, Affinity]] = defaultdict(dict)
    for claim in world.affinities:
        claimants[claim.block][claim.node] = claim
    there = {block.cidr: block for block in world.blocks}
    for block in world.blocks:
        known = (block.node, block.cidr) in world.claimed
        if block.node is None or block.node in world.lost or known:
            continue
        yield Problem(
            trouble=Trouble.UNCLAIMED_BLOCK,
            subject=str(block.cidr),
            sentence=f"block {block.cidr} is held by {block.node}, without an affinity: nobody"
            " routes it",
            fix=REPAIR,
            block=block.cidr,
            node=block.node,
        )
    for claim in world.affinities:
        held = there.get(claim.block)
        if (
            claim.state is not AffinityState.CONFIRMED
            or claim.node in world.lost
            or claim.block in world.unsure
        ):
            continue  # under way: its node finishes it
        if held is None:
            trouble, what = Trouble.EMPTY_CLAIM, "and there is no block"
        elif held.node == claim.node:
            continue
        else:
            rival = claimants[claim.block].get(held.node or "")
            both = rival is not None and rival.state is AffinityState.CONFIRMED
            trouble = Trouble.TWO_OWNERS if both else Trouble.WRONG_CLAIM
            what = f"and the block is {held.node or held.foreign_affinity or 'nobody'}'s"
            what += ", with an affinity too" if both else ""
        yield Problem(
            trouble=trouble,
            subject=str(claim.block),
            sentence=f"{claim.node} has an affinity for {claim.block}, {what}",
            fix=REPAIR,
            block=claim.block,
            node=claim.node,
        )


def _overlaps(found: Sequence[Block], pools: Sequence[IPPool]) -> Iterator[Problem]:
    by_place = sorted(pools, key=lambda pool: (pool.cidr.version, pool.cidr))
    for one, other in _nested([(pool.cidr, pool) for pool in by_place]):
        yield Problem(
            trouble=Trouble.POOLS_OVERLAP,
            subject=other.name,
            sentence=f"IPPools {one.name} ({one.cidr}) and {other.name} ({other.cidr}) overlap",
            fix=f"podwire delete ippool {other.name}, or {one.name}",
        )
    blocks_by_place = sorted(found, key=lambda block: (block.cidr.version, block.cidr))
    for wide, narrow in _nested([(block.cidr, block) for block in blocks_by_place]):
        which = wide if live(narrow) and not live(wide) else narrow
        yield _given_back(
            which, Trouble.BLOCKS_OVERLAP, f"blocks {wide.cidr} and {narrow.cidr} overlap"
        )


def _nested(placed: Sequence[tuple[IPNetwork, T]]) -> Iterator[tuple[T, T]]:
    """Pairs of which the first holds the second; the networks in order, wider ones first."""
    around: list[tuple[IPNetwork, T]] = []
    for cidr, what in placed:
        while around and not contains(around[-1][0], cidr):
            around.pop()
        if around:
            yield around[-1][1], what
        around.append((cidr, what))
