"""The connection table of the calling thread's network namespace, as `conntrack -L` prints it.

Source: net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct

from podwire.drivers import sysctl
from podwire.drivers.netlink import wire
from podwire.drivers.rulesets import NETLINK_NETFILTER, dump
from podwire.errors import Forbidden, KernelError

MAX_ENTRIES = 50_000
"""More are not read: a listing walks the table of all namespaces, at microseconds an entry."""
_COUNT = "net/netfilter/nf_conntrack_count"
_NEW, _GET = 0x100, 0x101
_HEAD = Struct("!BBH")
_ORIGINAL, _REPLY, _STATUS, _MARK = 1, 2, 3, 8
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_SEEN_REPLY, _ASSURED = 2, 4
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_NO_TRACKING = frozenset({errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP})


def read_connections() -> tuple[str, ...]:
    """All entries, one line each; none where the kernel tracks nothing.

    Raises:
        Forbidden: the caller lacks CAP_NET_ADMIN.
        KernelError: the kernel refuses otherwise, or the table is too long to be read.
    """
    count = sysctl.read(_COUNT)
    if count == "0":
        return ()
    if count is not None and int(count) > MAX_ENTRIES:
        raise KernelError(
            f"conntrack holds {count} entries, more than the {MAX_ENTRIES} that are read",
            errno=errno.E2BIG,
            subject="conntrack",
        )
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        ) as door:
            door.bind((0, 0))
            found = dump(door, _GET, _HEAD.pack(0, 0, 0), _NEW)
    except OSError as error:
        if error.errno in _NO_TRACKING:
            return ()
        if error.errno in {errno.EPERM, errno.EACCES}:
            raise Forbidden("conntrack may not be read", fix="this needs CAP_NET_ADMIN") from None
        number = error.errno or errno.EIO
        raise KernelError(
            f"list conntrack: {os.strerror(number)}", errno=number, subject="conntrack"
        ) from None
    return tuple(
        _line(wire.attributes(data, start + _HEAD.size, end)) for data, start, end in found
    )


def _line(fields: dict[int, bytes]) -> str:
    original, reply = wire.nested(fields[_ORIGINAL]), wire.nested(fields[_REPLY])
    number = wire.u8(wire.nested(original[_TUPLE_PROTOCOL])[_NUMBER])
    status = int.from_bytes(fields.get(_STATUS, b"\0"), "big")
    words = [_NAMES.get(number, "unknown"), str(number), *_ends(original)]
    if not status & _SEEN_REPLY:
        words.append("[UNREPLIED]")
    words += _ends(reply)
    if status & _ASSURED:
        words.append("[ASSURED]")
    words.append(f"mark={int.from_bytes(fields.get(_MARK, bytes(4)), 'big')}")
    return " ".join(words)


def _ends(direction: dict[int, bytes]) -> list[str]:
    addresses = wire.nested(direction[_TUPLE_IP])
    protocol = wire.nested(direction[_TUPLE_PROTOCOL])
    found = []
    for name, kinds in (("src", _SOURCES), ("dst", _DESTINATIONS)):
        found += [f"{name}={wire.ip(addresses[kind])}" for kind in kinds if kind in addresses]
    for name, kind in (("sport", _SOURCE_PORT), ("dport", _DESTINATION_PORT)):
        if kind in protocol:
            found.append(f"{name}={wire.be16(protocol[kind])}")
    return found
