"""Block, affinity, handle and IPAM configuration: the records of address allocation.

Formats: Calico's v2 IPAM records, see docs/reference/datastore.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.model.resource import Stored, no_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPNetwork


class AffinityState(StrEnum):
    """How far a node's claim on a block has come; only a confirmed block is routed."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity(Stored):
    """A node's claim on a block."""

    node: str
    block: IPNetwork
    state: AffinityState = AffinityState.CONFIRMED
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One ordinal in use: who has it and since which sequence number."""

    handle: str | None
    attributes: Mapping[str, str] = field(default_factory=no_labels)
    """Owner: node, namespace, pod, timestamp; for tunnels node and type."""
    sequence: int = 0
    released_at: str | None = None
    """RFC 3339 UTC; set while the address rests (cooldown)."""
    alternate: Mapping[str, str] | None = None
    """alternateOwnerAttrs: kept, never made by us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Stored):
    """An aligned slice of a pool held by one node: unit of routing and of compare-and-swap."""

    cidr: IPNetwork
    node: str | None
    """Node of the affinity; None when no host holds the block."""
    allocations: Mapping[int, Allocation] = field(default_factory=lambda: MappingProxyType({}))
    """By ordinal."""
    unallocated: tuple[int, ...] = ()
    """Free ordinals, first in first out: a released address is reused as late as possible."""
    sequence: int = 0
    """Starts at the creation time in nanoseconds and grows by one on every write."""
    claimed: str | None = None
    """affinity_claim_time, RFC 3339 UTC."""
    foreign_affinity: str | None = None
    """The affinity as written, when it is not a host's (`virtual:load-balancer`)."""
    deleted: bool = False

    @property
    def size(self) -> int:
        """Number of addresses."""
        return self.cidr.num_addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle(Stored):
    """A name by which all addresses of one owner are released.

    A handle may count too many after a crash, but an allocation never lacks its handle: the count
    is raised before the block is written and lowered after.
    """

    id: str
    blocks: Mapping[IPNetwork, int]
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMConfig(Stored):
    """Cluster-wide choices of address allocation."""

    strict_affinity: bool = True
    """Borrowing from other nodes' blocks is forbidden; new datastores of ours start so."""
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    """0: the built-in limit of 20 blocks per family."""
    cooldown_s: int = 0
    """How long a released address rests before it is handed out again."""
