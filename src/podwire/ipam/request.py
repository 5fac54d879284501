"""What is asked of IPAM, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.model.pool import Use
from podwire.model.resource import no_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podwire.boundary import Write
    from podwire.model.addressing import IPAddress, IPNetwork


def nothing_avoided(_: IPAddress) -> bool:
    """No address is kept back."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRequest:
    """One address wanted."""

    handle: str
    """The name by which the owner's addresses are released."""
    attributes: Mapping[str, str] = field(default_factory=no_labels)
    """Of the owner: node, namespace, pod, timestamp; for a tunnel node and type."""
    address: IPAddress | None = None
    """This very address; node selectors, reservations and the block limit are then not asked."""
    pools: Sequence[str] | None = None
    """Names or CIDRs, tried in this order; None lets the pools' selectors decide."""
    use: Use = Use.WORKLOAD
    also: Callable[[IPAddress], Sequence[Write]] | None = None
    """Further writes that belong to the allocation, such as the endpoint. It is called again for
    every try, and must not call IPAM."""
    avoid: Callable[[IPAddress], bool] = nothing_avoided
    """True for an address the kernel still carries; it is passed over."""
    reuse: bool = False
    """Give the address the handle already has, if it has one: for owners, such as a tunnel device,
    that ask once and again after a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """An address now allocated."""

    address: IPAddress
    block: IPNetwork
    sequence: int
    """Of the allocation; a release that names it can never free a later one."""
    claimed: bool = False
    """The block was claimed for it just now: other nodes cannot know the way yet."""
    borrowed: bool = False
    """Another node holds the block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One address to give back, if it still is what the caller thinks."""

    address: IPAddress
    handle: str | None = None
    """None: whoever has it."""
    sequence: int | None = None
    """None: whichever allocation it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What became of addresses to give back."""

    released: tuple[IPAddress, ...] = ()
    absent: tuple[IPAddress, ...] = ()
    """Not allocated, or released before."""
    foreign: tuple[IPAddress, ...] = ()
    """Allocated to another handle or under another sequence number: left alone."""
