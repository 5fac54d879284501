"""One try to give addresses back; `Conflict` when somebody else was quicker: begin again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.ipam.allocation import Claimant, live, ordinals_of, release
from podwire.ipam.ledger import Edit
from podwire.ipam.request import Release, Released
from podwire.model.addressing import address_at, block_holding, contains, ordinal_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.boundary import Write
    from podwire.ipam.desk import Desk
    from podwire.ipam.records import Record
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation, Block

AT_ONCE = 100
"""Addresses that are released in one batch: each may have a handle, and etcd takes 128 writes."""


def release_by_handle(
    desk: Desk,
    handle_id: str,
    also: Sequence[Write],
    seen: Mapping[IPAddress, int] | None = None,
) -> tuple[IPAddress, ...]:
    """Release all addresses of the handle and delete it; `also` is written in the same batch.

    With `seen`, only if these are its addresses, each under the sequence number named.
    """
    handle = desk.records.handle(handle_id)
    if handle is None:
        desk.ledger.carry_out(also)
        return ()
    addresses: dict[IPAddress, int] = {}
    edits = []
    for cidr in handle.value.blocks:
        # Read anew, never remembered: an allocation that memory lacks would be left behind.
        record = desk.records.block(cidr)
        if record is not None:
            ordinals = ordinals_of(record.value, handle_id)
            for ordinal in ordinals:
                taken = record.value.allocations[ordinal]
                addresses[address_at(cidr, ordinal)] = taken.sequence
            edits.append(_without(desk, record, ordinals))
    if seen is not None and addresses != seen:
        return ()
    for record in desk.ledger.strike(handle, edits, also):
        desk.memory.put(record)
    return tuple(addresses)


def release_from(desk: Desk, cidr: IPNetwork, releases: Sequence[Release]) -> Released:
    """Release addresses of one block, each only if it still is what the caller thinks."""
    record = desk.records.block(cidr)
    released: dict[int, str | None] = {}
    absent, foreign = [], []
    for wanted in releases:
        ordinal = ordinal_of(cidr, wanted.address)
        taken = None if record is None else record.value.allocations.get(ordinal)
        if taken is None or taken.released_at is not None:
            absent.append(wanted.address)
        elif Claimant(handle=wanted.handle, sequence=wanted.sequence).owns(taken):
            released[ordinal] = taken.handle
        else:
            foreign.append(wanted.address)
    if record is not None and released:
        handles = []
        for name in {name for name in released.values() if name is not None}:
            handle = desk.records.handle(name)
            if handle is not None:
                handles.append((handle, sum(name == owner for owner in released.values())))
        kept = desk.ledger.cross_out(_without(desk, record, tuple(released)), handles)
        if kept is not None:
            desk.memory.put(kept)
    return Released(
        released=tuple(address_at(cidr, ordinal) for ordinal in released),
        absent=tuple(absent),
        foreign=tuple(foreign),
    )


def by_block(
    desk: Desk, releases: Sequence[Release]
) -> tuple[list[tuple[IPNetwork, list[Release]]], list[IPAddress]]:
    """The releases by the block that holds each address, and the addresses no block holds.

    Of a large block there are several parts, each of them small enough for one batch.
    """
    blocks: dict[IPNetwork, list[Release]] = {}
    absent = []
    for wanted in releases:
        cidr = _block_of(desk, wanted.address)
        if cidr is None:
            absent.append(wanted.address)
        else:
            blocks.setdefault(cidr, []).append(wanted)
    parts = [
        (cidr, group[start : start + AT_ONCE])
        for cidr, group in blocks.items()
        for start in range(0, len(group), AT_ONCE)
    ]
    return parts, absent


def holder_of(desk: Desk, address: IPAddress) -> Allocation | None:
    """The allocation in use of an address; None when there is none."""
    cidr = _block_of(desk, address)
    record = None if cidr is None else desk.records.block(cidr)
    if record is None:
        return None
    return live(record.value).get(ordinal_of(record.value.cidr, address))


def _block_of(desk: Desk, address: IPAddress) -> IPNetwork | None:
    for pool in desk.memory.rules().pools:
        if contains(pool.cidr, address):
            cidr = block_holding(address, pool.block_size)
            if desk.records.block(cidr) is not None:
                return cidr
    # The pool may be gone, or have had another block size.
    for record in desk.records.blocks():
        if contains(record.value.cidr, address):
            return record.value.cidr
    return None


def _without(desk: Desk, record: Record[Block], ordinals: Sequence[int]) -> Edit:
    if not ordinals:
        return Edit(record, record.value)
    now, cooldown_s = desk.clock.now(), desk.memory.rules().config.cooldown_s
    block = release(record.value, ordinals, now=now, cooldown_s=cooldown_s)
    held = block.node is not None or block.foreign_affinity is not None
    # A block nobody holds lives only for its addresses.
    return Edit(record, block if held or block.allocations else None)
