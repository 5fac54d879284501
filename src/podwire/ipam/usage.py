"""How full pools and blocks are, and who has an address: what `podwire ipam show` tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.ipam.allocation import live
from podwire.model.addressing import address_at, contains, ordinal_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.ipam.records import Records
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation, Block
    from podwire.model.pool import IPPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Addresses of a pool or block; the four parts add up to `total`."""

    total: int
    in_use: int
    resting: int
    """Released, and not handed out again before the cooldown is over."""
    reserved: int
    """Reserved and neither in use nor resting."""

    @property
    def free(self) -> int:
        """What could be handed out now."""
        return self.total - self.in_use - self.resting - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUsage:
    """One block."""

    cidr: IPNetwork
    holder: str | None
    """Node of the affinity, another kind of affinity as written, or None."""
    count: Count
    borrowed: int
    """Addresses in use on nodes that do not hold the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """One pool and its blocks in address order; blocks outside all pools have no pool."""

    pool: IPPool | None
    count: Count
    blocks: tuple[BlockUsage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """All pools by name; last, when there are any, the blocks that lie in none."""

    pools: tuple[PoolUsage, ...]
    unreadable: tuple[str, ...] = ()
    """Objects that could not be read, and why; they are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressUsage:
    """Who has one address."""

    address: IPAddress
    block: BlockUsage | None
    """None when no block holds the address."""
    allocation: Allocation | None
    """None when it is not allocated."""


def compute_usage(
    pools: Sequence[IPPool],
    reserved: Sequence[IPNetwork],
    blocks: Iterable[Block],
    unreadable: Sequence[str] = (),
) -> Usage:
    """Count everything; `reserved` must not overlap in itself."""
    left = sorted(blocks, key=lambda block: (block.cidr.version, block.cidr))
    found = []
    for pool in pools:
        inside = [block for block in left if contains(pool.cidr, block.cidr)]
        left = [block for block in left if not contains(pool.cidr, block.cidr)]
        found.append(
            PoolUsage(
                pool=pool,
                count=_count(pool.cidr, reserved, inside),
                blocks=tuple(_block_usage(block, reserved) for block in inside),
            )
        )
    if left:
        outside = tuple(_block_usage(block, reserved) for block in left)
        found.append(PoolUsage(pool=None, count=_sum(outside), blocks=outside))
    return Usage(pools=tuple(found), unreadable=tuple(unreadable))


def read_usage(records: Records) -> Usage:
    """Read pools, reservations and blocks, and count."""
    unreadable: list[str] = []
    blocks = [record.value for record in records.blocks(unreadable)]
    rules = records.rules("", {})
    return compute_usage(rules.pools, rules.reserved, blocks, (*rules.unreadable, *unreadable))


def read_address(records: Records, address: IPAddress) -> AddressUsage:
    """Find out who has an address."""
    for record in records.blocks():
        block = record.value
        if contains(block.cidr, address):
            return AddressUsage(
                address=address,
                block=_block_usage(block, ()),
                allocation=block.allocations.get(ordinal_of(block.cidr, address)),
            )
    return AddressUsage(address=address, block=None, allocation=None)


def _block_usage(block: Block, reserved: Sequence[IPNetwork]) -> BlockUsage:
    users = [allocation.attributes.get("node") for allocation in live(block).values()]
    return BlockUsage(
        cidr=block.cidr,
        holder=block.node or block.foreign_affinity,
        count=_count(block.cidr, reserved, [block]),
        borrowed=sum(user is not None and user != block.node for user in users),
    )


def _count(cidr: IPNetwork, reserved: Sequence[IPNetwork], blocks: Sequence[Block]) -> Count:
    in_use = sum(len(live(block)) for block in blocks)
    kept_back = sum(_overlap(cidr, network) for network in reserved)
    if kept_back:
        # An allocation made before the reservation, or asked for by address, counts as in use.
        kept_back -= sum(
            any(contains(network, address_at(block.cidr, ordinal)) for network in reserved)
            for block in blocks
            for ordinal in block.allocations
        )
    allocated = sum(len(block.allocations) for block in blocks)
    return Count(
        total=cidr.num_addresses, in_use=in_use, resting=allocated - in_use, reserved=kept_back
    )


def _overlap(one: IPNetwork, other: IPNetwork) -> int:
    """How many addresses two networks share: one holds the other, or they share none."""
    if contains(one, other):
        return other.num_addresses
    return one.num_addresses if contains(other, one) else 0


def _sum(blocks: Sequence[BlockUsage]) -> Count:
    return Count(
        total=sum(block.count.total for block in blocks),
        in_use=sum(block.count.in_use for block in blocks),
        resting=sum(block.count.resting for block in blocks),
        reserved=sum(block.count.reserved for block in blocks),
    )
