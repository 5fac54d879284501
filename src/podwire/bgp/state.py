"""State: what one BIRD says of itself, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress, IPNetwork

ESTABLISHED = "Established"
STATES = ("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", ESTABLISHED, "Down")
"""BGP's own words for how far a session has come; BIRD's own is Down: it does not try."""


class BirdVersion(NamedTuple):
    """BIRD's version; compares as numbers do."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return ".".join(str(part) for part in self)


OLDEST = BirdVersion(2, 0, 12)
"""The first BIRD whose filters can set `onlink`, without which no route leads through tunl0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """`show status`."""

    version: BirdVersion
    router_id: str
    started: str = ""
    """BIRD's own clock: when it was started."""
    configured: str = ""
    """When it last took a configuration."""
    message: str = ""
    """What it is doing: running, or shutting down."""
    recovering: bool = False
    """Started again a moment ago: until its peers have told it everything, it writes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One address family of a protocol: how many routes it carries."""

    name: str
    state: str = ""
    table: str = ""
    imported: int = 0
    filtered: int = 0
    """Received, refused by the import filter, and kept to be shown."""
    exported: int = 0
    preferred: int = 0
    limit_hit: bool = False
    rejected_imports: int = 0
    """How many announcements the import filter has refused since the start, kept or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSession:
    """The BGP part of a protocol: who is at the other end and how far the two have come."""

    address: IPAddress
    port: int = 179
    as_number: int = 0
    local_as: int = 0
    state: str = ""
    """BGP's own word: Idle, Connect, Active, OpenSent, OpenConfirm, Established, Down."""
    last_error: str = ""
    source: IPAddress | None = None
    router_id: str = ""
    """The other side's; only while it is established."""
    hold_s: int | None = None
    keepalive_s: int | None = None
    flags: str = ""
    """In BIRD's words: internal or external, multihop, AS4, route-reflector."""
    graceful: bool = False
    """Whether the other side keeps our routes while we restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One line of `show protocols`, with its details."""

    name: str
    kind: str
    """Device, Direct, Kernel, Static, BGP, BFD …"""
    table: str
    state: str
    """down, start, up, stop or flush."""
    since: str
    info: str
    description: str = ""
    """What its configuration calls it."""
    channels: tuple[Channel, ...] = ()
    session: PeerSession | None = None

    @property
    def established(self) -> bool:
        """Whether this is a BGP session that carries routes."""
        return self.session is not None and self.session.state == ESTABLISHED


class Target(StrEnum):
    """Where a route of BIRD's table leads."""

    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBITED = "prohibited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Via:
    """One next hop."""

    device: str
    gateway: IPAddress | None = None
    onlink: bool = False


def _no_attributes() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RibRoute:
    """One route of BIRD's table."""

    network: IPNetwork
    target: Target
    protocol: str
    since: str = ""
    learnt_from: IPAddress | None = None
    """Who announced it, where BIRD says so."""
    best: bool = False
    refused: bool = False
    """The kernel did not take it."""
    resolvable: bool = True
    """False: no route leads to its next hop."""
    stale: bool = False
    """Kept from a session whose other side restarts."""
    preference: int = 0
    hops: tuple[Via, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=_no_attributes)
    """By BIRD's names: BGP.next_hop, BGP.local_pref, BGP.community, Kernel.source …"""
