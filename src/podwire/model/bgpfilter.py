"""BGPFilter: which routes pass to and from a peer, and what becomes of them on the way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.resource import Stored

if TYPE_CHECKING:
    from podwire.model.addressing import IPNetwork
    from podwire.model.bgp import ASNumber, Community
    from podwire.model.resource import Metadata

HIGHEST_PRIORITY = 2**31 - 2
MOST_OPERATIONS = 10


class Direction(StrEnum):
    """Into BIRD's table, or out of it to a peer."""

    IMPORT = "import"
    EXPORT = "export"


class MatchOperator(StrEnum):
    """How a route's destination compares with a rule's network."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    """Inside the network, or the network itself."""
    NOT_IN = "NotIn"


class BGPPeerType(StrEnum):
    """Whether the peer is in another AS."""

    EXTERNAL = "eBGP"
    INTERNAL = "iBGP"


class FilterAction(StrEnum):
    """What becomes of a route that a rule matches; no later rule is asked."""

    ACCEPT = "Accept"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatch:
    """A rule's network, and how a destination must compare with it."""

    cidr: IPNetwork
    operator: MatchOperator
    shortest: int | None = None
    """prefixLength.min; None: the network's own length."""
    longest: int | None = None
    """prefixLength.max; None: 32 or 128."""


@dataclass(frozen=True, slots=True)
class AddCommunity:
    """Add one community to those the route carries."""

    value: Community


@dataclass(frozen=True, slots=True)
class PrependASPath:
    """Make the AS path begin with these numbers, in this order."""

    numbers: tuple[ASNumber, ...]


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Set the priority: like a metric, the lowest wins (local preference is 2^31 - 1 minus it)."""

    value: int


Operation: TypeAlias = AddCommunity | PrependASPath | SetPriority


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """One rule; a route must meet every condition that is given."""

    action: FilterAction
    prefix: PrefixMatch | None = None
    from_peers: bool = False
    """source RemotePeers: only routes learnt from other peers."""
    interface: str | None = None
    """Glob of the device the route leads through."""
    peer_type: BGPPeerType | None = None
    community: Community | None = None
    as_path_prefix: tuple[ASNumber, ...] = ()
    priority: int | None = None
    operations: tuple[Operation, ...] = ()
    """Only with ACCEPT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BGPFilter(Stored):
    """Rules for both directions and families; the first that matches decides.

    A route that none matches goes on to the next filter of the peer, and after the last to what
    is exported and imported without any.
    """

    metadata: Metadata
    import4: tuple[FilterRule, ...] = ()
    export4: tuple[FilterRule, ...] = ()
    import6: tuple[FilterRule, ...] = ()
    export6: tuple[FilterRule, ...] = ()

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name
