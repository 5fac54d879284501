"""Connection tracking: forget what the kernel remembers about an address.

An entry that outlives its pod would send packets of the address's next owner the old way (through
an old NAT, past a policy). Acts in the network namespace of the calling thread.
Source: net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers import sysctl
from podwire.drivers.netlink import wire
from podwire.errors import Forbidden, KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podwire.model.addressing import IPAddress

NETLINK_NETFILTER = 12
GET, DELETE = 0x101, 0x102
"""Subsystem ctnetlink (1) and its message."""
_HEAD = Struct("!BBH")
"""nfgenmsg: family, version, resource."""
_NESTED = 0x8000
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP = 1
_SOURCE = {4: 1, 6: 3}
_MATCH_SOURCE = 1
_BUFFER = 1 << 16
_COUNT = "net/netfilter/nf_conntrack_count"
"""Entries of this namespace alone; some namespaces do not have it."""

# Not built or not loaded: then nothing is tracked that could be in the way.
_NO_TRACKING = frozenset({errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP})


def delete_entries(addresses: Iterable[IPAddress]) -> int:
    """Delete the entries of connections that an address began or was the server of; how many.

    The kernel filters the listing, each entry found is compared once more and deleted by itself:
    a kernel too old for the filter (before 5.8) costs time and never a foreign entry.

    Raises:
        Forbidden: the caller lacks CAP_NET_ADMIN.
        KernelError: the kernel refuses otherwise.
    """
    # A listing walks the kernel's whole table, which all namespaces share: milliseconds.
    if sysctl.read(_COUNT) == "0":
        return 0
    try:
        door = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
    except OSError as error:
        if error.errno in _NO_TRACKING:
            return 0
        raise
    with door:
        return sum(
            _delete(door, address, entry)
            for address in addresses
            for direction in (_ORIGINAL, _REPLY)
            for entry in _find(door, address, direction)
        )


def _find(door: socket.socket, address: IPAddress, direction: int) -> list[bytes]:
    """What names each entry whose packets of that direction come from the address."""
    source = wire.attribute(_SOURCE[address.version], address.packed)
    body = wire.attribute(direction | _NESTED, wire.attribute(_TUPLE_IP | _NESTED, source))
    flags = wire.number(direction, _MATCH_SOURCE)
    body += wire.attribute(_FILTER | _NESTED, flags)
    found: list[bytes] = []
    for data, start, end in _ask(door, GET, wire.F_DUMP, address, body):
        fields = wire.attributes(data, start + _HEAD.size, end)
        if _source_of(fields.get(direction, b"")) == address.packed and _ORIGINAL in fields:
            found.append(_named(fields))
    return found


def _source_of(direction: bytes) -> bytes | None:
    found = wire.nested(wire.nested(direction).get(_TUPLE_IP, b""))
    return found.get(_SOURCE[4]) or found.get(_SOURCE[6])


def _named(fields: dict[int, bytes]) -> bytes:
    """The attributes that name one entry; its ID keeps a newer one with the same ends safe."""
    named = wire.attribute(_ORIGINAL | _NESTED, fields[_ORIGINAL])
    return named + b"".join(
        wire.attribute(kind, fields[kind]) for kind in (_ID, _ZONE) if kind in fields
    )


def _delete(door: socket.socket, address: IPAddress, entry: bytes) -> int:
    try:
        list(_ask(door, DELETE, wire.F_ACK, address, entry))
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0  # it ended by itself
    return 1


def _ask(
    door: socket.socket, kind: int, flags: int, address: IPAddress, body: bytes
) -> Iterator[tuple[bytes, int, int]]:
    """Send one message and yield what comes back until the kernel says that this was all."""
    payload = _HEAD.pack(wire.family_of(address), 0, 0) + body
    head = wire.HEADER.pack(16 + len(payload), kind, wire.F_REQUEST | flags, 1, 0)
    door.send(head + payload)
    while True:
        data = door.recv(_BUFFER)
        for got, _, _, _, begin, end in wire.messages(data):
            if got not in {wire.NLMSG_ERROR, wire.NLMSG_DONE}:
                yield data, begin, end
                continue
            number = -wire.i32(data[begin : begin + 4]) if end - begin >= 4 else 0
            if number in {errno.EPERM, errno.EACCES}:
                raise Forbidden("conntrack may not be changed", fix="run as root")
            if number and number not in _NO_TRACKING:
                subject = f"conntrack entries of {address}"
                raise KernelError(
                    f"{subject}: {os.strerror(number)}", errno=number, subject=subject
                )
            return
