"""nftables' messages about single objects: elements of sets, counters, base chains. Pure.

Whole tables go through the program `nft`; an element or two of a set must not cost a process.
Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers.netlink import nftables, wire
from podwire.drivers.netlink.nftables import FAMILIES, HEAD, NESTED
from podwire.drivers.netlink.wire import attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podwire.model.nftelement import Element

GETCHAIN, NEWCHAIN = 0x0A04, 0x0A03
GETOBJECT, NEWOBJECT = 0x0A13, 0x0A12
_NEWELEMENT, _DELELEMENT = 0x0A0C, 0x0A0E
_NEWGENERATION = 0x0A0F
_RULES = 0x0A
"""NFNL_SUBSYS_NFTABLES, the upper half of every message's number."""
_NUMBERS = {name: number for number, name in FAMILIES.items()}
_IFNAMSIZ = 16
_GOTO = 0xFFFFFFFC
_COUNTER, _FORWARD, _DROP = 1, 2, 0
"""NFT_OBJECT_COUNTER, NF_INET_FORWARD, NF_DROP."""
_BE32, _BE64 = Struct("!I"), Struct("!Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What a named counter counts, in one table."""

    family: str
    name: str
    packets: int
    bytes: int


def change_elements(deleted: Sequence[Element], added: Sequence[Element]) -> bytes:
    """One batch that takes elements away and puts others in: all of it, or nothing."""
    messages = [
        *(_about(_DELELEMENT, 0, each) for each in deleted),
        *(_about(_NEWELEMENT, wire.F_CREATE, each) for each in added),
    ]
    return nftables.batch(messages)


def _about(kind: int, flags: int, element: Element) -> tuple[int, int, bytes]:
    low, high = _key(element)
    parts = attribute(1 | NESTED, attribute(1, low))
    if kind == _NEWELEMENT and element.goto:
        verdict = attribute(1, _BE32.pack(_GOTO)) + wire.text(2, element.goto)
        parts += attribute(2 | NESTED, attribute(2 | NESTED, verdict))
    if element.interface and element.network is not None:
        # A set of several fields is one of ranges: `nft` pairs elements up that lack an end.
        parts += attribute(10 | NESTED, attribute(1, high))
    body = (
        wire.text(1, element.table)
        + wire.text(2, element.set)
        + attribute(3 | NESTED, attribute(1 | NESTED, parts))
    )
    return kind, flags, HEAD.pack(_NUMBERS[element.family], 0, 0) + body


def _key(element: Element) -> tuple[bytes, bytes]:
    """First and last key that the element stands for; each part fills whole registers."""
    low = high = element.interface.encode().ljust(_IFNAMSIZ, b"\0") if element.interface else b""
    if element.network is not None:
        low += element.network.network_address.packed
        high += element.network.broadcast_address.packed
    if element.mac:
        mac = wire.mac_bytes(element.mac) + bytes(2)
        low, high = low + mac, high + mac
    return low, high


def question(table: str = "") -> bytes:
    """The body that asks for all objects or chains, or those of one table's name."""
    return HEAD.pack(0, 0, 0) + (wire.text(1, table) if table else b"")


def decode_counter(data: bytes, start: int, end: int) -> Counter | None:
    """One object; None when it is no counter."""
    found = wire.attributes(data, start + HEAD.size, end)
    if 3 not in found or _BE32.unpack(found[3])[0] != _COUNTER:
        return None
    counted = wire.nested(found.get(4, b""))
    return Counter(
        family=FAMILIES.get(data[start], str(data[start])),
        name=wire.string(found.get(2, b"")),
        packets=_BE64.unpack(counted[2])[0] if 2 in counted else 0,
        bytes=_BE64.unpack(counted[1])[0] if 1 in counted else 0,
    )


def drops_forwarded(data: bytes, start: int, end: int) -> bool:
    """Whether a chain is one that drops forwarded packets unless a rule accepts them."""
    found = wire.attributes(data, start + HEAD.size, end)
    if 4 not in found or 5 not in found:
        return False
    hook = wire.nested(found[4])
    hook_number, policy = _BE32.unpack(hook[1])[0], _BE32.unpack(found[5])[0]
    forwards = FAMILIES.get(data[start]) in {"ip", "inet"} and hook_number == _FORWARD
    return bool(forwards and policy == _DROP)


@dataclass(frozen=True, slots=True)
class Touched:
    """What others have changed since one looked last."""

    ours: bool = False
    """A table of our name."""
    others: bool = False
    """Another table's chains or rules."""

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.ours or other.ours, self.others or other.others)


EVERYTHING = Touched(ours=True, others=True)
_OF_ELEMENTS = frozenset({_NEWELEMENT, _DELELEMENT})


def touched(data: bytes, table: str, own_ports: Iterable[int]) -> Touched:
    """What the messages of one datagram tell, those about our own requests left out."""
    own = frozenset(own_ports)
    ours = others = False
    for kind, _, _, port, start, end in wire.messages(data):
        if kind >> 8 != _RULES or kind == _NEWGENERATION or port in own:
            continue
        # NFTA_*_TABLE: the first attribute of every kind of message names the table.
        name = wire.string(wire.attributes(data, start + HEAD.size, end).get(1, b""))
        ours |= name == table
        others |= name != table and kind not in _OF_ELEMENTS
    return Touched(ours, others)
