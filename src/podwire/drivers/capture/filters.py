"""Filters: which packets belong to a series of probes, as a program for the kernel.

A packet is let through when it has the cookie at its end or at one of the places where headers of
known length leave it, when it has or acknowledges a probe's sequence number, when it has the port a
UDP probe came from, when it is an ICMP error that quotes a probe's first eight bytes, or when it is
ARP. What it is
exactly is decided later, from the bytes; the filter only has to miss nothing and to be cheap.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from podwire.drivers.capture.bpf import HATYPE, Assembler, B, H
from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.frames import ETHERTYPE_ARP, ICMP_ERRORS
from podwire.trace.probe import COOKIE_BYTES, IP_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.drivers.capture.bpf import Instruction
    from podwire.trace.probe import Series

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
WITH_ETHERNET = frozenset({ARPHRD_ETHER, ARPHRD_LOOPBACK})
"""Types of devices whose frames start with MACs; tunnels' start with IP."""
ETHERNET_HEADER, VLAN_TAG = 14, 4
ENCAPSULATIONS = (0, 20, 50)
"""Bytes before the inner IP header: none, IPIP, VXLAN over IPv4 with its inner Ethernet header."""
ICMP_HEADER = 8


def probe_filter(series: Series, snap: int) -> tuple[Instruction, ...]:
    """The program for every link of a namespace; it hands out `snap` bytes of what it lets through.

    A tap sees the frames of all links of its namespace, with and without Ethernet header, so the
    program asks for the type of the device first.
    """
    asm = Assembler()
    asm.load(HATYPE)
    asm.if_equal(ARPHRD_ETHER, "ethernet")
    asm.if_equal(ARPHRD_LOOPBACK, "ethernet")
    asm.jump("at0")
    asm.label("ethernet")
    asm.load(12, H)
    asm.if_equal(ETHERTYPE_ARP, "arp")
    asm.if_equal(0x8100, "vlan")
    asm.jump("at14")
    asm.label("vlan")
    # The tag is here only when no device takes it off or puts it in.
    asm.load(ETHERNET_HEADER + 2, H)
    asm.if_equal(ETHERTYPE_ARP, "arp")
    asm.jump("at18")
    asm.label("arp")
    asm.give(snap)
    for start in (0, ETHERNET_HEADER, ETHERNET_HEADER + VLAN_TAG):
        _Section(asm, series, start, snap).write()
    return asm.assemble()


class _Section:
    """The program for frames whose IP header starts at one place.

    Each check ends the program itself when it is met, so no jump is a long one.
    """

    def __init__(self, asm: Assembler, series: Series, start: int, snap: int) -> None:
        self.asm = asm
        self.series = series
        self.start = start
        self.snap = snap
        self._numbers = count()

    def write(self) -> None:
        self.asm.label(f"at{self.start}")
        self._cookie_at_the_end()
        self._only_ipv4()
        for offset in self._cookie_offsets():
            self._cookie_at(offset)
        for encapsulation in ENCAPSULATIONS:
            self._error(self.start + encapsulation)
            self._header(self.start + encapsulation)
        self.asm.give(0)

    def _fresh(self) -> str:
        return f"{self.start}.{next(self._numbers)}"

    def _hit(self, values: Iterable[int], hit: str) -> None:
        for value in values:
            self.asm.if_equal(value, hit)

    def _end(self, hit: str, other: str) -> None:
        """Where a check ends: met at `hit`, not met when it comes here."""
        self.asm.jump(other)
        self.asm.label(hit)
        self.asm.give(self.snap)
        self.asm.label(other)

    def _needs(self, size: int, other: str) -> None:
        """Go on only when the packet has so many bytes: a load beyond its end would refuse it."""
        self.asm.load_length()
        self.asm.if_at_least(size, other=other)

    def _cookie_at_the_end(self) -> None:
        asm, mark, other = self.asm, self.series.mark, self._fresh()
        self._needs(self.start + IP_HEADER + COOKIE_BYTES, other)
        asm.subtract(COOKIE_BYTES)
        asm.to_index()
        asm.load_indexed(0)
        asm.if_equal(int.from_bytes(mark[:4], "big"), other=other)
        asm.load_indexed(4, H)
        asm.if_equal(int.from_bytes(mark[4:], "big"), other=other)
        asm.give(self.snap)
        asm.label(other)

    def _only_ipv4(self) -> None:
        right = self._fresh()
        self.asm.load(self.start, B)
        self.asm.mask(0xF0)
        self.asm.if_equal(0x40, right)
        self.asm.give(0)
        self.asm.label(right)

    def _cookie_offsets(self) -> list[int]:
        """Where else the cookie is, when a packet is cut up or quoted in part."""
        header = self.series.header
        quoted = IP_HEADER + ICMP_HEADER + IP_HEADER + header
        places = (IP_HEADER, IP_HEADER + header, quoted)
        return sorted({self.start + extra + place for extra in ENCAPSULATIONS for place in places})

    def _cookie_at(self, offset: int) -> None:
        asm, mark, other = self.asm, self.series.mark, self._fresh()
        self._needs(offset + COOKIE_BYTES, other)
        asm.load(offset)
        asm.if_equal(int.from_bytes(mark[:4], "big"), other=other)
        asm.load(offset + 4, H)
        asm.if_equal(int.from_bytes(mark[4:], "big"), other=other)
        asm.give(self.snap)
        asm.label(other)

    def _error(self, ip: int) -> None:
        """An ICMP error that quotes no more than eight bytes behind the IP header (RFC 792)."""
        asm, other, right, hit = self.asm, self._fresh(), self._fresh(), self._fresh()
        quoted = ip + IP_HEADER + ICMP_HEADER
        self._needs(quoted + IP_HEADER + 8, other)
        asm.load(ip + 9, B)
        asm.if_equal(PROTOCOL_NUMBERS[Protocol.ICMP], other=other)
        asm.load(ip + IP_HEADER, B)
        self._hit(sorted(ICMP_ERRORS), right)
        asm.jump(other)
        asm.label(right)
        asm.load(quoted + 9, B)
        asm.if_equal(PROTOCOL_NUMBERS[self.series.protocol], other=other)
        if self.series.protocol is Protocol.ICMP:
            asm.load(quoted + IP_HEADER + 4, H)
            asm.if_equal(self.series.identifier, hit)
        else:
            self._ports(quoted, hit)
        self._end(hit, other)

    def _ports(self, ip: int, hit: str) -> None:
        """The port the probes come from, on either side."""
        for offset in (0, 2):
            self.asm.load(ip + IP_HEADER + offset, H)
            self.asm.if_equal(self.series.source_port, hit)

    def _header(self, ip: int) -> None:
        """A probe too small for a cookie, or an answer that brings nothing of it back."""
        asm, series, other, hit = self.asm, self.series, self._fresh(), self._fresh()
        self._needs(ip + IP_HEADER + series.header, other)
        asm.load(ip + 9, B)
        asm.if_equal(PROTOCOL_NUMBERS[series.protocol], other=other)
        if series.protocol is Protocol.TCP:
            numbers = range(series.count)
            asm.load(ip + IP_HEADER + 4)
            self._hit(map(series.sequence, numbers), hit)
            asm.load(ip + IP_HEADER + 8)
            for number in numbers:
                self._hit(series.acknowledgements(number), hit)
        elif series.protocol is Protocol.UDP:
            self._ports(ip, hit)
        else:
            asm.load(ip + IP_HEADER + 4, H)
            asm.if_equal(series.identifier, hit)
        self._end(hit, other)
