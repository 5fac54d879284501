"""Probe: a packet that can be known again wherever it turns up, and the errors about it too.

Its payload is a cookie over and over. At its end, because the distance from the end survives every
tunnel, VLAN tag and header option; at its start, because an ICMP error quotes only the first bytes
of a big packet; and at every multiple of eight of the IP payload between, because that is where
fragments begin. Answers without payload (TCP) are known by their acknowledgement number.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, unpack
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol

if TYPE_CHECKING:
    from ipaddress import IPv4Address

MARK_BYTES = 6
"""The part of a cookie that all probes of one series share."""
COOKIE_BYTES = 8
MAX_PROBES = 16
IP_HEADER = 20
HEADERS = {Protocol.ICMP: 8, Protocol.UDP: 8, Protocol.TCP: 20}
"""Bytes of the header behind that of IP, without options."""
ECHO_REQUEST, ECHO_REPLY = 8, 0

_ICMP = Struct("!BBHHH")
_UDP = Struct("!HHHH")
_TCP = Struct("!HHIIBBHHH")
_SEQUENCE_STEP = 0x10000
"""Distance of the sequence numbers of two SYNs: more than one packet holds."""
_RST, _SYN = 0x04, 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Probes of one flow: all alike but for their number, so that all take the same path.

    Raises:
        BadInput: the numbers do not fit the protocol.
    """

    protocol: Protocol
    source: IPv4Address
    destination: IPv4Address
    length: int
    """Bytes of the IP packet."""
    mark: bytes
    """Six bytes of chance that start every cookie."""
    seed: int
    """32 bits of chance: first TCP sequence number, and the ICMP identifier."""
    source_port: int = 0
    port: int = 0
    """Destination port."""
    df: bool = False
    ttl: int | None = None
    """None: as the sending namespace is set."""
    count: int = 3

    def __post_init__(self) -> None:
        if self.protocol not in HEADERS:
            raise BadInput(f"no probe can be made of {self.protocol}")
        if len(self.mark) != MARK_BYTES or not 1 <= self.count <= MAX_PROBES:
            raise BadInput(f"a series is 1 to {MAX_PROBES} probes with a mark of {MARK_BYTES}")
        if not self.smallest <= self.length <= 65535:
            raise BadInput(
                f"a {self.protocol} probe of {self.length} bytes cannot be made",
                fix=f"give a size between {self.smallest} and 65535",
            )

    @property
    def header(self) -> int:
        """Bytes of the header behind that of IP."""
        return HEADERS[self.protocol]

    @property
    def smallest(self) -> int:
        """Bytes of an IP packet without payload."""
        return IP_HEADER + self.header

    @property
    def payload_bytes(self) -> int:
        """Bytes behind all headers."""
        return self.length - self.smallest

    @property
    def identifier(self) -> int:
        """ICMP identifier."""
        return self.seed & 0xFFFF

    def cookie(self, number: int) -> bytes:
        """What probe `number` (from 0) carries."""
        return self.mark + number.to_bytes(2, "big")

    def sequence(self, number: int) -> int:
        """TCP sequence number of probe `number`."""
        return (self.seed + number * _SEQUENCE_STEP) & 0xFFFFFFFF

    def acknowledgements(self, number: int) -> tuple[int, int]:
        """Acknowledgement numbers of its answers: of a SYN/ACK, and of a RST from a closed port."""
        first = self.sequence(number) + 1
        return (first & 0xFFFFFFFF, (first + self.payload_bytes) & 0xFFFFFFFF)

    def payload(self, number: int) -> bytes:
        """The cookie at the start, at the end, and wherever a fragment may begin."""
        cookie, size = self.cookie(number), self.payload_bytes
        if size < COOKIE_BYTES:
            return cookie[:size]
        shift = self.header % COOKIE_BYTES
        aligned = (cookie * (size // COOKIE_BYTES + 2))[shift : shift + size]
        whole = cookie + aligned[COOKIE_BYTES:]
        return whole[:-COOKIE_BYTES] + cookie if size >= 2 * COOKIE_BYTES else whole[:size]

    def segment(self, number: int) -> bytes:
        """Everything behind the IP header, checksum included."""
        payload = self.payload(number)
        if self.protocol is Protocol.ICMP:
            return self._echo(number, payload)
        if self.protocol is Protocol.TCP:
            return self._tcp(self.sequence(number), _SYN, payload)
        size = _UDP.size + len(payload)
        bare = _UDP.pack(self.source_port, self.port, size, 0) + payload
        # Zero would mean: no checksum (RFC 768).
        total = checksum(self._pseudo(size) + bare) or 0xFFFF
        return _UDP.pack(self.source_port, self.port, size, total) + payload

    def reset(self, number: int) -> bytes:
        """The TCP segment that ends what probe `number` may have begun at its receiver."""
        return self._tcp(self.sequence(number) + 1 & 0xFFFFFFFF, _RST, b"")

    def _echo(self, number: int, payload: bytes) -> bytes:
        fields = (self.identifier, number + 1)
        total = checksum(_ICMP.pack(ECHO_REQUEST, 0, 0, *fields) + payload)
        return _ICMP.pack(ECHO_REQUEST, 0, total, *fields) + payload

    def _tcp(self, sequence: int, flags: int, payload: bytes) -> bytes:
        ports = (self.source_port, self.port)
        offset, window = 5 << 4, 0 if flags & _RST else 64240
        bare = _TCP.pack(*ports, sequence, 0, offset, flags, window, 0, 0) + payload
        total = checksum(self._pseudo(len(bare)) + bare)
        return _TCP.pack(*ports, sequence, 0, offset, flags, window, total, 0) + payload

    def _pseudo(self, size: int) -> bytes:
        number = PROTOCOL_NUMBERS[self.protocol]
        lengths = bytes((0, number)) + size.to_bytes(2, "big")
        return self.source.packed + self.destination.packed + lengths


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
