"""Packets put on one side of a router and taken from the other, with plain sockets."""

from __future__ import annotations

import select
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from podwire.drivers.namespaces import call_in
from podwire.trace.flow import Packet, Protocol

if TYPE_CHECKING:
    import random

    from podwire.model.addressing import IPAddress

NUMBERS = {(4, Protocol.ICMP): 1, (4, Protocol.TCP): 6, (4, Protocol.UDP): 17,
           (6, Protocol.ICMP): 58, (6, Protocol.TCP): 6, (6, Protocol.UDP): 17}  # fmt: skip
PROTOCOLS = {number: protocol for (_, protocol), number in NUMBERS.items()}
MACS = {"a": "02000000000a", "wa": "02000000010a", "b": "02000000000b", "wb": "02000000010b"}
PATIENCE_S = 0.012
"""How long an arrival is waited for; a namespace away it takes microseconds."""


def addresses(dice: random.Random, version: int) -> tuple[IPAddress, IPAddress]:
    if version == 4:
        services = ["10.99.0.1", "10.99.0.2"]
        far = [f"10.2.0.{number}" for number in range(2, 12)]
        return (
            IPv4Address(f"10.1.0.{dice.randrange(2, 12)}"),
            IPv4Address(dice.choice(far + services * 2)),
        )
    return (
        IPv6Address(f"fd01::{dice.randrange(2, 12):x}"),
        IPv6Address(f"fd02::{dice.randrange(2, 12):x}"),
    )


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(packet: Packet, number: int) -> bytes:
    """The IP packet with the number as its first and last payload bytes."""
    version = packet.source.version
    protocol = NUMBERS[version, packet.protocol]
    room = packet.length - (20 if version == 4 else 40)
    head = {Protocol.TCP: 20, Protocol.UDP: 8, Protocol.ICMP: 8}[packet.protocol]
    payload = struct.pack("!I", number).ljust(room - head, b"p")
    match packet.protocol:
        case Protocol.TCP:
            flags = 0x12 if packet.reply else 0x02
            body = struct.pack(
                "!HHIIBBHHH", packet.source_port, packet.destination_port, 1000,
                1001 + len(payload) if packet.reply else 0, 5 << 4, flags, 8192, 0, 0,
            )  # fmt: skip
            place = 16
        case Protocol.UDP:
            body = struct.pack("!HHHH", packet.source_port, packet.destination_port, room, 0)
            place = 6
        case _:
            kind = (0 if version == 4 else 129) if packet.reply else (8 if version == 4 else 128)
            body = struct.pack("!BBHHH", kind, 0, 0, number % 65521 + 1, 1)
            place = 2
    body += payload
    pseudo = b""
    if packet.protocol is not Protocol.ICMP or version == 6:
        pseudo = packet.source.packed + packet.destination.packed
        pseudo += struct.pack("!HH", protocol, len(body)) if version == 4 else struct.pack(
            "!II", len(body), protocol
        )  # fmt: skip
    value = checksum(pseudo + body)
    body = body[:place] + struct.pack("!H", value) + body[place + 2 :]
    if version == 6:
        return (
            struct.pack("!IHBB", 6 << 28, len(body), protocol, packet.ttl)
            + packet.source.packed
            + packet.destination.packed
            + body
        )
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, packet.length, number & 0xFFFF, 0, packet.ttl, protocol, 0,
        packet.source.packed, packet.destination.packed,
    )  # fmt: skip
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def parse(frame: bytes, number: int) -> Packet | None:
    """The packet of a frame that carries the number as its first payload bytes."""
    data = frame[14:]
    version = data[0] >> 4
    if version == 4:
        protocol, ttl, begin = data[9], data[8], 20
        source: IPAddress = ip_address(data[12:16])
        destination: IPAddress = ip_address(data[16:20])
    else:
        protocol, ttl, begin = data[6], data[7], 40
        source, destination = ip_address(data[8:24]), ip_address(data[24:40])
    found = PROTOCOLS.get(protocol)
    if found is None:
        return None
    head = {Protocol.TCP: 20, Protocol.UDP: 8, Protocol.ICMP: 8}[found]
    if data[begin + head : begin + head + 4] != struct.pack("!I", number):
        return None
    ports: tuple[int | None, int | None] = (None, None)
    if found is not Protocol.ICMP:
        ports = struct.unpack_from("!HH", data, begin)
    elif data[begin] not in {0, 8, 128, 129}:
        return None
    return Packet(
        source=source, destination=destination, protocol=found, source_port=ports[0],
        destination_port=ports[1], ttl=ttl,
    )  # fmt: skip


class Wire:
    """Taps and senders on both sides."""

    def __init__(self, near: int, far: int) -> None:
        self.near = call_in(near, _tap, "ea")
        self.far = call_in(far, _tap, "eb")

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def there(self, packet: Packet, number: int) -> Packet | None:
        return self._cross(self.near, "wa", "a", self.far, packet, number)

    def back(self, packet: Packet, number: int) -> Packet | None:
        return self._cross(self.far, "wb", "b", self.near, packet, number)

    def _cross(
        self, out: socket.socket, to: str, own: str, into: socket.socket, packet: Packet,
        number: int,
    ) -> Packet | None:  # fmt: skip
        for tap in (self.near, self.far):
            _drain(tap)
        kind = b"\x08\0" if packet.source.version == 4 else b"\x86\xdd"
        out.send(bytes.fromhex(MACS[to] + MACS[own]) + kind + build(packet, number))
        taps = {into, out}
        while True:
            ready, _, _ = select.select(list(taps), [], [], PATIENCE_S)
            if not ready:
                return None
            for tap in ready:
                data, address = tap.recvfrom(2048)
                if len(address) > 2 and address[2] == socket.PACKET_OUTGOING:
                    continue
                found = parse(data, number)
                if found is not None:
                    return found


def _tap(link: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((link, 3))
    tap.setblocking(False)
    return tap


def _drain(tap: socket.socket) -> None:
    while True:
        try:
            tap.recv(2048)
        except BlockingIOError:
            return
