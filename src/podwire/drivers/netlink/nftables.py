"""nftables' messages: a table of one's own, and what the kernel tells of traced packets. Pure.

Numbers are in network order here, other than in the rest of netlink. A change is a batch: all of it
is carried out, or nothing.
Source: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h, net/netfilter/nf_tables_trace.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.wire import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NETLINK_NETFILTER = 12
TRACE_GROUP = 9
"""NFNLGRP_NFTRACE."""
TRACE = 0x0A11
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_TRACE."""
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0x0A00, 0x0A03, 0x0A06
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
HEAD = Struct("!BBH")
"""nfgenmsg: family, version, resource."""
NESTED = 0x8000
"""NLA_F_NESTED."""
_BE32 = Struct("!I")

PREROUTING, OUTPUT = 0, 3
"""Hooks of IPv4 (NF_INET_*): where packets come in, and where the host's own begin."""
EARLIEST = -(1 << 31)
_OWNER = 0x2
"""NFT_TABLE_F_OWNER (Linux 5.12): the table belongs to the socket and ends with it."""
_L4PROTO, _NFTRACE = 16, 12
_TRANSPORT = 2
_REGISTER = 1
_VERDICT_REGISTER = 0
_ACCEPT = 1

VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", -1: "continue",
            -2: "break", -3: "jump", -4: "goto", -5: "return"}  # fmt: skip
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
KINDS = {1: "policy", 2: "return", 3: "rule"}
"""NFT_TRACETYPE_*."""


@dataclass(frozen=True, slots=True)
class Match:
    """Packets with this protocol and these bytes, counted from behind the (outer) IP header."""

    protocol: int
    fields: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One message about one traced packet."""

    id: int
    """The same for all messages about one packet in one namespace; used again later."""
    family: int
    table: str
    chain: str
    kind: str
    """rule, policy, return."""
    handle: int | None
    verdict: str
    target: str | None
    """Where a jump or goto leads."""
    iif: int | None
    oif: int | None
    network: bytes
    """The IP header; empty but in the first message of a base chain."""
    transport: bytes
    """Up to 20 bytes behind it."""


def owned_table(name: str, matches: Iterable[Match]) -> bytes:
    """The batch that makes an IPv4 table whose rules have matching packets traced.

    It hangs before everything else at prerouting and output, lets all pass, and is gone when the
    socket that sent this is closed, however that comes about.
    """
    matches = tuple(matches)
    flags = attribute(2, _BE32.pack(_OWNER))
    create = wire.F_CREATE | wire.F_EXCL
    messages = [(_NEWTABLE, create, wire.text(1, name) + flags)]
    for chain, hook in (("arriving", PREROUTING), ("leaving", OUTPUT)):
        messages.append((_NEWCHAIN, create, _base_chain(name, chain, hook)))
        messages += [
            (_NEWRULE, wire.F_CREATE | wire.F_APPEND, _rule(name, chain, match))
            for match in matches
        ]
    family = HEAD.pack(wire.AF_INET, 0, 0)
    return batch([(kind, flags, family + body) for kind, flags, body in messages])


def batch(messages: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Numbers, flags and bodies as one batch, whose last message alone is acknowledged."""
    parts = [_message(_BATCH_BEGIN, 0, 0, HEAD.pack(0, 0, _SUBSYSTEM))]
    for number, (kind, flags, body) in enumerate(messages, start=1):
        last = wire.F_ACK if number == len(messages) else 0
        parts.append(_message(kind, flags | last, number, body))
    parts.append(_message(_BATCH_END, 0, len(messages) + 1, HEAD.pack(0, 0, _SUBSYSTEM)))
    return b"".join(parts)


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    length = 16 + len(payload)
    head = wire.HEADER.pack(length, kind, wire.F_REQUEST | flags, sequence, 0)
    return head + payload + wire.PADDING[length & 3]


def _base_chain(table: str, name: str, hook: int) -> bytes:
    place = attribute(1, _BE32.pack(hook)) + attribute(2, _BE32.pack(EARLIEST & 0xFFFFFFFF))
    return (
        wire.text(1, table)
        + wire.text(3, name)
        + attribute(4 | NESTED, place)
        + attribute(5, _BE32.pack(_ACCEPT))
        + wire.text(7, "filter")
    )


def _rule(table: str, chain: str, match: Match) -> bytes:
    steps = [_meta(2, _L4PROTO), _compare(bytes((match.protocol,)))]
    for offset, value in match.fields:
        steps += [_load(offset, len(value)), _compare(value)]
    steps += [_immediate(b"\x01"), _meta(3, _NFTRACE), _accept()]
    body = b"".join(attribute(1 | NESTED, step) for step in steps)
    return wire.text(1, table) + wire.text(2, chain) + attribute(4 | NESTED, body)


def _expression(name: str, body: bytes) -> bytes:
    return wire.text(1, name) + attribute(2 | NESTED, body)


def _numbers(*values: int) -> bytes:
    """Attributes 1, 2, 3 … with one number each."""
    return b"".join(attribute(kind, _BE32.pack(value)) for kind, value in enumerate(values, 1))


def _meta(which: int, key: int) -> bytes:
    """Into the register (which = 2: the key follows it), or out of it (3)."""
    register = attribute(1 if which == 2 else 3, _BE32.pack(_REGISTER))
    return _expression("meta", register + attribute(2, _BE32.pack(key)))


def _load(offset: int, size: int) -> bytes:
    return _expression("payload", _numbers(_REGISTER, _TRANSPORT, offset, size))


def _compare(value: bytes) -> bytes:
    data = attribute(3 | NESTED, attribute(1, value))
    return _expression("cmp", _numbers(_REGISTER, 0) + data)


def _immediate(value: bytes) -> bytes:
    data = attribute(2 | NESTED, attribute(1, value))
    return _expression("immediate", _numbers(_REGISTER) + data)


def _accept() -> bytes:
    verdict = attribute(2 | NESTED, attribute(1, _BE32.pack(_ACCEPT)))
    return _expression("immediate", _numbers(_VERDICT_REGISTER) + attribute(2 | NESTED, verdict))


def decode_trace(data: bytes, start: int, end: int) -> Traced:
    """One message of type TRACE.

    Raises:
        Malformed: it is not one.
    """
    found = wire.attributes(data, start + HEAD.size, end)
    verdict = wire.nested(found.get(5, b""))
    code = _number(verdict.get(1)) if 5 in found else _number(found.get(16))
    # NF_QUEUE and errors of NF_DROP carry more in the upper half.
    signed = code - (1 << 32) if code >= 1 << 31 else code & 0xFF
    handle = found.get(3)
    return Traced(
        id=_number(found.get(6)),
        family=data[start],
        table=wire.string(found.get(1, b"")),
        chain=wire.string(found.get(2, b"")),
        kind=KINDS.get(_number(found.get(4)), "other"),
        handle=None if handle is None else int.from_bytes(handle, "big"),
        verdict=VERDICTS.get(signed, str(signed)),
        target=wire.string(verdict[2]) if 2 in verdict else None,
        iif=_number(found.get(10)) or None,
        oif=_number(found.get(12)) or None,
        network=found.get(8, b""),
        transport=found.get(9, b""),
    )


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value[:4], "big")
