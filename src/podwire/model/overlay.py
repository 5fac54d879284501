"""Neighbours and forwarding entries: whose MAC, and behind which node.

Source: include/uapi/linux/neighbour.h; RFC 7348 for VXLAN.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress

NUD_INCOMPLETE = 0x01
NUD_REACHABLE = 0x02
NUD_STALE = 0x04
NUD_DELAY = 0x08
NUD_PROBE = 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80

VXLAN_VNI = 4096
VXLAN_PORT = 4789
IPIP_OVERHEAD = 20
"""Bytes of the outer IPv4 header (RFC 2003)."""
VXLAN_OVERHEAD = 50
"""Bytes of outer IPv4, UDP, VXLAN and inner Ethernet headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One entry of an ARP or NDP table."""

    device: int
    address: IPAddress
    mac: str | None = None
    state: int = NUD_PERMANENT
    """NUD_*; a permanent entry is never asked for on the wire."""
    proxy: bool = False
    """NTF_PROXY: this host answers for the address on that device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FDBEntry:
    """One entry of a bridge's or vxlan device's forwarding table."""

    device: int
    mac: str
    destination: IPAddress | None = None
    """For vxlan: the outer address of the node behind which the MAC lives."""
    state: int = NUD_PERMANENT
    own: bool = False
    """NTF_SELF: the entry belongs to the device itself, not to its bridge."""
    master: int | None = None
    vni: int | None = None
    port: int | None = None
    vlan: int | None = None
    sticky: bool = False
    """NTF_STICKY: it stays when the MAC is heard at another port."""


def vtep_mac(node: str) -> str:
    """MAC of a node's vxlan device: 0x66 and the first five bytes of SHA-1(node name), as Calico's.

    >>> vtep_mac("node-1")
    '66:b3:68:28:39:8e'
    """
    digest = hashlib.sha1(node.encode(), usedforsecurity=False).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x66" + digest[:5])
