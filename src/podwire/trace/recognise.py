"""Recognise: what a captured frame is to a series of probes, and which came first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.frames import ICMP, IP, TCP, UDP, Frame, decode, packet_of
from podwire.trace.observation import Role, Seen, Sent, Sighting
from podwire.trace.probe import COOKIE_BYTES, ECHO_REPLY, ECHO_REQUEST, MARK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.trace.probe import Series


def in_order(
    sightings: Iterable[Sighting], path: Sequence[tuple[int, str | None, str]] = ()
) -> list[Sighting]:
    """By time; what has the same time by its place on `path` (inode, interface, side).

    A decapsulated packet can carry the very stamp of the packet around it. Within a namespace the
    tap's own order decides then, between namespaces the order in which they are passed.
    """
    rank = {place: number for number, place in enumerate(path)}

    def key(sighting: Sighting) -> tuple[int, int, int]:
        place = rank.get((sighting.inode, sighting.interface, sighting.side), len(rank))
        return (sighting.timestamp_ns, place, sighting.order)

    return sorted(sightings, key=key)


@dataclass(slots=True)
class Recogniser:
    """Says what sightings are; later fragments are known by the first, so order matters."""

    series: Series
    _datagrams: dict[tuple[object, ...], Seen] = field(default_factory=dict)

    def recognise(self, sighting: Sighting) -> Seen | None:
        """What a sighting is; None: nothing of ours."""
        frame = decode(sighting.data, ethernet=sighting.ethernet)
        if frame.arp is not None:
            return Seen(sighting=sighting, frame=frame, role=Role.ARP)
        if frame.ip is None:
            return None
        seen = self._of_datagram(sighting, frame, frame.ip)
        if seen is None:
            seen = self._judge(sighting, frame, frame.ip)
        if seen is None:
            return None
        if frame.ip.more_fragments:
            self._datagrams.setdefault(_datagram(frame.ip), seen)
        return replace(seen, packet=packet_of(frame.ip))

    def _of_datagram(self, sighting: Sighting, frame: Frame, ip: IP) -> Seen | None:
        """A later fragment of something already recognised."""
        first = self._datagrams.get(_datagram(ip)) if ip.offset else None
        return None if first is None else replace(first, sighting=sighting, frame=frame)

    def _judge(self, sighting: Sighting, frame: Frame, ip: IP) -> Seen | None:
        packet, body = ip.innermost, ip.innermost.body
        if isinstance(body, ICMP) and body.error:
            return self._complaint(sighting, frame, body)
        number = self._cookie(sighting.data)
        role: Role | None = None
        if packet.protocol != PROTOCOL_NUMBERS[self.series.protocol] and number is None:
            return None
        if isinstance(body, ICMP):
            number, role = self._echo(body, number)
            if role is not None and not self._has_cookie(sighting.data):
                return None
        elif isinstance(body, TCP):
            number, role = self._tcp(body, number)
        elif isinstance(body, UDP):
            role = self._udp(packet, body, number)
        elif number is not None:
            role = self._by_address(packet)
        if role is None:
            return None
        return Seen(sighting=sighting, frame=frame, role=role, probe=number)

    def _cookie(self, data: bytes) -> int | None:
        """The number of the probe whose cookie is in the bytes."""
        at = data.find(self.series.mark)
        if at < 0 or at + COOKIE_BYTES > len(data):
            return None
        number = int.from_bytes(data[at + MARK_BYTES : at + COOKIE_BYTES], "big")
        return number if number < self.series.count else None

    def _has_cookie(self, data: bytes) -> bool:
        """Whether the bytes are a probe's for sure; one that has no room for a cookie is taken."""
        return self.series.payload_bytes < COOKIE_BYTES or self._cookie(data) is not None

    def _echo(self, body: ICMP, number: int | None) -> tuple[int | None, Role | None]:
        roles = {ECHO_REQUEST: Role.REQUEST, ECHO_REPLY: Role.REPLY}
        if number is None and body.identifier == self.series.identifier:
            # Too small for a cookie, or quoted without.
            number = body.sequence - 1 if 0 < body.sequence <= self.series.count else None
        return number, None if number is None else roles.get(body.type)

    def _tcp(self, body: TCP, number: int | None) -> tuple[int | None, Role | None]:
        for probe in range(self.series.count):
            if body.ack and body.acknowledgement in self.series.acknowledgements(probe):
                return probe, Role.REPLY
            if body.syn and not body.ack and body.sequence == self.series.sequence(probe):
                return probe, Role.REQUEST
        return number, None if number is None else Role.REQUEST

    def _udp(self, packet: IP, body: UDP, number: int | None) -> Role | None:
        series = self.series
        here, there = (packet.source, body.source_port), (packet.destination, body.destination_port)
        if here == (series.source, series.source_port):
            return Role.REQUEST
        # An answer keeps the port it goes to, whatever address translation did on the way there.
        if there == (series.source, series.source_port):
            return Role.REPLY
        back = number is not None or body.destination_port == series.source_port
        if back and here == (series.destination, series.port):
            return Role.REPLY
        if number is None:
            return None
        # Both addresses can be translated ones; the port of the probe mostly stays what it was.
        turned = body.destination_port == series.source_port != body.source_port
        return Role.REPLY if turned else Role.REQUEST

    def _by_address(self, packet: IP) -> Role:
        return Role.REPLY if packet.destination == self.series.source else Role.REQUEST

    def _complaint(self, sighting: Sighting, frame: Frame, error: ICMP) -> Seen | None:
        """An ICMP error, when what it quotes is ours."""
        quoted = error.quoted
        if quoted is None:
            return None
        body = quoted.innermost.body
        number = self._cookie(sighting.data)
        about_reply = False
        if isinstance(body, ICMP):
            number, role = self._echo(body, number)
            about_reply = role is Role.REPLY
        elif isinstance(body, TCP):
            number, about_reply = self._quoted_tcp(body, number)
        elif isinstance(body, UDP) and self.series.protocol is Protocol.UDP:
            role = self._udp(quoted.innermost, body, number)
            about_reply = role is Role.REPLY
            if role is None:
                return None
        elif number is None:
            return None
        if number is None and not isinstance(body, UDP):
            return None
        return Seen(
            sighting=sighting,
            frame=frame,
            role=Role.ERROR,
            probe=number,
            error=error,
            about_reply=about_reply,
        )

    def _quoted_tcp(self, body: TCP, number: int | None) -> tuple[int | None, bool]:
        for probe in range(self.series.count):
            if body.sequence == self.series.sequence(probe):
                return probe, False
            if body.acknowledgement in self.series.acknowledgements(probe):
                return probe, True
        return number, False


def _datagram(ip: IP) -> tuple[object, ...]:
    """What all fragments of a datagram share (RFC 791)."""
    return (ip.source, ip.destination, ip.protocol, ip.identification)


def recognise(sightings: Iterable[Sighting], series: Series) -> tuple[Seen, ...]:
    """What each sighting is, in the given order; what is not ours is left out."""
    recogniser = Recogniser(series)
    found = (recogniser.recognise(sighting) for sighting in sightings)
    return tuple(seen for seen in found if seen is not None)


def numbered(seen: Iterable[Seen], sent: Sequence[Sent]) -> tuple[Seen, ...]:
    """Give packets whose bytes do not tell the probe that of the last one sent before them."""

    def latest(time_ns: int) -> int | None:
        before = [each.probe for each in sent if each.errno is None and each.time_ns <= time_ns]
        return before[-1] if before else None

    return tuple(
        each
        if each.role is Role.ARP or each.probe is not None
        else replace(each, probe=latest(each.sighting.timestamp_ns))
        for each in seen
    )
