"""Matches of nftables rules against one packet: True, False, or None when nobody can say.

Format: libnftables-json(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol

if TYPE_CHECKING:
    from podwire.trace.flow import Packet

JSON = dict[str, Any]
L4 = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.ICMP: "icmp", Protocol.IPIP: "ipencap"}
NOT_HERE = object()
"""The packet has no such field, so a match on it is false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the packet meets the rules."""

    inode: int
    iif: str | None = None
    oif: str | None = None


def matches(statement: JSON, packet: Packet, at: Place) -> bool | None:
    """Whether one `match` statement fits."""
    left = _left(statement.get("left"), packet, at)
    if left is None:
        return None
    if left is NOT_HERE:
        return False
    equal = _equal(left, statement.get("right"))
    match statement.get("op"):
        case "==" | "in":
            return equal
        case "!=":
            return None if equal is None else not equal
        case _:
            return None


def _left(left: object, packet: Packet, at: Place) -> Any:
    """The packet's value for the left side; None: unknown."""
    if not isinstance(left, dict):
        return None
    if "payload" in left:
        return _payload(left["payload"], packet)
    if "meta" in left:
        names = {
            "iifname": at.iif or NOT_HERE,
            "oifname": at.oif or NOT_HERE,
            "iif": at.iif or NOT_HERE,
            "oif": at.oif or NOT_HERE,
            "l4proto": L4[packet.protocol],
            "nfproto": f"ipv{packet.source.version}",
            "protocol": "ip" if packet.source.version == 4 else "ip6",
        }
        return names.get(str(left["meta"].get("key")))
    if "ct" in left and left["ct"].get("key") == "state":
        return _conntrack_state(packet, at)
    return None


def _conntrack_state(packet: Packet, at: Place) -> str | None:
    """The first packet of a flow is new; its answer is known where the request came through."""
    if not packet.reply:
        return "new"
    return "established" if at.inode in packet.tracked else None


def _payload(payload: JSON, packet: Packet) -> Any:
    protocol, name = payload.get("protocol"), payload.get("field")
    if protocol == "ip" and packet.source.version == 4:
        fields: dict[Any, Any] = {
            "saddr": packet.source,
            "daddr": packet.destination,
            "protocol": L4[packet.protocol],
            "length": packet.length,
            "ttl": packet.ttl,
        }
        return fields.get(name)
    if protocol in {"tcp", "udp", "th"}:
        if protocol not in {"th", packet.protocol}:
            return NOT_HERE
        return {"sport": packet.source_port, "dport": packet.destination_port}.get(str(name))
    if protocol == "icmp":
        if packet.protocol is not Protocol.ICMP:
            return NOT_HERE
        kind = "echo-reply" if packet.reply else "echo-request"
        return {"type": kind, "code": 0}.get(str(name))
    if protocol == "ip6":
        return NOT_HERE
    return None


def _equal(left: Any, right: Any) -> bool | None:
    match right:
        case {"set": [*members]} | [*members]:
            found = [_equal(left, member) for member in members]
            return True if True in found else None if None in found else False
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            if isinstance(left, str | int):
                return None
            return bool(left in ip_network(f"{address}/{length}", strict=False))
        case {"range": [low, high]}:
            return _between(left, low, high)
        case dict():
            return None
        case str() if right.startswith("@"):
            return None
        case str() if right.endswith("*"):
            return str(left).startswith(right[:-1])
        case _:
            return _same(left, right)


def _between(left: Any, low: Any, high: Any) -> bool | None:
    if isinstance(left, int) and isinstance(low, int) and isinstance(high, int):
        return low <= left <= high
    try:
        return bool(ip_address(low) <= left <= ip_address(high))
    except (TypeError, ValueError):
        return None


def _same(left: object, right: object) -> bool | None:
    if isinstance(left, int) or isinstance(right, int):
        if isinstance(left, str):
            numbers = {L4[each]: number for each, number in PROTOCOL_NUMBERS.items()}
            return numbers[left] == right if left in numbers else None
        return left == right
    if left == "ipencap":
        return right in {"ipencap", "ipip", "ipv4"}
    return str(left) == right
