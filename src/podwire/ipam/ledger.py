"""Writes block and handle of an allocation or a release so that a crash between them is harmless.

With `Store.can_batch` everything is one batch. Without it the order is fixed:

- to allocate: raise the handle's count, write the block, write what else belongs to the request;
- to release: the reverse.

So a handle may count too many after a crash, but an allocation never lacks its handle, and
releasing by handle finds every address.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.boundary import Verb, Write
from podwire.errors import Stale
from podwire.ipam.allocation import free, touch
from podwire.ipam.records import Record, writing
from podwire.model.block import Block, Handle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.ipam.records import Records
    from podwire.model.addressing import IPNetwork

HANDLE_TRIES = 50
"""Compare-and-swap tries for one handle: its writers are few, mostly one."""


class AlsoRefused(Exception):
    """A write that the caller added was refused; `cause` says why. Never leaves the package."""

    def __init__(self, cause: Stale) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Edit:
    """One block as it was read and as it shall be (None: deleted)."""

    old: Record[Block]
    new: Block | None


class Ledger:
    """Writes allocations and releases."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._store = records.store

    @property
    def can_batch(self) -> bool:
        """Whether everything of one call is written at once."""
        return self._store.can_batch

    def enter(
        self, handle_id: str, handle: Record[Handle] | None, edit: Edit, also: Sequence[Write]
    ) -> Record[Block]:
        """Write one more allocation of the handle, which was read as `handle` (None: absent).

        Raises:
            Conflict, AlreadyExists: block or handle moved; nothing of this call stays.
            AlsoRefused: one of `also` was refused; nothing of this call stays but those of `also`
                that came before it where the store has no batch.
        """
        assert edit.new is not None
        cidr = edit.new.cidr
        if self._store.can_batch:
            raised = raise_count(handle_id, handle, cidr)
            writes = [writing(handle, raised), writing(edit.old, edit.new), *also]
            try:
                entries = self._store.batch(writes)
            except Stale as refused:
                self._blame(refused, handle_id, handle, (edit,), also)
                raise
            written = entries[1]
            assert written is not None
            return Record(replace(edit.new, wire=written.value), written.revision)
        counting = self._raise(handle_id, handle, cidr)
        try:
            block = self._records.update(edit.old, edit.new)
        except Stale:
            self._lower(counting, {cidr: 1})
            raise
        try:
            self._write_each(also)
        except AlsoRefused:
            self._withdraw(edit.old.value, edit.new, counting)
            raise
        return block

    def strike(
        self, handle: Record[Handle], edits: Sequence[Edit], also: Sequence[Write]
    ) -> tuple[Record[Block], ...]:
        """Delete the handle with all its allocations, which `edits` take out of their blocks.

        `also` goes into the same batch; a store without one must have been given it before.

        Raises:
            Conflict: block or handle moved; begin again.
            AlsoRefused: one of `also` was refused; no block was changed.
        """
        if not self._store.can_batch:
            assert not also, "carried out before, once"
            kept = [self.write(edit) for edit in map(fenced, edits)]
            self._records.delete(handle)
            return tuple(block for block in kept if block is not None)
        edits = [edit for edit in edits if edit.new is not edit.old.value]
        blocks = [writing(edit.old, edit.new) for edit in edits]
        try:
            entries = self._store.batch([*also, *blocks, writing(handle, None)])[len(also) :]
        except Stale as refused:
            self._blame(refused, handle.value.id, handle, edits, also)
            raise
        return tuple(
            Record(replace(edit.new, wire=entry.value), entry.revision)
            for edit, entry in zip(edits, entries, strict=False)
            if edit.new is not None and entry is not None
        )

    def cross_out(
        self, edit: Edit, handles: Sequence[tuple[Record[Handle], int]]
    ) -> Record[Block] | None:
        """Write a block from which allocations went, and take them off their handles' counts.

        The handles were read before; each comes with the number of its allocations that went.

        Raises:
            Conflict: block or handle moved; begin again.
        """
        counts = [(handle, {edit.old.value.cidr: number}) for handle, number in handles]
        if not self._store.can_batch:
            block = self.write(edit)
            for handle, count in counts:
                self._lower(handle, count)
            return block
        lowered = [writing(handle, lower_count(handle.value, count)) for handle, count in counts]
        entry = self._store.batch([writing(edit.old, edit.new), *lowered])[0]
        if edit.new is None or entry is None:
            return None
        return Record(replace(edit.new, wire=entry.value), entry.revision)

    def carry_out(self, also: Sequence[Write]) -> None:
        """Only what the caller added: there is nothing of ours to write with it.

        Raises:
            AlsoRefused: one of them was refused.
        """
        if not also:
            return
        if not self._store.can_batch:
            self._write_each(also)
            return
        try:
            self._store.batch(also)
        except Stale as refused:
            raise AlsoRefused(refused) from refused

    def write(self, edit: Edit) -> Record[Block] | None:
        """Write one block, or delete it.

        Raises:
            Conflict: it was changed or deleted since it was read.
        """
        if edit.new is not None:
            return self._records.update(edit.old, edit.new)
        self._records.delete(edit.old)
        return None

    def _withdraw(self, before: Block, after: Block, counting: Record[Handle]) -> None:
        """Take back an allocation nobody learnt of; under contention it is left to its handle."""
        ours = {
            (given.handle, given.sequence)
            for ordinal, given in after.allocations.items()
            if ordinal not in before.allocations
        }
        for _ in range(HANDLE_TRIES):
            block = self._records.block(after.cidr)
            found = {} if block is None else block.value.allocations
            given = [o for o, taken in found.items() if (taken.handle, taken.sequence) in ours]
            if block is None or not given:
                return
            with suppress(Stale):
                self._records.update(block, free(block.value, given))
                self._lower(counting, {after.cidr: len(given)})
                return

    def _lower(self, handle: Record[Handle], counts: Mapping[IPNetwork, int]) -> None:
        """Take addresses off the counts of the handle as it was read, if it still is so.

        When it moved, somebody else may be in the middle of an allocation with it: it is left to
        count too many, which a release by handle puts right.
        """
        lowered = lower_count(handle.value, counts)
        with suppress(Stale):
            if lowered is None:
                self._records.delete(handle)
            else:
                self._records.update(handle, lowered)

    def _raise(
        self, handle_id: str, handle: Record[Handle] | None, cidr: IPNetwork
    ) -> Record[Handle]:
        """Without a batch: make the handle count one more, whatever it counts by now."""
        for remaining in reversed(range(HANDLE_TRIES)):
            raised = raise_count(handle_id, handle, cidr)
            try:
                if handle is None:
                    return self._records.create(raised)
                return self._records.update(handle, raised)
            except Stale:
                if not remaining:
                    raise
                handle = self._records.handle(handle_id)
        raise AssertionError("the last try returns or raises")

    def _write_each(self, also: Sequence[Write]) -> None:
        for write in also:
            try:
                match write.verb:
                    case Verb.CREATE:
                        assert write.value is not None
                        self._store.create(write.key, write.value)
                    case Verb.UPDATE:
                        assert write.value is not None
                        assert write.revision is not None
                        self._store.update(write.key, write.value, write.revision)
                    case Verb.DELETE:
                        self._store.delete(write.key, write.revision)
            except Stale as refused:
                raise AlsoRefused(refused) from refused

    def _blame(
        self,
        refused: Stale,
        handle_id: str,
        handle: Record[Handle] | None,
        edits: Sequence[Edit],
        also: Sequence[Write],
    ) -> None:
        """Raise AlsoRefused when a batch failed though block and handle are as they were read."""
        if not also or _moved(handle, self._records.handle(handle_id)):
            return
        for edit in edits:
            if _moved(edit.old, self._records.block(edit.old.value.cidr)):
                return
        raise AlsoRefused(refused) from refused


def raise_count(handle_id: str, handle: Record[Handle] | None, cidr: IPNetwork) -> Handle:
    """The handle with one more address in the block."""
    if handle is None:
        return Handle(id=handle_id, blocks={cidr: 1})
    blocks = handle.value.blocks
    return replace(handle.value, blocks={**blocks, cidr: blocks.get(cidr, 0) + 1})


def lower_count(handle: Handle, counts: Mapping[IPNetwork, int]) -> Handle | None:
    """The handle with fewer addresses; None when none is left."""
    left = {cidr: count - counts.get(cidr, 0) for cidr, count in handle.blocks.items()}
    left = {cidr: count for cidr, count in left.items() if count > 0}
    return replace(handle, blocks=left) if left else None


def fenced(edit: Edit) -> Edit:
    """An edit that writes even when it changes nothing.

    Without a batch, somebody may have raised the handle's count and be about to write the block.
    Moving the block's revision makes that write fail; only then may the handle go.
    """
    if edit.new is not None and edit.new.sequence == edit.old.value.sequence:
        return Edit(edit.old, touch(edit.new))
    return edit


def _moved(read: Record[Handle] | Record[Block] | None, now: object) -> bool:
    if read is None or not isinstance(now, Record):
        return not (read is None and now is None)
    return read.revision != now.revision
