"""Regain: enter an address that a pod carries and the datastore has forgotten.

The pod was there first, so nothing is asked that decides about new addresses: node selectors,
disabled pools, reservations, rest, the block limit, strict affinity. Only somebody who has the
address by now keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.errors import AddressTaken, Conflict, NoPool
from podwire.ipam.affinity import adoptable
from podwire.ipam.allocation import allocate, free
from podwire.ipam.assignment import owner_of
from podwire.ipam.ledger import Edit
from podwire.ipam.release import release_from
from podwire.ipam.request import Release
from podwire.model.addressing import block_holding, contains, ordinal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.boundary import Write
    from podwire.ipam.desk import Desk
    from podwire.ipam.records import Record
    from podwire.ipam.request import AssignRequest
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation, Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Regained:
    """An address that is its pod's again."""

    entered: bool
    """It had been forgotten; False: all was as it should be."""
    stranded_at: str | None = None
    """The node that holds the block, where no other node is told of addresses lent from it."""


def regain(
    desk: Desk, request: AssignRequest, address: IPAddress, is_gone: Callable[[Allocation], bool]
) -> Regained:
    """One try; `is_gone` says of an allocation whether its owner cannot be there any more.

    Raises:
        NoPool: no IPPool, enabled or not, has the address.
        AddressTaken: it is somebody else's.
        Conflict, AlreadyExists: somebody else was quicker; begin again.
        AlsoRefused: one of the request's `also` was refused; nothing was written.
    """
    rules = desk.memory.rules()
    pool = next((pool for pool in rules.pools if contains(pool.cidr, address)), None)
    if pool is None:
        raise NoPool(f"no IPPool has the address {address}", fix="create the IPPool again")
    record = _block(desk, block_holding(address, pool.block_size))
    block, ordinal = record.value, ordinal_of(record.value.cidr, address)
    taken = block.allocations.get(ordinal)
    also: Sequence[Write] = () if request.also is None else request.also(address)
    stranded_at = block.node if rules.config.strict_affinity and block.node != desk.node else None
    if taken is not None and taken.released_at is None:
        if taken.handle == request.handle:
            desk.ledger.carry_out(also)
            return Regained(entered=bool(also), stranded_at=stranded_at)
        if not is_gone(taken):
            raise AddressTaken(
                f"{address} has become the address of {owner_of(taken)}",
                fix="delete one of the two pods: it is made anew with another address",
            )
        release_from(
            desk,
            block.cidr,
            [Release(address=address, handle=taken.handle, sequence=taken.sequence)],
        )
        raise Conflict(f"block {block.cidr} was written")
    if taken is not None:  # it rests from a pod before this one
        block = free(block, [ordinal])
    new = allocate(block, ordinal, request.handle, request.attributes)
    handle = desk.records.handle(request.handle)
    desk.memory.put(desk.ledger.enter(request.handle, handle, Edit(record, new), also))
    return Regained(entered=True, stranded_at=stranded_at)


def _block(desk: Desk, cidr: IPNetwork) -> Record[Block]:
    """The block as it is now; one that nobody holds becomes the node's again."""
    record = desk.records.block(cidr)
    if record is None or adoptable(record.value, desk.node):
        record = desk.claims.claim(cidr)
        if record is None:
            raise Conflict(f"block {cidr} was claimed by another node")
        desk.memory.put(record)
    return record
