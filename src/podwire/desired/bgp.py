"""BirdConfig: what BIRD of one node should do, as a value; `desired.bgptext` renders it.

Nothing in it depends on which blocks this node holds: BIRD learns them from the agent's blackhole
routes (protocol 80), so a new block costs no new configuration (docs/adr/0012-bgp-by-bird.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.model.bgp import BGP_PORT, DEFAULTS, LogSeverity, NextHopMode
from podwire.model.bgpfilter import BGPPeerType

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.bgp import ASNumber, Community, SecretKey
    from podwire.model.bgpfilter import BGPFilter
    from podwire.model.pool import Mode

KERNEL_METRIC = 32
"""Of every route BIRD writes. Not 0: BIRD replaces what stands under its key without a look at the
protocol, so the key must be one that nobody else uses; and beside it the agent's own route
(metric 0) may stand, and counts, while a cluster is switched over."""
LARGEST_PREFERENCE = 2**31 - 1
NORMAL_PRIORITY = 1024
"""Of a route that nobody gave one; the local preference is LARGEST_PREFERENCE minus it."""
RECOVERY_S = 20
"""After a start: how long BIRD waits for all peers before it writes what it has (RFC 4724, 4.1)."""


class PeerType(StrEnum):
    """Why there is a session, in calicoctl's words."""

    MESH = "node-to-node mesh"
    NODE = "node specific"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True, kw_only=True)
class BirdPeer:
    """One session of this node."""

    protocol: str
    """BIRD's name for it: from address and port alone, so that a session outlives its reasons."""
    type: PeerType
    name: str
    """The BGPPeer it follows from; of a session of the mesh the other node."""
    node: str | None = None
    """The other node, where the peer is one of ours."""
    cluster: str | None = None
    """Its cluster id: when a node becomes a route reflector, it begins its sessions anew."""
    address: IPAddress
    port: int = BGP_PORT
    as_number: ASNumber
    local_as: ASNumber
    source: IPAddress | None = None
    """The address we speak from; None: the kernel's choice."""
    passive: bool = False
    """Wait for the peer to connect; of two nodes one does, so that two calls never collide."""
    hold_s: int = DEFAULTS.hold_s
    keepalive_s: int = DEFAULTS.keepalive_s
    restart_s: int = DEFAULTS.restart_s
    client: bool = False
    """We are a route reflector and this peer is its client."""
    next_hop_mode: NextHopMode = NextHopMode.AUTO
    password: SecretKey | None = None
    allowed_local_as: int | None = None
    ttl_security: int | None = None
    reachable_by: IPAddress | None = None
    filters: tuple[str, ...] = ()
    """Names of filters of the configuration, in this order."""

    @property
    def bgp_type(self) -> BGPPeerType:
        """Whether the peer is in another AS."""
        inside = self.as_number == self.local_as
        return BGPPeerType.INTERNAL if inside else BGPPeerType.EXTERNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class BirdPool:
    """What BIRD must know of an IPPool."""

    cidr: IPNetwork
    device: str | None = None
    """The tunnel its routes lead through; None: the underlay."""
    mode: Mode
    """When they do."""
    by_agent: bool = False
    """VXLAN: the agent writes these routes, BIRD only announces them."""
    exported: bool = True
    """False: disableBGPExport."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """Communities for routes inside a network, by value."""

    cidr: IPNetwork
    communities: tuple[Community, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BirdConfig:
    """Everything BIRD of one node is told; equal values render to equal text."""

    node: str
    router_id: IPv4Address
    address: IPv4Interface
    """The node's own, with its subnet: CrossSubnet means outside of it."""
    as_number: ASNumber
    listen_port: int = BGP_PORT
    strict_bind: bool = False
    """Listen on the node's address only."""
    log_severity: LogSeverity = LogSeverity.INFO
    cluster_id: IPv4Address | None = None
    """Set on a route reflector."""
    ignored_interfaces: tuple[str, ...] = ()
    pools: tuple[BirdPool, ...] = ()
    """In the order of their CIDRs."""
    addresses: tuple[IPNetwork, ...] = ()
    """The /32s this node announces one by one besides its own blocks: borrowed from other nodes'
    blocks, and blocks of one address."""
    advertisements: tuple[Advertisement, ...] = ()
    filters: tuple[BGPFilter, ...] = ()
    """Those that peers name and that exist, by name."""
    peers: tuple[BirdPeer, ...] = ()
    """In the order of protocol names."""
    narrow: tuple[tuple[IPAddress, int], ...] = ()
    """Nodes whose underlay has a smaller MTU than ours, and that MTU: no tunnel's says it."""
    recovery_s: int = RECOVERY_S
    unserved: tuple[str, ...] = ()
    """What the resources ask for that is left out, a sentence each; no part of the text."""
