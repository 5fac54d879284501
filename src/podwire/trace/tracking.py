"""Tracking: which connection a packet belongs to, in the namespace it is in.

Follows nf_conntrack_in: an entry whose tuple fits is used, else the packet makes one; an answer
nobody waits for makes none and is *invalid*.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podwire.model.kernelstate import Missing
from podwire.trace.connection import DESTINATION, SOURCE, Ends, Track
from podwire.trace.flow import Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.trace.flow import Complaint, Packet
    from podwire.trace.space import Space

NUMBERS = {"1": "icmp", "4": "ipip", "6": "tcp", "17": "udp", "58": "icmp"}
"""By the number in the second column of `conntrack -L`."""


def tracked(space: Space, packet: Packet) -> Packet:
    """The packet with its connection."""
    if packet.untracked or packet.track is not None:
        return packet
    if packet.complaint is not None:
        return _related(space, packet, packet.complaint)
    ends = packet.ends
    for track in (*packet.tracks, *_known(space, packet)):
        if track.inode != space.inode:
            continue
        if ends == track.original and not (packet.protocol is Protocol.ICMP and packet.reply):
            return packet.with_track(replace(track, turned=False))
        if ends == track.reply:
            return packet.with_track(replace(track, turned=True, answered=True))
    if packet.reply and packet.protocol in {Protocol.ICMP, Protocol.TCP}:
        return packet
    made = Track(inode=space.inode, original=ends, reply=ends.turned())
    return packet.with_track(made)


def _related(space: Space, packet: Packet, complaint: Complaint) -> Packet:
    """An ICMP error goes with the connection of what it quotes (nf_conntrack_inet_error)."""
    answer = complaint.about.turned()
    for track in packet.tracks:
        if track.inode == space.inode and answer in {track.original, track.reply}:
            return packet.with_track(replace(track, turned=answer == track.reply))
    return packet


def state(space: Space, packet: Packet) -> str | None:
    """What `ct state` reads; None when it depends on traffic of the past."""
    track = packet.track
    if packet.untracked:
        return "untracked"
    if track is None:
        return "invalid"
    if packet.complaint is not None:
        return "related"
    if track.turned or track.answered:
        return "established"
    if packet.protocol is Protocol.IPIP and isinstance(space.state.conntrack, Missing):
        return None
    return "new"


def _known(space: Space, packet: Packet) -> list[Track]:
    """Entries of the namespace's table that may be the packet's."""
    if packet.protocol is Protocol.ICMP or isinstance(space.state.conntrack, Missing):
        # A ping has an identifier of its own and meets no old entry.
        return []
    found = space.memory.get("conntrack")
    if not isinstance(found, dict):
        found = _indexed(space.inode, space.state.conntrack.value)
        space.memory["conntrack"] = found
    return list(found.get(packet.ends, ()))


def _indexed(inode: int, lines: tuple[str, ...]) -> Mapping[Ends, list[Track]]:
    found: dict[Ends, list[Track]] = defaultdict(list)
    for line in lines:
        track = parse(inode, line)
        if track is not None:
            found[track.original].append(track)
            found[track.reply].append(track)
    return found


def parse(inode: int, line: str) -> Track | None:
    """One line of `conntrack -L`; None when it is of a protocol that no probe has."""
    words = line.split()
    if words[:1] in (["ipv4"], ["ipv6"]):  # /proc/net/nf_conntrack and `-o extended` begin so
        words = words[2:]
    protocol = NUMBERS.get(words[1]) if len(words) > 1 else None
    values: dict[str, list[str]] = defaultdict(list)
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            values[name].append(value)
    if protocol is None or len(values["src"]) < 2 or len(values["dst"]) < 2:
        return None
    sides = []
    for side in (0, 1):
        ports = [values[name][side] if len(values[name]) > side else None
                 for name in ("sport", "dport")]  # fmt: skip
        sides.append(
            Ends(
                protocol=protocol,
                source=ip_address(values["src"][side]),
                destination=ip_address(values["dst"][side]),
                source_port=None if ports[0] is None else int(ports[0]),
                destination_port=None if ports[1] is None else int(ports[1]),
            )
        )
    return Track(
        inode=inode,
        original=sides[0],
        reply=sides[1],
        mark=int(values["mark"][0]) if values["mark"] else 0,
        answered="[UNREPLIED]" not in words,
        assured="[ASSURED]" in words,
        settled=frozenset({SOURCE, DESTINATION}),
    )


def translated(packet: Packet, manipulation: str) -> Packet:
    """The packet after its connection's NAT of one kind (nf_nat_packet)."""
    track = packet.track
    if track is None:
        return packet
    # What the other direction is addressed to, or comes from, is what this one has to say.
    other = track.original if track.turned else track.reply
    if packet.complaint is not None:
        return _error_translated(packet, packet.complaint, track, manipulation)
    if manipulation == DESTINATION:
        return replace(packet, destination=other.source, destination_port=other.source_port)
    return replace(packet, source=other.destination, source_port=other.destination_port)


def _error_translated(
    packet: Packet, complaint: Complaint, track: Track, manipulation: str
) -> Packet:
    """An ICMP error, its quote with it, where its connection is translated and only there.

    Follows nf_nat_icmp_reply_translation.
    """
    other = track.original if track.turned else track.reply
    told = replace(complaint, about=other)
    if manipulation == DESTINATION and track.is_source_changed:
        return replace(packet, destination=other.source, complaint=told)
    if manipulation == SOURCE and track.is_destination_changed:
        return replace(packet, source=other.destination, complaint=told)
    return packet
