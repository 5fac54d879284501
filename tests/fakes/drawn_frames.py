"""Frames drawn by hand around a probe: plain, in tunnels, cut up, quoted in errors."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from struct import pack

from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.probe import Series, checksum

POD, OTHER = IPv4Address("10.244.38.174"), IPv4Address("10.244.169.66")
NODE, FAR = IPv4Address("192.168.26.103"), IPv4Address("192.168.26.105")
OTHER_MAC = "02:00:00:00:00:02"
MACS = bytes.fromhex("020000000002 020000000001".replace(" ", ""))


def series(protocol: Protocol = Protocol.ICMP, length: int = 84, **more: object) -> Series:
    ports = (0, 0) if protocol is Protocol.ICMP else (40000, 80)
    base = Series(
        protocol=protocol,
        source=POD,
        destination=OTHER,
        length=length,
        mark=b"\x9f\x01\x82\x77\xc4\x5b",
        seed=0xFFFE_FFF0,
        source_port=ports[0],
        port=ports[1],
    )
    return replace(base, **more)  # type: ignore[arg-type]


def ip(
    body: bytes,
    *,
    protocol: int,
    ends: tuple[IPv4Address, IPv4Address] = (POD, OTHER),
    flags: int = 0,
    options: bytes = b"",
) -> bytes:
    first = 0x45 + len(options) // 4
    size = 20 + len(options) + len(body)
    tail = ends[0].packed + ends[1].packed + options
    head = pack("!BBHHHBB", first, 0, size, 7, flags, 64, protocol)
    return head + checksum(head + b"\0\0" + tail).to_bytes(2, "big") + tail + body


def probe(of: Series, number: int = 0) -> bytes:
    """The IP packet of a probe."""
    return ip(of.segment(number), protocol=PROTOCOL_NUMBERS[of.protocol])


def ethernet(packet: bytes, kind: int = 0x0800) -> bytes:
    return MACS + kind.to_bytes(2, "big") + packet


def tagged(packet: bytes, vlan: int) -> bytes:
    return MACS + pack("!HHH", 0x8100, vlan, 0x0800) + packet


def vxlan(packet: bytes, vni: int = 4096) -> bytes:
    """The outer IP packet."""
    inner = pack("!BxxxI", 8, vni << 8) + ethernet(packet)
    return ip(pack("!HHHH", 50000, 4789, 8 + len(inner), 0) + inner, protocol=17, ends=(NODE, FAR))


def ipip(packet: bytes) -> bytes:
    return ip(packet, protocol=4, ends=(NODE, FAR))


def fragments(packet: bytes, size: int) -> list[bytes]:
    """The packet in pieces of at most `size` bytes of payload."""
    ends = (IPv4Address(packet[12:16]), IPv4Address(packet[16:20]))
    body = packet[20:]
    return [
        ip(
            body[start : start + size],
            protocol=packet[9],
            ends=ends,
            flags=(start // 8) | (0x2000 if start + size < len(body) else 0),
        )
        for start in range(0, len(body), size)
    ]


def error(packet: bytes, kind: int, code: int, quote: int = 548, mtu: int = 0) -> bytes:
    """The ICMP error about a packet, sent back to its source."""
    body = pack("!BBHHH", kind, code, 0, 0, mtu) + packet[:quote]
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return ip(body, protocol=1, ends=(FAR, IPv4Address(packet[12:16])))


def echo_reply(of: Series, number: int = 0) -> bytes:
    body = b"\0" + of.segment(number)[1:]
    return ip(body, protocol=1, ends=(OTHER, POD))


def tcp_answer(of: Series, number: int, *, closed: bool = False) -> bytes:
    acknowledged = of.acknowledgements(number)[closed]
    flags = 0x14 if closed else 0x12
    head = pack("!HHIIBBHHH", of.port, of.source_port, 99, acknowledged, 0x50, flags, 0, 0, 0)
    return ip(head, protocol=6, ends=(OTHER, POD))


def udp_answer(of: Series, payload: bytes = b"pong") -> bytes:
    head = pack("!HHHH", of.port, of.source_port, 8 + len(payload), 0)
    return ip(head + payload, protocol=17, ends=(OTHER, POD))


def arp(*, answer: bool = False, mac: bytes = MACS[:6]) -> bytes:
    """POD asks for OTHER, or OTHER answers with `mac`."""
    asker, asked = MACS[6:] + POD.packed, mac + OTHER.packed
    ends = asked + asker if answer else asker + bytes(6) + OTHER.packed
    return ethernet(pack("!HHBBH", 1, 0x0800, 6, 4, 2 if answer else 1) + ends, 0x0806)
