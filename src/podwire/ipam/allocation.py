"""Which ordinals of one block are taken, given back and handed out again. Pure.

A block is changed only by making a new value; each value that is written carries a sequence number
one higher than the one read. Rules kept here (docs/reference/datastore.md):

- every ordinal is either allocated or stands once in `unallocated`;
- allocation takes the first free ordinal, release appends at the end: an address is reused as late
  as possible; a skipped ordinal keeps its place;
- a released address rests first (cooldown): it stays allocated, with `released_at` set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.addressing import IPAddress, address_at
from podwire.model.block import Allocation, Block

if TYPE_CHECKING:
    from podwire.model.addressing import IPNetwork

Skip: TypeAlias = Callable[[IPAddress], bool]
"""True for an address that must not be handed out now."""


def new_block(cidr: IPNetwork, node: str, *, now: datetime, now_ns: int) -> Block:
    """An empty block held by `node`.

    The sequence starts at the time of creation, so that a block that was deleted and made again
    never repeats a number, and an old release never fits a new allocation.
    """
    return Block(
        cidr=cidr,
        node=node,
        unallocated=tuple(range(cidr.num_addresses)),
        sequence=now_ns,
        claimed=timestamp(now),
    )


def first_free(block: Block, skip: Skip) -> int | None:
    """The ordinal to hand out next; None when all free ones are skipped."""
    for ordinal in block.unallocated:
        if not skip(address_at(block.cidr, ordinal)):
            return ordinal
    return None


def allocate(block: Block, ordinal: int, handle: str, attributes: Mapping[str, str]) -> Block:
    """The block with `ordinal`, which must be free, given to `handle`."""
    taken = Allocation(handle=handle, attributes=dict(attributes), sequence=block.sequence)
    return _written(
        block,
        allocations={**block.allocations, ordinal: taken},
        unallocated=tuple(free for free in block.unallocated if free != ordinal),
    )


def release(block: Block, ordinals: Iterable[int], *, now: datetime, cooldown_s: float) -> Block:
    """The block with these allocated ordinals resting; free at once when there is no cooldown."""
    stamp = timestamp(now)
    resting = {
        ordinal: replace(block.allocations[ordinal], released_at=stamp) for ordinal in ordinals
    }
    rested = _written(block, allocations={**block.allocations, **resting})
    return end_rest(rested, now=now, cooldown_s=cooldown_s)


def free(block: Block, ordinals: Iterable[int]) -> Block:
    """The block with these allocated ordinals free at once: nobody ever used their addresses."""
    gone = tuple(ordinals)
    return _written(
        block,
        allocations={o: kept for o, kept in block.allocations.items() if o not in gone},
        unallocated=(*block.unallocated, *gone),
    )


def end_rest(block: Block, *, now: datetime, cooldown_s: float) -> Block:
    """The block with every ordinal whose rest is over appended to the free ones, oldest first.

    Returns the very same object when nothing changes, so that nothing is written for it. The
    sequence stays: whoever writes the result has another reason to, or uses `touch`.
    """
    stale: list[tuple[datetime, int]] = []
    ahead: dict[int, Allocation] = {}
    for ordinal, allocation in block.allocations.items():
        if allocation.released_at is None:
            continue
        since = parse_timestamp(allocation.released_at) or now
        if since > now:
            # The clock was set back, or the releasing node's is fast: begin the rest anew rather
            # than lose the address until a date that may be years away.
            ahead[ordinal] = replace(allocation, released_at=timestamp(now))
            since = now
        if (now - since).total_seconds() >= cooldown_s:
            stale.append((since, ordinal))
    if not stale and not ahead:
        return block
    freed = [ordinal for _, ordinal in sorted(stale)]
    gone = frozenset(freed)
    return replace(
        block,
        allocations=_frozen(
            {
                ordinal: ahead.get(ordinal, allocation)
                for ordinal, allocation in block.allocations.items()
                if ordinal not in gone
            }
        ),
        unallocated=(*block.unallocated, *freed),
    )


def touch(block: Block) -> Block:
    """The same block with the next sequence number: a write that fences off older readers."""
    return _written(block)


def hold(block: Block, node: str | None, *, now: datetime) -> Block:
    """The block with its affinity given to `node`, or to nobody."""
    claimed = None if node is None else timestamp(now)
    return _written(replace(block, node=node, claimed=claimed))


def live(block: Block) -> Mapping[int, Allocation]:
    """The allocations in use; those that rest are left out."""
    return {
        ordinal: allocation
        for ordinal, allocation in block.allocations.items()
        if allocation.released_at is None
    }


def ordinals_of(block: Block, handle: str) -> tuple[int, ...]:
    """The ordinals in use by `handle`."""
    return tuple(sorted(o for o, allocation in live(block).items() if allocation.handle == handle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who says that an address is theirs to release; None leaves a point unchecked."""

    handle: str | None = None
    sequence: int | None = None

    def owns(self, allocation: Allocation) -> bool:
        """Whether the allocation in use is the one meant, not a later one of the same address."""
        return (
            allocation.released_at is None
            and (self.handle is None or self.handle == allocation.handle)
            and (self.sequence is None or self.sequence == allocation.sequence)
        )


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime | None:
    """Read RFC 3339; None when it is not."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _written(
    block: Block,
    *,
    allocations: Mapping[int, Allocation] | None = None,
    unallocated: tuple[int, ...] | None = None,
) -> Block:
    return replace(
        block,
        allocations=block.allocations if allocations is None else _frozen(allocations),
        unallocated=block.unallocated if unallocated is None else unallocated,
        sequence=block.sequence + 1,
    )


def _frozen(allocations: Mapping[int, Allocation]) -> Mapping[int, Allocation]:
    return MappingProxyType(dict(sorted(allocations.items())))
