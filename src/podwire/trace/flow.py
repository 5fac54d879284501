"""Flow: what is sent; Packet: its headers at one place on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress

DEFAULT_TTL = 64
EPHEMERAL_PORT = 40000
"""Source port of a probe whose caller named none."""


class Protocol(StrEnum):
    """The protocols a packet on the way can carry."""

    ICMP = "icmp"
    TCP = "tcp"
    UDP = "udp"
    IPIP = "ipip"


PROTOCOL_NUMBERS = {Protocol.ICMP: 1, Protocol.IPIP: 4, Protocol.TCP: 6, Protocol.UDP: 17}
"""IANA protocol numbers."""

PROBE_SIZES = {Protocol.ICMP: 84, Protocol.TCP: 60, Protocol.UDP: 60}
"""Bytes of the IP packet when the caller names none; 84 is what ping sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What the caller wants to send."""

    protocol: Protocol = Protocol.ICMP
    port: int | None = None
    """Destination port of TCP and UDP."""
    source_port: int = EPHEMERAL_PORT
    size: int | None = None
    """Bytes of the whole IP packet, headers included; None: as PROBE_SIZES."""
    df: bool = False
    """The *don't fragment* bit."""

    @property
    def length(self) -> int:
        """Bytes of the IP packet."""
        return self.size if self.size is not None else PROBE_SIZES[self.protocol]

    @property
    def title(self) -> str:
        """`icmp`, `tcp/80`."""
        return str(self.protocol) if self.port is None else f"{self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """IP headers at one place; a tunnel's packet carries the inner one."""

    source: IPAddress
    destination: IPAddress
    protocol: Protocol
    source_port: int | None = None
    destination_port: int | None = None
    ttl: int = DEFAULT_TTL
    length: int = 84
    df: bool = False
    reply: bool = False
    """The answer to the flow's packet."""
    tracked: frozenset[int] = frozenset()
    """Of an answer: the namespaces its request came through, whose conntrack knows it by then."""
    inner: Packet | None = None
    vni: int | None = None
    inner_mac: str | None = None
    """VXLAN: destination MAC of the inner frame."""

    def answer(self, length: int) -> Packet:
        """The reply that the receiver of this packet would send."""
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
            length=length,
            reply=True,
        )

    @property
    def layers(self) -> int:
        """Number of IP headers, 1 outside any tunnel."""
        return 1 if self.inner is None else 1 + self.inner.layers
