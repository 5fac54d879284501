"""rtnetlink messages → nexthop objects. Pure.

Source: nh_fill_node (net/ipv4/nexthop.c), include/uapi/linux/nexthop.h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.wire import Malformed, attributes
from podwire.model.route import NextHop

if TYPE_CHECKING:
    from collections.abc import Iterable

_ID, _GROUP, _BLACKHOLE, _OIF, _GATEWAY, _ENCAP = 1, 2, 4, 5, 6, 8
_F_DEAD, _F_ONLINK = 1, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHopObject:
    """One object: a next hop, or a group of other objects."""

    number: int
    hop: NextHop | None = None
    """None for a group, for one that discards packets, and for what is not modelled."""
    members: tuple[tuple[int, int], ...] = ()
    """Number and weight."""


def decode_nexthop(data: bytes, start: int, end: int) -> NextHopObject:
    """An object from RTM_NEWNEXTHOP."""
    if start + wire.NEXT_HOP_OBJECT.size > end:
        raise Malformed("nexthop object")
    flags = wire.NEXT_HOP_OBJECT.unpack_from(data, start)[3]
    found = attributes(data, start + wire.NEXT_HOP_OBJECT.size, end)
    number = wire.u32(found.get(_ID, b""))
    if _GROUP in found:
        return NextHopObject(number=number, members=tuple(_members(found[_GROUP])))
    if _OIF not in found or _ENCAP in found or _BLACKHOLE in found:
        return NextHopObject(number=number)
    gateway = found.get(_GATEWAY)
    hop = NextHop(
        device=wire.u32(found[_OIF]),
        gateway=None if gateway is None else wire.ip(gateway),
        onlink=bool(flags & _F_ONLINK),
        dead=bool(flags & _F_DEAD),
    )
    return NextHopObject(number=number, hop=hop)


def _members(value: bytes) -> Iterable[tuple[int, int]]:
    size = wire.GROUP_MEMBER.size
    for start in range(0, len(value) - size + 1, size):
        number, low, high, _ = wire.GROUP_MEMBER.unpack_from(value, start)
        yield number, (high << 8 | low) + 1


def resolve(objects: Iterable[NextHopObject]) -> dict[int, tuple[NextHop, ...]]:
    """Next hops by number, groups taken apart."""
    listed = list(objects)
    single = {each.number: each.hop for each in listed if each.hop is not None}
    found: dict[int, tuple[NextHop, ...]] = {number: (hop,) for number, hop in single.items()}
    for each in listed:
        if each.members and all(number in single for number, _ in each.members):
            found[each.number] = tuple(
                replace(single[number], weight=weight) for number, weight in each.members
            )
    return found
