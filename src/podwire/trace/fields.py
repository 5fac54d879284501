"""Fields of a packet that rules ask for: headers, metadata, connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.trace import tracking
from podwire.trace.elements import HIDDEN, Doubtful, mac_number
from podwire.trace.flow import ICMP6, PROTOCOL_NUMBERS, Packet, Protocol
from podwire.trace.passage import Layer
from podwire.trace.rulenames import STATES, STATUSES

if TYPE_CHECKING:
    from podwire.trace.connection import Ends
    from podwire.trace.elements import Kind
    from podwire.trace.passage import Passage
    from podwire.trace.space import Space

JSON = dict[str, Any]
SYN, RST, ACK = 2, 4, 16
ETHERNET_HEADER, IPV6_HEADER = 14, 40
NET_TYPES = {"ipip": 768, "loopback": 772}


class Absent:
    """The packet has no such field."""


ABSENT = Absent()


def protocol_number(packet: Packet) -> int:
    """Of the header after IP's."""
    if packet.protocol is Protocol.ICMP and packet.source.version == 6:
        return ICMP6
    return PROTOCOL_NUMBERS[packet.protocol]


def header_field(inner: JSON, packet: Packet, passage: Passage) -> tuple[Any, Kind]:
    """A `payload` expression.

    Raises:
        Doubtful: the field is not modelled.
    """
    protocol, name = str(inner.get("protocol")), str(inner.get("field"))
    if protocol == "ether":
        return _ether(name, packet, passage)
    if protocol == "arp" or packet.protocol is Protocol.ARP:
        if protocol != "arp" or packet.protocol is not Protocol.ARP:
            return ABSENT, "number"
        found = _arp(packet, passage)
    elif protocol in {"ip", "ip6"}:
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
    elif protocol in {"sctp", "dccp", "udplite", "igmp", "ah", "esp", "comp", "vlan"}:
        return ABSENT, "number"
    else:
        found = {}
    if name not in found:
        raise Doubtful(f"looks at {protocol} {name}, which is not modelled")
    return found[name]


def _ether(name: str, packet: Packet, passage: Passage) -> tuple[Any, Kind]:
    """The frame's header; on its way through IP a packet keeps one that is not followed."""
    frame = passage.frame
    if passage.layer is Layer.IP:
        raise Doubtful(f"looks at ether {name} above Ethernet, which is not modelled")
    if frame is None:
        return ABSENT, "number"
    if name == "type":
        return ether_type(packet), "ethertype"
    address = frame.source if name == "saddr" else frame.destination
    if address is None:
        return HIDDEN, "mac"
    return mac_number(address), "mac"


def ether_type(packet: Packet) -> int:
    """What the frame says it carries."""
    if packet.protocol is Protocol.ARP:
        return 0x0806
    return 0x0800 if packet.source.version == 4 else 0x86DD


def _arp(packet: Packet, passage: Passage) -> dict[str, tuple[Any, Kind]]:
    found: dict[str, tuple[Any, Kind]] = {
        "operation": (2 if packet.reply else 1, "arp operation"),
        "htype": (1, "number"),
        "ptype": (0x0800, "ethertype"),
        "hlen": (6, "number"),
        "plen": (4, "number"),
        "saddr ip": (packet.source, "address"),
        "daddr ip": (packet.destination, "address"),
    }
    frame = passage.frame
    if frame is not None and frame.source is not None:
        asked = 0 if frame.is_group else mac_number(frame.destination)
        found["saddr ether"] = (mac_number(frame.source), "mac")
        found["daddr ether"] = (asked, "mac")
    return found


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
    kinds = (8, 0) if protocol == "icmp" else (135, 136) if packet.discovery else (128, 129)
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
    if key in _OF_THE_PACKET:
        return _of_the_packet(key, packet, passage)
    match key:
        case "iifname" | "iif":
            return passage.iif or "", "link"
        case "oifname" | "oif":
            return passage.oif or "", "link"
        case "pkttype":
            return passage.kind, "pkttype"
        case "ibrname" | "obrname" if passage.layer is Layer.BRIDGE:
            side = passage.iif if key == "ibrname" else passage.oif
            return (passage.bridge or "") if side else "", "link"
        case "iiftype" | "oiftype":
            return _link_type(passage.iif if key == "iiftype" else passage.oif, space), "iiftype"
        case "skuid" | "skgid" | "cgroup" if not passage.local:
            return ABSENT, "number"
        case "ipsec" | "secpath":
            return 0, "missing"
    raise Doubtful(f"looks at meta {key}, which is not modelled")


_OF_THE_PACKET = frozenset({"mark", "l4proto", "nfproto", "protocol", "length"})


def _of_the_packet(key: str, packet: Packet, passage: Passage) -> tuple[Any, Kind]:
    match key:
        case "mark":
            return packet.mark, "number"
        case "l4proto":
            if packet.protocol is Protocol.ARP:
                return ABSENT, "protocol"
            return protocol_number(packet), "protocol"
        case "nfproto":
            return (2 if packet.source.version == 4 else 10), "nfproto"
        case "protocol":
            return ether_type(packet), "ethertype"
    # Where frames leave a link their Ethernet header counts, too.
    ether = passage.hook == "egress" and passage.frame is not None
    return packet.length + (ETHERNET_HEADER if ether else 0), "number"


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
