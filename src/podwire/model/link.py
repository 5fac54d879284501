"""Links (network devices) and their addresses, as rtnetlink tells them.

Source: include/uapi/linux/if_link.h, if_addr.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPInterface

HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""MAC of every host-side pod interface (Calico's value, so pods survive a change of agent)."""
INTERFACE_PREFIX = "cali"
IPIP_DEVICE = "tunl0"
"""The ipip module's fallback device: it exists in every namespace and cannot be deleted."""
VXLAN_DEVICE = "vxlan.calico"
SMALLEST_MTU = 576
"""Every host takes datagrams of that size (RFC 791); less is a slip of the pen."""
LARGEST_MTU = 65535
"""Of an IPv4 packet, whatever a loopback device says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VXLANSettings:
    """What a vxlan device is made of; the fields that cannot be changed later."""

    vni: int
    port: int
    local: IPAddress | None = None
    parent: int | None = None
    """Index of the underlay device."""
    learning: bool = True


PORT_FORWARDING = 3
"""State of a bridge's port that takes and gives frames (BR_STATE_FORWARDING)."""
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSettings:
    """How a bridge treats one of its ports (IFLA_BRPORT_*)."""

    state: int = PORT_FORWARDING
    """A place in PORT_STATES."""
    hairpin: bool = False
    """A frame may leave by the port it came in by."""
    learning: bool = True
    flood: bool = True
    """Frames for a MAC nobody knows leave by it."""
    broadcast: bool = True
    multicast: bool = True
    isolated: bool = False
    """It exchanges no frames with other isolated ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """What a bridge of its own does with frames that carry IP (IFLA_BR_NF_CALL_*)."""

    call_iptables: bool = False
    call_ip6tables: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network device of one namespace."""

    index: int
    name: str
    mtu: int
    up: bool
    """Administratively up (IFF_UP)."""
    carrier: bool
    """Operationally able to carry packets (IFF_LOWER_UP)."""
    kind: str | None = None
    """veth, bridge, vxlan, ipip …; None for loopback and physical devices."""
    mac: str | None = None
    """Lower case with colons; None where the device has none (ipip)."""
    alias: str | None = None
    master: int | None = None
    """Index of the bridge or bond this device is a port of."""
    peer_index: int | None = None
    """IFLA_LINK: for veth the index of the other end, in namespace `peer_netnsid`."""
    peer_netnsid: int | None = None
    """IFLA_LINK_NETNSID; None: same namespace."""
    loopback: bool = False
    vxlan: VXLANSettings | None = None
    bridge: BridgeSettings | None = None
    port: PortSettings | None = None
    """Of a port of a bridge."""
    operstate: str = "unknown"
    """RFC 2863 state: up, down, lowerlayerdown, unknown, dormant …"""
    not_modelled: frozenset[str] = frozenset()
    """Names of settings seen that change a packet's way and that we do not model (xdp …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address of one device."""

    device: int
    """Index of the link."""
    interface: IPInterface
    """The address with its prefix length."""
    scope: int = 0
    """RT_SCOPE_*: 0 global, 253 link, 254 host."""
    tentative: bool = field(default=False, compare=False)
    """IPv6 duplicate address detection is not over or has failed (a state, no part of what was
    asked for)."""
