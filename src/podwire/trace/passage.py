"""Passage: a packet at one hook of one namespace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.flow import Packet

BROADCAST = "ff:ff:ff:ff:ff:ff"
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1
"""Priorities are 32-bit numbers."""


class Layer(StrEnum):
    """Which hooks of the kernel are meant; each layer has its own rules."""

    IP = "ip"
    BRIDGE = "bridge"
    LINK = "netdev"
    """Beside one link: all that it takes in (ingress) or sends (egress)."""
    ARP = "arp"


class PacketType:
    """Whom a frame is for, as the link sees it that took it (skb->pkt_type)."""

    HOST, BROADCAST, MULTICAST, OTHER = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The Ethernet header around a packet."""

    source: str | None
    destination: str

    @property
    def is_group(self) -> bool:
        """For several: broadcast, multicast."""
        return bool(int(self.destination[:2], 16) & 1)

    def kind_for(self, *own: str | None) -> int:
        """Its packet type for a link with one of these MACs (eth_type_trans)."""
        if self.is_group:
            whole = self.destination == BROADCAST
            return PacketType.BROADCAST if whole else PacketType.MULTICAST
        return PacketType.HOST if self.destination in own else PacketType.OTHER


NO_FRAME = Frame(source="00:00:00:00:00:00", destination="00:00:00:00:00:00")
"""What the loopback puts before its packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Where in the stack the packet is."""

    hook: str
    """prerouting, input, forward, output, postrouting; ingress, egress."""
    packet: Packet
    layer: Layer = Layer.IP
    iif: str | None = None
    oif: str | None = None
    next_hop: IPAddress | None = None
    """The gateway of the route it follows."""
    local: bool = False
    """A program of this namespace made it."""
    frame: Frame | None = None
    """None: not asked for (above IP), or the link has no such header."""
    kind: int = PacketType.HOST
    """Its packet type there."""
    bridge: str | None = None
    """The bridge it crosses, at hooks of bridges."""
    lowest: int = LOWEST
    highest: int = HIGHEST
    """Only chains of these priorities are run: other code of the kernel sits between."""
