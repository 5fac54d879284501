"""Fields of a packet that rules ask for: headers, metadata, connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.trace import tracking
from podwire.trace.elements import HIDDEN, Doubtful
from podwire.trace.flow import ICMP6, PROTOCOL_NUMBERS, Packet, Protocol
from podwire.trace.rulenames import STATES, STATUSES

if TYPE_CHECKING:
    from podwire.trace.connection import Ends
    from podwire.trace.elements import Kind
    from podwire.trace.passage import Passage
    from podwire.trace.space import Space

JSON = dict[str, Any]
SYN, RST, ACK = 2, 4, 16
IPV6_HEADER = 40
NET_TYPES = {"ipip": 768, "loopback": 772}


class Absent:
    """The packet has no such field."""


ABSENT = Absent()


def protocol_number(packet: Packet) -> int:
    """Of the header after IP's."""
    if packet.protocol is Protocol.ICMP and packet.source.version == 6:
        return ICMP6
    return PROTOCOL_NUMBERS[packet.protocol]


def header_field(inner: JSON, packet: Packet) -> tuple[Any, Kind]:
    """A `payload` expression.

    Raises:
        Doubtful: the field is not modelled.
    """
    protocol, name = str(inner.get("protocol")), str(inner.get("field"))
    if protocol in {"ip", "ip6"}:
        if packet.source.version != (4 if protocol == "ip" else 6):
            return ABSENT, "number"
        found = _ip(packet) if protocol == "ip" else _ip6(packet)
    elif protocol in {"tcp", "udp", "th"}:
        if protocol not in {"th", packet.protocol}:
            return ABSENT, "number"
        found = _ports(packet)
    elif protocol in {"icmp", "icmpv6"}:
        if protocol_number(packet) != (1 if protocol == "icmp" else ICMP6):
            return ABSENT, "number"
        found = _icmp(packet, protocol)
    elif protocol in {"sctp", "dccp", "udplite", "igmp", "ah", "esp", "comp"}:
        return ABSENT, "number"
    else:
        found = {}
    if name not in found:
        raise Doubtful(f"looks at {protocol} {name}, which is not modelled")
    return found[name]


def _ip(packet: Packet) -> dict[str, tuple[Any, Kind]]:
    fragment = 0x4000 if packet.df else 0
    return {
        "saddr": (packet.source, "address"),
        "daddr": (packet.destination, "address"),
        "protocol": (protocol_number(packet), "protocol"),
        "length": (packet.length, "number"),
        "ttl": (packet.ttl, "number"),
        "version": (4, "number"),
        "hdrlength": (5, "number"),
        "dscp": (0, "dscp"),
        "ecn": (0, "number"),
        "frag-off": (fragment, "number"),
    }


def _ip6(packet: Packet) -> dict[str, tuple[Any, Kind]]:
    return {
        "saddr": (packet.source, "address"),
        "daddr": (packet.destination, "address"),
        "nexthdr": (protocol_number(packet), "protocol"),
        "length": (packet.length - IPV6_HEADER, "number"),
        "hoplimit": (packet.ttl, "number"),
        "version": (6, "number"),
        "dscp": (0, "dscp"),
        "ecn": (0, "number"),
    }


def _ports(packet: Packet) -> dict[str, tuple[Any, Kind]]:
    def known(port: int | None) -> Any:
        return HIDDEN if port is None else port

    found: dict[str, tuple[Any, Kind]] = {
        "sport": (known(packet.source_port), "number"),
        "dport": (known(packet.destination_port), "number"),
    }
    if packet.protocol is Protocol.TCP:
        # A probe opens a connection; its answer is the second packet of the handshake.
        answer = RST if packet.reset else SYN
        found["flags"] = (answer | ACK if packet.reply else SYN, "tcp flags")
    return found


def _icmp(packet: Packet, protocol: str) -> dict[str, tuple[Any, Kind]]:
    kinds = (8, 0) if protocol == "icmp" else (128, 129)
    said = packet.complaint
    return {
        "type": (kinds[packet.reply] if said is None else said.type, f"{protocol} type"),
        "code": (0 if said is None else said.code, f"{protocol} code"),
    }


def meta_field(key: str, packet: Packet, passage: Passage, space: Space) -> tuple[Any, Kind]:
    """A `meta` expression; a link that the hook does not have reads as an empty name.

    Raises:
        Doubtful: the field is not modelled.
    """
    version = packet.source.version
    match key:
        case "iifname" | "iif":
            return passage.iif or "", "link"
        case "oifname" | "oif":
            return passage.oif or "", "link"
        case "mark":
            return packet.mark, "number"
        case "l4proto":
            return protocol_number(packet), "protocol"
        case "nfproto":
            return (2 if version == 4 else 10), "nfproto"
        case "protocol":
            return (0x0800 if version == 4 else 0x86DD), "ethertype"
        case "length":
            return packet.length, "number"
        case "pkttype":
            return 0, "pkttype"
        case "iiftype" | "oiftype":
            return _link_type(passage.iif if key == "iiftype" else passage.oif, space), "iiftype"
        case "skuid" | "skgid" | "cgroup" if not passage.local:
            return ABSENT, "number"
        case "ipsec" | "secpath":
            return 0, "missing"
    raise Doubtful(f"looks at meta {key}, which is not modelled")


def _link_type(name: str | None, space: Space) -> Any:
    link = None if name is None else space.links_by_name.get(name)
    if link is None:
        return ABSENT
    return 772 if link.loopback else NET_TYPES.get(link.kind or "", 1)


def connection_field(inner: JSON, packet: Packet, space: Space) -> tuple[Any, Kind]:
    """A `ct` expression.

    Raises:
        Doubtful: the field, or the state, is not known.
    """
    key = str(inner.get("key"))
    if key == "state":
        state = tracking.state(space, packet)
        if state is None:
            raise Doubtful("asks for the state of a connection that may be an old one")
        return STATES[state], "state"
    track = packet.track
    if track is None:
        return ABSENT, "number"
    direction = inner.get("dir")
    match key:
        case "status":
            return _status(packet), "status"
        case "direction":
            return int(track.turned), "direction"
        case "mark":
            return track.mark, "number"
        case "zone":
            return 0, "number"
        case "l3proto":
            return (2 if packet.source.version == 4 else 10), "nfproto"
        case "protocol":
            return protocol_number(packet), "protocol"
    if direction in {"original", "reply"}:
        return _tuple_field(key, track.original if direction == "original" else track.reply)
    raise Doubtful(f"looks at ct {key}, which is not modelled")


def _status(packet: Packet) -> int:
    track = packet.track
    assert track is not None
    bits = STATUSES["confirmed"] if track.answered else 0
    bits |= STATUSES["seen-reply"] if track.answered else 0
    bits |= STATUSES["assured"] if track.assured else 0
    bits |= STATUSES["dnat"] if track.is_destination_changed else 0
    return bits | (STATUSES["snat"] if track.is_source_changed else 0)


def _tuple_field(key: str, ends: Ends) -> tuple[Any, Kind]:
    found: dict[str, tuple[Any, Kind]] = {
        "saddr": (ends.source, "address"),
        "daddr": (ends.destination, "address"),
        "proto-src": (ends.source_port, "number"),
        "proto-dst": (ends.destination_port, "number"),
    }
    name = key.rpartition(" ")[2]
    if name not in found:
        raise Doubtful(f"looks at ct {key}, which is not modelled")
    value, kind = found[name]
    return (HIDDEN if value is None else value), kind
