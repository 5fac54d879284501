"""Frames: what a captured frame says, read from its first bytes.

Whatever is cut off or unknown is None; no bytes make the decoder fail.
Source: RFC 791, 792, 826, 768, 9293, 2003 (IPIP), 7348 (VXLAN), 1191 (next-hop MTU).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct

from podwire.trace.flow import PROTOCOL_NUMBERS, Packet, Protocol

ETHERTYPE_IPV4, ETHERTYPE_ARP = 0x0800, 0x0806
ETHERTYPES_VLAN = frozenset({0x8100, 0x88A8})
VXLAN_PORTS = frozenset({4789, 8472})
"""IANA's, and the one Linux had before (flannel still uses it)."""
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""ICMP types that quote the packet they complain about."""
FRAGMENTATION_NEEDED = (3, 4)

_ETHERNET = Struct("!6s6sH")
_VLAN = Struct("!HH")
_ARP = Struct("!HHBBH6s4s6s4s")
_IPV4 = Struct("!BBHHHBBH4s4s")
_UDP = Struct("!HHHH")
_TCP = Struct("!HHIIBBHHH")
_ICMP = Struct("!BBHHH")
_VXLAN = Struct("!B3xI")

_PROTOCOLS = {number: protocol for protocol, number in PROTOCOL_NUMBERS.items()}
_MAX_DEPTH = 4
"""Headers inside headers that are followed: outer, inner, quoted, and one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ARP:
    """An ARP question or answer for IPv4."""

    answer: bool
    sender_mac: str
    sender: IPv4Address
    target_mac: str
    target: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ICMP:
    """An ICMP header; an error carries what it quotes."""

    type: int
    code: int
    identifier: int
    sequence: int
    quoted: IP | None = None

    @property
    def error(self) -> bool:
        """Whether it complains about another packet."""
        return self.type in ICMP_ERRORS

    @property
    def mtu(self) -> int | None:
        """Next-hop MTU in bytes, of *fragmentation needed*."""
        return self.sequence if (self.type, self.code) == FRAGMENTATION_NEEDED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TCP:
    """A TCP header."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    syn: bool
    ack: bool
    rst: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UDP:
    """A UDP header; to a VXLAN port also the frame inside."""

    source_port: int
    destination_port: int
    vni: int | None = None
    inner: Frame | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IP:
    """An IPv4 header and what follows it."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    ttl: int
    length: int
    """Bytes of the packet as its header says."""
    identification: int
    df: bool
    more_fragments: bool
    offset: int
    """Bytes of the datagram before this fragment."""
    body: ICMP | TCP | UDP | IP | None = None
    """None: a later fragment, cut off, or another protocol."""

    @property
    def fragment(self) -> bool:
        """Whether it is only a part of a datagram."""
        return self.more_fragments or self.offset > 0

    @property
    def inner(self) -> IP | None:
        """The packet that this one carries through a tunnel."""
        if isinstance(self.body, IP):
            return self.body
        if isinstance(self.body, UDP) and self.body.inner is not None:
            return self.body.inner.ip
        return None

    @property
    def innermost(self) -> IP:
        """The packet inside all tunnels."""
        return self if self.inner is None else self.inner.innermost


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame as a link carries it; devices without Ethernet have no MACs."""

    source_mac: str | None = None
    destination_mac: str | None = None
    vlan: int | None = None
    ethertype: int = ETHERTYPE_IPV4
    arp: ARP | None = None
    ip: IP | None = None


def decode(data: bytes, *, ethernet: bool = True) -> Frame:
    """Read a frame from its first bytes; `ethernet`: whether it starts with MACs or with IP."""
    return _frame(data, 0) if ethernet else Frame(ip=_ip(data, 0))


def packet_of(ip: IP) -> Packet | None:
    """The headers as the model speaks of them; None for a protocol it does not know."""
    protocol = _PROTOCOLS.get(ip.protocol)
    if protocol is None:
        return None
    body = ip.body
    ports: tuple[int | None, int | None] = (None, None)
    if isinstance(body, TCP | UDP):
        ports = (body.source_port, body.destination_port)
    wrapped = body.inner if isinstance(body, UDP) else None
    return Packet(
        source=ip.source,
        destination=ip.destination,
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        ttl=ip.ttl,
        length=ip.length,
        df=ip.df,
        inner=None if ip.inner is None else packet_of(ip.inner),
        vni=body.vni if isinstance(body, UDP) else None,
        inner_mac=None if wrapped is None else wrapped.destination_mac,
    )


def _frame(data: bytes, depth: int) -> Frame:
    if len(data) < _ETHERNET.size:
        return Frame(ethertype=0)
    destination, source, ethertype = _ETHERNET.unpack_from(data)
    rest, vlan = data[_ETHERNET.size :], None
    while ethertype in ETHERTYPES_VLAN and len(rest) >= _VLAN.size:
        tag, ethertype = _VLAN.unpack_from(rest)
        vlan, rest = tag & 0xFFF, rest[_VLAN.size :]
    return Frame(
        source_mac=_mac(source),
        destination_mac=_mac(destination),
        vlan=vlan,
        ethertype=ethertype,
        arp=_arp(rest) if ethertype == ETHERTYPE_ARP else None,
        ip=_ip(rest, depth) if ethertype == ETHERTYPE_IPV4 else None,
    )


def _arp(data: bytes) -> ARP | None:
    if len(data) < _ARP.size:
        return None
    kind, protocol, _, _, operation, *addresses = _ARP.unpack_from(data)
    if (kind, protocol) != (1, ETHERTYPE_IPV4) or operation not in {1, 2}:
        return None
    return ARP(
        answer=operation == 2,
        sender_mac=_mac(addresses[0]),
        sender=IPv4Address(addresses[1]),
        target_mac=_mac(addresses[2]),
        target=IPv4Address(addresses[3]),
    )


def _ip(data: bytes, depth: int) -> IP | None:
    if len(data) < _IPV4.size or depth >= _MAX_DEPTH:
        return None
    first, _, length, identification, flags, ttl, protocol, _, source, destination = (
        _IPV4.unpack_from(data)
    )
    header = (first & 0xF) * 4
    if first >> 4 != 4 or header < _IPV4.size:
        return None
    offset = (flags & 0x1FFF) * 8
    return IP(
        source=IPv4Address(source),
        destination=IPv4Address(destination),
        protocol=protocol,
        ttl=ttl,
        length=length,
        identification=identification,
        df=bool(flags & 0x4000),
        more_fragments=bool(flags & 0x2000),
        offset=offset,
        # Only the first fragment starts with the next header.
        body=None if offset else _body(protocol, data[header:], depth + 1),
    )


def _body(number: int, data: bytes, depth: int) -> ICMP | TCP | UDP | IP | None:
    protocol = _PROTOCOLS.get(number)
    if protocol is Protocol.ICMP:
        return _icmp(data, depth)
    if protocol is Protocol.TCP:
        return _tcp(data)
    if protocol is Protocol.UDP:
        return _udp(data, depth)
    return _ip(data, depth) if protocol is Protocol.IPIP else None


def _icmp(data: bytes, depth: int) -> ICMP | None:
    if len(data) < _ICMP.size:
        return None
    kind, code, _, identifier, sequence = _ICMP.unpack_from(data)
    quoted = _ip(data[_ICMP.size :], depth) if kind in ICMP_ERRORS else None
    return ICMP(type=kind, code=code, identifier=identifier, sequence=sequence, quoted=quoted)


def _tcp(data: bytes) -> TCP | None:
    if len(data) < 8:
        return None
    # An error quotes at least eight bytes (RFC 792): ports and sequence number.
    padded = data[: _TCP.size].ljust(_TCP.size, b"\0")
    source, destination, sequence, acknowledgement, _, flags, *_ = _TCP.unpack(padded)
    return TCP(
        source_port=source,
        destination_port=destination,
        sequence=sequence,
        acknowledgement=acknowledgement,
        syn=bool(flags & 0x02),
        ack=bool(flags & 0x10),
        rst=bool(flags & 0x04),
    )


def _udp(data: bytes, depth: int) -> UDP | None:
    if len(data) < _UDP.size:
        return None
    source, destination, _, _ = _UDP.unpack_from(data)
    vni, inner = None, None
    rest = data[_UDP.size :]
    if destination in VXLAN_PORTS and len(rest) >= _VXLAN.size and rest[0] & 0x08:
        vni = _VXLAN.unpack_from(rest)[1] >> 8
        inner = _frame(rest[_VXLAN.size :], depth)
    return UDP(source_port=source, destination_port=destination, vni=vni, inner=inner)


def _mac(value: bytes) -> str:
    return value.hex(":")
