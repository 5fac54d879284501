"""Flow: what is sent; Packet: its headers at one place on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.trace.connection import Ends

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.connection import Track

DEFAULT_TTL = 64
EPHEMERAL_PORT = 40000
"""Source port of a probe whose caller named none."""


class Protocol(StrEnum):
    """The protocols a packet on the way can carry."""

    ICMP = "icmp"
    TCP = "tcp"
    UDP = "udp"
    IPIP = "ipip"
    ARP = "arp"
    """A question for a MAC, or its answer; such a packet has addresses and no IP header."""


PROTOCOL_NUMBERS = {Protocol.ICMP: 1, Protocol.IPIP: 4, Protocol.TCP: 6, Protocol.UDP: 17}
"""IANA protocol numbers."""
ARP_BYTES = 28
NEIGHBOUR_BYTES = 72
"""A question of neighbour discovery in IPv6, or its answer."""
ICMP6 = 58
"""ICMP is another protocol in IPv6; `Protocol.ICMP` means that of the packet's family."""

ROUTABLE = frozenset({1, 6, 17, ICMP6})
"""Protocols that RTM_GETROUTE takes (rtm_getroute_parse_ip_proto)."""
QUOTE_OVERHEAD, MAX_QUOTE = 28, 576
"""Headers before what an ICMP error quotes, and the most it is long (RFC 1812, 4.3.2.3)."""
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
class Complaint:
    """What an ICMP error says."""

    type: int
    code: int
    about: Ends
    """Of the packet it quotes."""

    @property
    def title(self) -> str:
        """`3/1`."""
        return f"{self.type}/{self.code}"


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
    mark: int = 0
    """skb->mark; it ends where the packet leaves a namespace."""
    track: Track | None = None
    """Its connection in the namespace it is in."""
    untracked: bool = False
    """`notrack` was said here."""
    tracks: tuple[Track, ...] = ()
    """Connections that this flow has made, in all namespaces it came through."""
    inner: Packet | None = None
    vni: int | None = None
    inner_mac: str | None = None
    """VXLAN: destination MAC of the inner frame."""
    discovery: bool = False
    """ICMP in IPv6 that asks for a MAC, or answers."""
    complaint: Complaint | None = None
    """Of an ICMP error."""
    reset: bool = False
    """A TCP segment that refuses the connection."""

    def answer(self, length: int) -> Packet:
        """The reply that the receiver of this packet would send."""
        return replace(self.between(self.ends.turned()), length=length, reply=True).apart()

    def between(self, ends: Ends) -> Packet:
        """The packet with other ends."""
        return replace(
            self,
            source=ends.source,
            destination=ends.destination,
            source_port=ends.source_port,
            destination_port=ends.destination_port,
        )

    def complain(self, kind: str, source: IPAddress) -> Packet:
        """The ICMP error (`3/1`) about this packet that a kernel sends from `source`."""
        number, _, code = kind.partition("/")
        return Packet(
            source=source,
            destination=self.source,
            protocol=Protocol.ICMP,
            length=min(self.length + QUOTE_OVERHEAD, MAX_QUOTE),
            reply=True,
            tracks=self.tracks,
            complaint=Complaint(type=int(number), code=int(code), about=self.ends),
        )

    @property
    def ends(self) -> Ends:
        """What conntrack tells flows apart by."""
        return Ends(
            protocol=str(self.protocol),
            source=self.source,
            destination=self.destination,
            source_port=self.source_port,
            destination_port=self.destination_port,
        )

    def with_track(self, track: Track) -> Packet:
        """The packet as one of a connection, which is remembered."""
        others = tuple(each for each in self.tracks if not each.same(track))
        return replace(self, track=track, tracks=(*others, track))

    def apart(self, *, mark: int = 0) -> Packet:
        """The packet without what the namespace (or the tunnel's outer packet) knew about it."""
        return replace(self, track=None, untracked=False, mark=mark)

    @property
    def layers(self) -> int:
        """Number of IP headers, 1 outside any tunnel."""
        return 1 if self.inner is None else 1 + self.inner.layers
