"""Whether an address could be assigned now; reads what `assignment` would, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.ipam.affinity import adoptable, free_blocks
from podwire.ipam.allocation import end_rest, first_free
from podwire.ipam.assignment import own_blocks
from podwire.ipam.exhaustion import Limit, exhausted
from podwire.ipam.pools import Asker, select_pools
from podwire.model.addressing import contains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.ipam.desk import Desk
    from podwire.ipam.memory import View
    from podwire.ipam.pools import Rules
    from podwire.model.block import Block
    from podwire.model.pool import IPPool


def refuse_without_room(desk: Desk, view: View, asked: Sequence[str] | None) -> None:
    """Raise unless a pod could get an address from a pool that serves this node.

    Args:
        desk: what IPAM works with.
        view: read just now.
        asked: pools by name or CIDR; None lets their selectors decide.

    Raises:
        NoPool, PoolExhausted: as a request would.
    """
    rules = for_any_namespace(view.rules)
    asker = Asker(node=desk.node, pools=asked)
    pools = select_pools(rules, asker)
    if any(has_free(desk, view, view.own[cidr].value) for cidr in own_blocks(view, pools)):
        return
    if not rules.config.auto_allocate_blocks:
        limit = Limit.NO_CLAIMS
    elif len(view.own) >= rules.block_limit:
        limit = Limit.BLOCK_LIMIT
    elif can_claim(desk, view, pools):
        return
    else:
        limit = Limit.NO_BLOCK
    blocks = [record.value for record in desk.records.blocks()]
    if not rules.config.strict_affinity and any(
        has_free(desk, view, block)
        for block in blocks
        if block.foreign_affinity is None and any(contains(pool.cidr, block.cidr) for pool in pools)
    ):
        return
    raise exhausted(rules, asker, pools, blocks, limit)


def for_any_namespace(rules: Rules) -> Rules:
    """The rules for a pod of whichever namespace a pool wants: there is no pod yet to tell."""
    return replace(
        rules, pools=tuple(replace(pool, namespace_selector=None) for pool in rules.pools)
    )


def has_free(desk: Desk, view: View, block: Block) -> bool:
    """Whether the block has an address to hand out."""
    rested = end_rest(block, now=desk.clock.now(), cooldown_s=view.rules.config.cooldown_s)
    return first_free(rested, view.rules.is_reserved) is not None


def can_claim(desk: Desk, view: View, pools: Sequence[IPPool]) -> bool:
    """Whether there is a block that nobody holds, with room."""
    taken = {affinity.value.block for affinity in desk.records.affinities()}
    for pool in pools:
        for cidr in free_blocks(pool, desk.node, taken):
            if view.rules.is_reserved(cidr):
                continue
            record = desk.records.block(cidr)
            if record is None:
                return True
            if adoptable(record.value, desk.node) and has_free(desk, view, record.value):
                return True
    return False
