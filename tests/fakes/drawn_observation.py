"""Observations drawn by hand: what taps would have seen of a predicted packet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.frames import ARP, ICMP, IP, TCP, Frame
from podwire.trace.observation import Observation, Role, Seen, Sent, Sighting, TapReport
from podwire.trace.probe import Series
from podwire.trace.schema import Direction

if TYPE_CHECKING:
    from podwire.trace.flow import Packet
    from podwire.trace.schema import Hop, Path, Trace

START = 1_700_000_000_000_000_000


@dataclass
class Tape:
    """Sightings in the order in which they are added, 1 µs apart."""

    trace: Trace
    probes: int = 3
    seen: list[Seen] = field(default_factory=list)
    errno: int | None = None
    refused: dict[int, str] = field(default_factory=dict)
    dropped: int = 0

    def path(self, direction: Direction) -> Path:
        return next(each for each in self.trace.paths if each.direction is direction)

    @property
    def home(self) -> int:
        return self.path(Direction.FORWARD).hops[0].inode

    def all(self) -> Tape:
        """Everything as predicted."""
        for direction in Direction:
            if any(path.direction is direction for path in self.trace.paths):
                self.way(direction)
        return self

    def way(self, direction: Direction, *, upto: int | None = None) -> Tape:
        """The places of a path up to (not including) a number, for every probe."""
        for probe in range(self.probes):
            for hop in self.path(direction).hops[:upto]:
                if hop.where.interface is not None:
                    self.at(hop, direction, probe)
        return self

    def at(
        self,
        hop: Hop,
        direction: Direction = Direction.FORWARD,
        probe: int = 0,
        *,
        packet: Packet | None = None,
        packet_type: str | None = None,
        reset: bool = False,
    ) -> None:
        """One sighting at one place."""
        role = Role.REQUEST if direction is Direction.FORWARD else Role.REPLY
        packet = packet or hop.packet
        body = None
        if reset:
            body = TCP(source_port=80, destination_port=40000, sequence=0, acknowledgement=1,
                       syn=False, ack=True, rst=True)  # fmt: skip
        frame = Frame(ip=_ip(packet, body))
        sighting = self._sighting(hop.inode, hop.where.interface, hop.side, packet_type)
        self.seen.append(
            Seen(sighting=sighting, frame=frame, role=role, probe=probe, packet=packet)
        )

    def arp(self, hop: Hop, target: str, *, mac: str | None = None, times: int = 1) -> None:
        """A question out of a link, and its answer if there is one."""
        asker = IPv4Address("10.244.38.174")
        question = ARP(answer=False, sender_mac="aa:aa:aa:aa:aa:aa", sender=asker,
                       target_mac="00:00:00:00:00:00", target=IPv4Address(target))  # fmt: skip
        for _ in range(times):
            self._arp(hop, question, "out")
        if mac is not None:
            answer = ARP(answer=True, sender_mac=mac, sender=IPv4Address(target),
                         target_mac="aa:aa:aa:aa:aa:aa", target=asker)  # fmt: skip
            self._arp(hop, answer, "in")

    def _arp(self, hop: Hop, arp: ARP, side: str) -> None:
        sighting = self._sighting(hop.inode, hop.where.interface or "eth0", side, None)
        self.seen.append(Seen(sighting=sighting, frame=Frame(arp=arp), role=Role.ARP))

    def error_at(self, hop: Hop, probe: int) -> None:
        """The predicted ICMP error, at one place."""
        packet = hop.packet
        inner = packet if packet.inner is None else packet.inner
        assert inner.complaint is not None
        body = ICMP(type=inner.complaint.type, code=inner.complaint.code, identifier=0, sequence=0)
        ip = _ip(inner, body)
        if packet is not inner:
            ip = _ip(packet, ip)
        sighting = self._sighting(hop.inode, hop.where.interface, hop.side, None)
        self.seen.append(
            Seen(sighting=sighting, frame=Frame(ip=ip), role=Role.ERROR,
                 probe=probe, packet=packet, error=body)
        )  # fmt: skip

    def error(self, source: str, kind: int, code: int, inode: int | None = None) -> None:
        """An ICMP error about every probe that comes home, or to another namespace."""
        body = ICMP(type=kind, code=code, identifier=0, sequence=0)
        for probe in range(self.probes):
            packet = self.path(Direction.FORWARD).hops[0].packet
            back = replace(packet, source=IPv4Address(source), destination=packet.source)
            sighting = self._sighting(inode or self.home, "eth0", "in", None)
            self.seen.append(
                Seen(sighting=sighting, frame=Frame(ip=_ip(back, body)), role=Role.ERROR,
                     probe=probe, packet=back, error=body)
            )  # fmt: skip

    def _sighting(self, inode: int, name: str | None, side: str, kind: str | None) -> Sighting:
        number = len(self.seen)
        return Sighting(
            inode=inode,
            index=1,
            interface=name,
            packet_type=kind or ("outgoing" if side == "out" else "host"),
            timestamp_ns=START + 1000 * number,
            order=number,
            data=b"",
            length=98,
        )

    def observation(self) -> Observation:
        first = self.path(Direction.FORWARD).hops[0].packet
        assert isinstance(first.source, IPv4Address)
        assert isinstance(first.destination, IPv4Address)
        series = Series(
            protocol=Protocol(first.protocol),
            source=first.source,
            destination=first.destination,
            length=first.length,
            mark=b"podwir",
            seed=1,
            source_port=first.source_port or 0,
            port=first.destination_port or 0,
            count=self.probes,
        )
        inodes = {hop.inode for path in self.trace.paths for hop in path.hops}
        return Observation(
            series=series,
            inode=self.home,
            sent=tuple(
                Sent(probe=number, time_ns=START, errno=self.errno,
                     reason=None if self.errno is None else "Network is unreachable")
                for number in range(self.probes)
            ),
            seen=tuple(self.seen),
            taps=tuple(
                TapReport(inode=inode, refused=self.refused.get(inode), dropped=self.dropped)
                for inode in sorted(inodes)
            ),
        )  # fmt: skip


def _ip(packet: Packet, body: ICMP | TCP | IP | None) -> IP:
    assert isinstance(packet.source, IPv4Address)
    assert isinstance(packet.destination, IPv4Address)
    return IP(
        source=packet.source,
        destination=packet.destination,
        protocol=PROTOCOL_NUMBERS[packet.protocol],
        ttl=packet.ttl,
        length=packet.length,
        identification=1,
        df=packet.df,
        more_fragments=False,
        offset=0,
        body=body,
    )
