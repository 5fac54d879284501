"""What `podwire ipam check` can find, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress, IPNetwork

REPAIR = "podwire ipam release --from-report FILE"
"""The fix of what can be put right without a guess, from a report."""


class Trouble(StrEnum):
    """Ways in which the records disagree, in the order in which they are told."""

    LEAKED = "leaked"
    OUTSIDE = "outsidePools"
    UNALLOCATED = "notAllocated"
    ANOTHERS = "allocatedToAnother"
    SHARED = "usedTwice"
    EMPTY_HANDLE = "handleWithoutAddress"
    MISSING_HANDLE = "missingHandle"
    UNCOUNTED = "addressNotCounted"
    BROKEN_BLOCK = "invalidBlock"
    STRAY_BLOCK = "blockOutsidePools"
    UNCLAIMED_BLOCK = "blockWithoutAffinity"
    EMPTY_CLAIM = "affinityWithoutBlock"
    WRONG_CLAIM = "affinityOfOthersBlock"
    TWO_OWNERS = "twoOwners"
    LOST_NODE = "missingNode"
    POOLS_OVERLAP = "poolsOverlap"
    BLOCKS_OVERLAP = "blocksOverlap"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One disagreement."""

    trouble: Trouble
    subject: str
    """Address, block, handle, node, pool or key."""
    sentence: str
    fix: str
    address: IPAddress | None = None
    block: IPNetwork | None = None
    handle: str | None = None
    node: str | None = None
    sequence: int | None = None
    """Of the allocation, or the block: another one means that it was written since."""
    owner: str | None = None
    allocated: str | None = None
    """When, as the allocation has it."""

    @property
    def identity(self) -> tuple[str, str, str | None, str | None, int | None]:
        """What must be the same for it to be the same problem."""
        return (self.trouble.value, self.subject, self.handle, self.node, self.sequence)

    @property
    def repairable(self) -> bool:
        """Whether a release from a report puts it right."""
        return self.fix == REPAIR


@dataclass(frozen=True, slots=True)
class User:
    """Who uses an address."""

    title: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, in the order of the checks, and how much was looked at."""

    problems: tuple[Problem, ...]
    blocks: int
    allocations: int
    endpoints: int
    by_node: Mapping[str, int]
    """Addresses allocated to each node."""
    users: Mapping[IPAddress, tuple[User, ...]]
    """Every address that is allocated or used, with those who use it."""
    cluster: str | None
    """GUID of the cluster."""
