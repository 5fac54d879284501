"""BGPConfiguration and BGPPeer: who speaks BGP with whom, and how.

Fields and defaults are Calico's. AS numbers are 32 bits wide (RFC 6793).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.resource import Stored

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.resource import Metadata

ASNumber: TypeAlias = int
"""1 … 2^32 - 1; 0 is reserved (RFC 7607)."""

DEFAULT_AS_NUMBER = 64512
"""The first of the private ones (RFC 6996)."""
BGP_PORT = 179
DEFAULT_RESTART_S = 120
"""How long a peer that restarts may stay away before its routes go (RFC 4724)."""


class LogSeverity(StrEnum):
    """How much BIRD is asked to log."""

    NONE = "None"
    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"
    FATAL = "Fatal"


class BindMode(StrEnum):
    """Which addresses BIRD listens on."""

    NONE = "None"
    """All of them."""
    NODE_IP = "NodeIP"


class NextHopMode(StrEnum):
    """Which next hop a route gets on its way to a peer."""

    AUTO = "Auto"
    """As BGP has it: ourselves for what is ours and for another AS, else unchanged."""
    SELF = "Self"
    KEEP = "Keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """One value of a secret: the file `NAME/KEY` below the agent's `secretsDir`."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


@dataclass(frozen=True, slots=True)
class Community:
    """A community: two numbers of 16 bits (RFC 1997), or three of 32 (RFC 8092)."""

    numbers: tuple[int, ...]

    @property
    def large(self) -> bool:
        """Whether it has three parts."""
        return len(self.numbers) == 3

    def __str__(self) -> str:
        return ":".join(map(str, self.numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCommunity:
    """A community with a name to call it by."""

    name: str
    value: Community


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixAdvertisement:
    """What routes inside a network are given on their way out."""

    cidr: IPNetwork
    communities: tuple[str, ...] = ()
    """Names of `BGPConfiguration.communities`, or values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BGPConfiguration(Stored):
    """The cluster's choices (named `default`), or one node's exceptions (`node.<name>`).

    None means that this object does not say; `desired.bgpsettings` lays one over the other.
    """

    metadata: Metadata
    log_severity: LogSeverity | None = None
    mesh: bool | None = None
    """nodeToNodeMeshEnabled."""
    as_number: ASNumber | None = None
    listen_port: int | None = None
    bind_mode: BindMode | None = None
    communities: tuple[NamedCommunity, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    mesh_password: SecretKey | None = None
    mesh_restart_s: int | None = None
    """nodeMeshMaxRestartTime, seconds."""
    ignored_interfaces: tuple[str, ...] = ()
    """Globs of devices whose subnets BIRD does not use."""
    hold_s: int | None = None
    """Annotation `podwire.io/hold-time`, seconds: silence after which a peer counts as gone."""
    keepalive_s: int | None = None
    """Annotation `podwire.io/keepalive-time`, seconds."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name


@dataclass(frozen=True, slots=True, kw_only=True)
class BGPPeer(Stored):
    """A peering that somebody wants: of one node, of those a selector matches, or of all."""

    metadata: Metadata
    node: str | None = None
    node_selector: str | None = None
    """Neither of the two: every node."""
    address: IPAddress | None = None
    """peerIP without its port."""
    port: int | None = None
    as_number: ASNumber | None = None
    peer_selector: str | None = None
    """Instead of an address: the nodes this matches."""
    local_workload_selector: str | None = None
    """Peering with pods; read and kept, not served."""
    local_as_number: ASNumber | None = None
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    password: SecretKey | None = None
    uses_node_ip: bool = True
    """sourceAddress UseNodeIP; False: whatever the kernel chooses."""
    restart_s: int | None = None
    """maxRestartTime, seconds."""
    keepalive_s: int | None = None
    """keepaliveTime, seconds; the hold time is three times that."""
    hold_s: int | None = None
    """Annotation `podwire.io/hold-time`, seconds."""
    allowed_local_as: int | None = None
    """numAllowedLocalASNumbers: how often our own AS may stand in a path we accept."""
    ttl_security: int | None = None
    """Hops a peer may be away; packets from further are dropped (RFC 5082)."""
    reachable_by: IPAddress | None = None
    """The gateway that leads to the peer."""
    filters: tuple[str, ...] = ()
    """Names of BGPFilters, in this order."""
    reverse: bool = True
    """reversePeering Auto: where the peer is a node of ours, it peers back by itself."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name

    @property
    def peer_ip(self) -> str | None:
        """Address and port as Calico writes them; None where nodes are meant."""
        if self.address is None or self.port is None:
            return None if self.address is None else str(self.address)
        host = str(self.address) if self.address.version == 4 else f"[{self.address}]"
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDefaults:
    """Timers of a session where nobody says otherwise."""

    hold_s: int = 9
    keepalive_s: int = 3
    restart_s: int = DEFAULT_RESTART_S
    retry_s: int = field(default=5)
    """How long between two attempts to connect."""


DEFAULTS = PeerDefaults()
"""Nine seconds: a silent node's routes go in time, and a BIRD that is killed comes back before."""
