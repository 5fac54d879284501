"""Taking an IPPool out of service: never while somebody uses its addresses."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.errors import Conflict, InUse, NotFound, Stale
from podwire.ipam.allocation import live
from podwire.ipam.claims import Claims
from podwire.ipam.records import Records
from podwire.model import codec
from podwire.model.addressing import contains

if TYPE_CHECKING:
    from podwire.boundary import Clock, Entry, Store
    from podwire.model.block import Allocation, Block
    from podwire.model.pool import IPPool

SETTLE_S = 0.5
"""How long agents are given to hear that the pool is disabled; Calico's figure."""
NAMED = 3
"""How many users of a pool an error names."""


def remove_pool(store: Store, key: str, clock: Clock) -> None:
    """Disable the pool, give back its empty blocks, delete it.

    Raises:
        NotFound: there is no such pool.
        InUse: addresses of it are in use; the pool is as it was.
        Stale: it was changed at the same time.
        BadInput: what is stored is no pool.
    """
    entry = store.get(key)
    if entry is None:
        raise NotFound(f"{key} does not exist")
    pool = codec.decode_pool(entry.key, entry.value)
    records = Records(store)
    _refuse_users(pool, records)
    if not pool.disabled and _blocks(pool, records):
        # First no new claims, then another look: an agent may be taking an address right now.
        entry = store.update(key, codec.encode(replace(pool, disabled=True)), entry.revision)
        clock.sleep(SETTLE_S)
    try:
        _give_back(pool, records, clock)
    except (InUse, Stale):
        _restore(store, entry, pool)
        raise
    store.delete(key, entry.revision)


def _give_back(pool: IPPool, records: Records, clock: Clock) -> None:
    _refuse_users(pool, records)
    for affinity in records.affinities():
        if contains(pool.cidr, affinity.value.block):
            claims = Claims(records, affinity.value.node, clock)
            claims.release(affinity.value.block, must_be_empty=True, cooldown_s=0)
    for block in records.blocks():
        if contains(pool.cidr, block.value.cidr):
            _refuse_users(pool, records)
            records.delete(block)


def _restore(store: Store, entry: Entry, pool: IPPool) -> None:
    if not pool.disabled:
        with suppress(Conflict):  # whoever changed it since has decided what it should be
            store.update(entry.key, codec.encode(pool), entry.revision)


def _blocks(pool: IPPool, records: Records) -> list[Block]:
    return [record.value for record in records.blocks() if contains(pool.cidr, record.value.cidr)]


def _refuse_users(pool: IPPool, records: Records) -> None:
    users = [allocation for block in _blocks(pool, records) for allocation in live(block).values()]
    if not users:
        return
    names = ", ".join(_user(allocation) for allocation in users[:NAMED])
    more = f" and {len(users) - NAMED} more" if len(users) > NAMED else ""
    noun = "address" if len(users) == 1 else "addresses"
    raise InUse(
        f"IPPool {pool.name} is in use: {len(users)} {noun} of {pool.cidr} ({names}{more})",
        fix="apply the pool with `disabled: true`, move those users to another pool, delete again",
    )


def _user(allocation: Allocation) -> str:
    owner = allocation.attributes
    if "pod" in owner:
        return f"{owner.get('namespace', 'default')}/{owner['pod']}"
    if "type" in owner:
        return f"{owner['type']} of node {owner.get('node')}"
    return f"handle {allocation.handle}"
