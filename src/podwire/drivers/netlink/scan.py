"""Scan: a routing table read one datagram at a time.

Listing 10,000 routes at once would keep everybody waiting for a fifth of a second; a scan is taken
up between other work. Each datagram holds at most a few hundred routes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.refusal import error_number, explanation, refused
from podwire.drivers.netlink.route_decode import decode_route
from podwire.drivers.netlink.session import open_socket
from podwire.drivers.netlink.wire import number
from podwire.model.route import MAIN_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.route import Route

RTA_TABLE = 15
PIECE = 8192
"""Bytes the kernel fills at a time: about a hundred routes, about a millisecond of reading."""


def scan_routes(table: int = MAIN_TABLE) -> Iterator[tuple[Route, ...]]:
    """The IPv4 routes of a table of the calling thread's namespace, piece by piece.

    Raises:
        KernelError: the kernel refuses, or (EINTR) the table changed so that routes may be
            missing; nothing follows from what was read then.
    """
    with open_socket() as door:
        body = wire.ROUTE.pack(wire.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + number(RTA_TABLE, table)
        flags = wire.F_REQUEST | wire.F_DUMP
        door.send(wire.HEADER.pack(16 + len(body), wire.GETROUTE, flags, 1, 0) + body)
        while True:
            # The kernel makes the next part when this one is taken, as large as we can take.
            data = door.recv(PIECE)
            found: list[Route] = []
            for kind, seen, _, _, start, end in wire.messages(data):
                if seen & wire.F_DUMP_INTR:
                    raise refused(errno.EINTR, "scan routes", "the table changed meanwhile")
                if kind == wire.NEWROUTE:
                    found.append(decode_route(data, start, end))
                elif kind in {wire.NLMSG_DONE, wire.NLMSG_ERROR}:
                    code = error_number(data, start, end)
                    if code:
                        raise refused(code, "scan routes", explanation(data, seen, start, end))
                    yield tuple(found)
                    return
            yield tuple(found)
