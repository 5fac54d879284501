"""Netlink's bytes: headers, attributes, addresses. Pure.

A message is a header, a fixed body and attributes; all padded to four bytes, in the byte order of
the machine, addresses and ports in network order.
Source: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour,fib_rules,net_namespace}.h.
"""

from __future__ import annotations

import errno
import re
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from struct import error as StructError  # noqa: N812  # it is an exception class
from typing import TYPE_CHECKING

from podwire.errors import BadInput, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.addressing import IPAddress

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10

HEADER = Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence number, port."""
ATTRIBUTE = Struct("=HH")
"""nlattr: length with these four bytes, type."""
LINK = Struct("=BxHiII")
"""ifinfomsg: family, ARPHRD type, index, flags, mask of flags to change."""
ADDRESS = Struct("=BBBBI")
"""ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = Struct("=BBBBBBBBI")
"""rtmsg: family, dst length, src length, tos, table, protocol, scope, type, flags."""
RULE = ROUTE
"""fib_rule_hdr: family, dst length, src length, tos, table, 0, 0, action, flags."""
NEIGHBOUR = Struct("=BxxxiHBB")
"""ndmsg: family, index, state, flags, type."""
NEXT_HOP = Struct("=HBBi")
"""rtnexthop: length, flags, weight - 1, index."""
NEXT_HOP_OBJECT = Struct("=BBBxI")
"""nhmsg: family, scope, protocol, flags."""
GROUP_MEMBER = Struct("=IBBH")
"""nexthop_grp: number of the object, weight - 1, its upper eight bits, 0."""
NAMESPACE = Struct("=Bxxx")
"""rtgenmsg, padded."""

U8, U16, U32, I32 = Struct("=B"), Struct("=H"), Struct("=I"), Struct("=i")
BE16 = Struct(">H")

NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
F_REQUEST, F_MULTI, F_ACK, F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
F_DUMP, F_REPLACE, F_EXCL, F_CREATE, F_APPEND = 0x300, 0x100, 0x200, 0x400, 0x800
F_CAPPED, F_ACK_TLVS = 0x100, 0x200

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
NEWNEXTHOP, GETNEXTHOP = 104, 106
NEWNSID, DELNSID, GETNSID = 88, 89, 90

TYPE_MASK = 0x3FFF
"""The upper two bits of an attribute's type are flags (nested, network order)."""

PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")

NAME_MAX = 15
"""Bytes of an interface name (IFNAMSIZ - 1)."""
ALIAS_MAX = 255


class Malformed(KernelError):
    """A message that does not hold what its type promises."""

    def __init__(self, what: str) -> None:
        super().__init__(f"netlink {what} cannot be read", errno=errno.EBADMSG, subject=what)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(value)
    return ATTRIBUTE.pack(length, kind) + value + PADDING[length & 3]


def number(kind: int, value: int) -> bytes:
    """An attribute that holds an unsigned 32-bit number."""
    return _NUMBER.pack(8, kind, value)


_NUMBER = Struct("=HHI")


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a string with its final zero byte."""
    return attribute(kind, value.encode() + b"\0")


def name(kind: int, value: str) -> bytes:
    """An attribute that holds an interface name.

    Raises:
        BadInput: no interface can have that name (dev_valid_name in net/core/dev.c).
    """
    size = len(value.encode())
    if not 0 < size <= NAME_MAX or value in {".", ".."} or re.search(r"[/:\s\0]", value):
        raise BadInput(
            f"{value!r} cannot name an interface",
            fix=f"use 1 to {NAME_MAX} bytes without slash, colon or space",
        )
    return text(kind, value)


def alias_bytes(value: str) -> bytes:
    """An interface alias as the kernel takes it.

    Raises:
        BadInput: it is longer than the kernel keeps.
    """
    data = value.encode()
    if len(data) > ALIAS_MAX:
        raise BadInput(f"interface alias {value[:40]!r}… is longer than {ALIAS_MAX} bytes")
    return data


def mac(kind: int, value: str) -> bytes:
    """An attribute that holds a MAC address.

    Raises:
        BadInput: it is not six hex bytes with colons.
    """
    return attribute(kind, mac_bytes(value))


def mac_bytes(value: str) -> bytes:
    """Six bytes from `ee:ee:ee:ee:ee:ee`.

    Raises:
        BadInput: it is not six hex bytes with colons.
    """
    if _MAC.fullmatch(value) is None:
        raise BadInput(f"{value!r} is not a MAC address", fix="write it like ee:ee:ee:ee:ee:ee")
    return bytes.fromhex(value.replace(":", ""))


def family_of(address: IPAddress) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6


def attributes(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Values by attribute type (flags removed) in data[start:end]; of doubles the last wins.

    Raises:
        Malformed: an attribute reaches beyond the end.
    """
    found: dict[int, bytes] = {}
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(data, start)
        if length < 4 or start + length > end:
            raise Malformed("attribute")
        found[kind & 0x3FFF] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def nested(value: bytes) -> dict[int, bytes]:
    """Attributes inside an attribute."""
    return attributes(value, 0, len(value))


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(type, flags, sequence, port, start and end of the body) of each message of a datagram.

    Raises:
        Malformed: a message reaches beyond the end.
    """
    start, size = 0, len(data)
    while start + 16 <= size:
        length, kind, flags, sequence, port = HEADER.unpack_from(data, start)
        if length < 16 or start + length > size:
            raise Malformed("message")
        yield kind, flags, sequence, port, start + 16, start + length
        start += (length + 3) & ~3


def ip(value: bytes) -> IPAddress:
    """The address of four or sixteen bytes.

    Raises:
        Malformed: another length.
    """
    if len(value) == 4:
        return IPv4Address(int.from_bytes(value, "big"))
    if len(value) == 16:
        return IPv6Address(int.from_bytes(value, "big"))
    raise Malformed("address")


def u8(value: bytes) -> int:
    """An unsigned byte."""
    return _unpacked(U8, value)


def u16(value: bytes) -> int:
    """An unsigned 16-bit number."""
    return _unpacked(U16, value)


def u32(value: bytes) -> int:
    """An unsigned 32-bit number."""
    return _unpacked(U32, value)


def i32(value: bytes) -> int:
    """A signed 32-bit number."""
    return _unpacked(I32, value)


def be16(value: bytes) -> int:
    """A port number in network order."""
    return _unpacked(BE16, value)


def string(value: bytes) -> str:
    """Text without its final zero byte."""
    return value.rstrip(b"\0").decode(errors="replace")


def mac_text(value: bytes) -> str | None:
    """Lower-case text of a six-byte address; None for any other length."""
    return value.hex(":") if len(value) == 6 else None


def _unpacked(shape: Struct, value: bytes) -> int:
    try:
        found: int = shape.unpack_from(value)[0]
    except StructError:
        raise Malformed("number") from None
    return found
