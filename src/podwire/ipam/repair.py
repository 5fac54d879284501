"""Puts right what a check found, one problem at a time, each by compare-and-swap.

Only where no guess is needed: who has an address is never decided here. A repair that finds the
problem gone, or changed, does nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from podwire.errors import BadInput, InUse, Stale
from podwire.ipam.allocation import live
from podwire.ipam.claims import Claims
from podwire.ipam.leftovers import PIECE
from podwire.ipam.problem import Trouble
from podwire.ipam.records import Records
from podwire.ipam.request import Release, Released
from podwire.ipam.soundness import lost_owners, mended
from podwire.model import codec, keys
from podwire.model.addressing import address_at
from podwire.model.block import Affinity, Handle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.boundary import Clock, Store
    from podwire.ipam.problem import Problem
    from podwire.ipam.service import IPAM
    from podwire.model.addressing import IPAddress, IPNetwork


class Repairs:
    """Repairs of one datastore.

    `used` are the addresses that pods and tunnels use: they never become free by a repair.
    """

    def __init__(self, store: Store, ipam: IPAM, clock: Clock, used: Iterable[IPAddress]) -> None:
        self._store = store
        self._ipam = ipam
        self._clock = clock
        self._records = Records(store)
        self._used = frozenset(used)

    def release(self, problems: Sequence[Problem]) -> Released:
        """Release what leaked, as far as it still is as it was found."""
        wanted = [
            Release(address=each.address, handle=each.handle, sequence=each.sequence)
            for each in problems
            if each.address is not None
        ]
        done = [
            self._ipam.release_addresses(wanted[start : start + PIECE])
            for start in range(0, len(wanted), PIECE)
        ]
        return Released(
            released=tuple(address for each in done for address in each.released),
            absent=tuple(address for each in done for address in each.absent),
            foreign=tuple(address for each in done for address in each.foreign),
        )

    def repair(self, problem: Problem) -> bool:
        """Put it right; False when it is not as it was found, or somebody else was quicker."""
        try:
            return self._repair(problem)
        except (Stale, InUse):
            return False

    def _repair(self, problem: Problem) -> bool:
        match problem.trouble:
            case Trouble.LEAKED:
                return bool(self.release([problem]).released)
            case Trouble.EMPTY_HANDLE:
                assert problem.handle is not None
                return self._drop(problem.handle)
            case Trouble.MISSING_HANDLE | Trouble.UNCOUNTED:
                assert problem.handle is not None
                return self._recount(problem.handle)
            case Trouble.BROKEN_BLOCK:
                return self._mend(problem)
            case Trouble.STRAY_BLOCK | Trouble.BLOCKS_OVERLAP | Trouble.EMPTY_CLAIM:
                assert problem.block is not None
                return self._give_back(problem.node, problem.block)
            case Trouble.UNCLAIMED_BLOCK | Trouble.WRONG_CLAIM | Trouble.TWO_OWNERS:
                assert problem.block is not None
                assert problem.node is not None
                # Whose the block is decides: the claim is confirmed, or goes.
                self._claims(problem.node).claim(problem.block)
                return True
            case Trouble.UNREADABLE:
                return self._write_anew(problem.subject)
            case _:
                return False

    def _drop(self, handle: str) -> bool:
        """Delete a handle, unless it has got an address since."""
        self._ipam.release_handle(handle, seen={})
        return self._store.get(keys.handle_key(handle)) is None

    def _recount(self, handle: str) -> bool:
        """Make the handle count what there is; without addresses it goes."""
        counts: Counter[IPNetwork] = Counter()
        unreadable: list[str] = []
        for record in self._records.blocks(unreadable):
            owners = [each.handle for each in live(record.value).values()]
            if count := owners.count(handle):
                counts[record.value.cidr] = count
        if unreadable:
            return False  # it may have addresses there
        if not counts:
            return self._drop(handle)
        key = keys.handle_key(handle)
        entry = self._store.get(key)
        value = codec.encode(Handle(id=handle, blocks=dict(counts)))
        if entry is None:
            self._store.create(key, value)
        else:
            self._store.update(key, {**entry.value, **value}, entry.revision)
        return True

    def _mend(self, problem: Problem) -> bool:
        assert problem.block is not None
        cidr, key = problem.block, keys.block_key(problem.block)
        entry = self._store.get(key)
        if entry is None or entry.value.get("sequenceNumber") != problem.sequence:
            return False
        size = cidr.num_addresses
        freed = {
            address_at(cidr, ordinal) for ordinal in lost_owners(entry.value) if ordinal < size
        }
        if freed & self._used:
            names = ", ".join(str(address) for address in sorted(freed & self._used, key=int))
            raise BadInput(
                f"block {cidr} has lost whose {names} is, and somebody uses that address",
                fix="delete its pod first",
            )
        whole = mended(entry.value, size, self._clock.now())
        if whole is None:
            return False
        codec.decode_block(key, whole)
        self._store.update(key, whole, entry.revision)
        return True

    def _give_back(self, node: str | None, cidr: IPNetwork) -> bool:
        if node is not None:
            self._claims(node).release(cidr, must_be_empty=True, cooldown_s=0)
            return True
        record = self._records.block(cidr)
        if record is None or record.value.allocations:
            return False
        self._records.delete(record)
        return True

    def _write_anew(self, key: str) -> bool:
        """A handle or affinity that cannot be read: what it says follows from the blocks."""
        if (handle := keys.parse_handle_key(key)) is not None:
            entry = self._store.get(key)
            if entry is not None:
                self._store.update(key, {"block": {}, "deleted": False}, entry.revision)
            return self._recount(handle)
        claim, entry = keys.parse_affinity_key(key), self._store.get(key)
        if claim is None or entry is None:
            return False
        node, cidr = claim
        block = self._records.block(cidr)
        if block is None or block.value.node != node:
            self._store.delete(key, entry.revision)
        else:
            value = codec.encode(Affinity(node=node, block=cidr))
            self._store.update(key, value, entry.revision)
        return True

    def _claims(self, node: str) -> Claims:
        return Claims(self._records, node, self._clock)
