"""Session: one rtnetlink socket in one network namespace, to list and to change.

Requests travel many to a datagram. The kernel works through a datagram in order within the send
call and answers each message that failed; only the last one asks for an acknowledgement, which
saves one answer per success and still tells when all is done.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Self, TypeVar

from podwire.drivers import namespaces
from podwire.drivers.netlink import wire
from podwire.drivers.netlink.decode import (
    decode_address,
    decode_fdb,
    decode_link,
    decode_neighbour,
)
from podwire.drivers.netlink.nexthop_decode import decode_nexthop, resolve
from podwire.drivers.netlink.refusal import error_number, explanation, refused, translated
from podwire.drivers.netlink.route_decode import decode_route, decode_rule
from podwire.drivers.netlink.wire import attribute, number
from podwire.errors import KernelError, NotThere
from podwire.model.route import MAIN_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from podwire.drivers.netlink.request import Request
    from podwire.drivers.netlink.selectors import Selectors
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Address, Link
    from podwire.model.overlay import FDBEntry, Neighbour
    from podwire.model.route import NextHop, Route, Rule

T = TypeVar("T")

SOL_NETLINK = 270
_EXT_ACK, _CAP_ACK, _GET_STRICT_CHECK = 11, 10, 12
_SO_RCVBUFFORCE = 33

RECEIVE_BUFFER = 8 << 20
DATAGRAM = 1 << 16
"""Bytes asked for at once; the kernel fills a dump's datagrams up to 32 KiB."""
BATCH = 500
"""Messages in one send, at most: a few milliseconds during which the kernel's lock is held."""
BATCH_BYTES = 1 << 16
_ANSWER_BYTES = 1536
"""What one answer takes of the receive buffer, with its bookkeeping, at most."""
_DUMP_TRIES = 20

_IFLA_IFNAME, _IFLA_EXT_MASK = 3, 29
_SKIP_STATISTICS = 8
_NTF_PROXY = 0x08
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_TABLE = 1, 2, 3, 4, 15
_RTM_F_LOOKUP_TABLE, _RTM_F_FIB_MATCH = 0x1000, 0x2000
_NETNSA_NSID, _NETNSA_FD = 1, 3


def open_socket(namespace: int | None = None) -> socket.socket:
    """A bound rtnetlink socket in the namespace of a descriptor (None: the caller's own).

    Raises:
        Forbidden: the namespace may not be entered.
    """
    if namespace is not None:
        return namespaces.call_in(namespace, open_socket)
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    for option in (_EXT_ACK, _CAP_ACK, _GET_STRICT_CHECK):
        door.setsockopt(SOL_NETLINK, option, 1)
    enlarge(door, RECEIVE_BUFFER)
    door.bind((0, 0))
    return door


def enlarge(door: socket.socket, size: int) -> None:
    """Ask for a receive buffer of that many bytes; without privilege the host's limit holds."""
    try:
        door.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class Session:
    """One socket with one owner; not for several threads at once.

    Every method raises KernelError (NotThere, or what `refusal.translated` makes of it) when the
    kernel refuses.
    """

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._sequence = 0
        self.port: int = door.getsockname()[0]
        """Events that carry this port in a Monitor were caused through this session."""
        room = door.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        # All messages of a send may fail, and their answers have to fit into the buffer.
        self._batch = max(16, min(BATCH, room // _ANSWER_BYTES))

    @classmethod
    def open(cls, namespace_fd: int | None = None) -> Session:
        """A session in the namespace of a descriptor (None: the calling thread's own)."""
        return cls(open_socket(namespace_fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._door.close()

    # --- change -------------------------------------------------------------------------------

    def run(self, *requests: Request) -> None:
        """Carry out all requests in order, then raise the first refusal, if any."""
        for request, error in zip(requests, self.apply(requests), strict=True):
            if error is not None:
                raise translated(error, request)

    def apply(self, requests: Sequence[Request]) -> list[KernelError | None]:
        """Carry out all requests in order and say for each what the kernel refused.

        One failure stops nothing; the result has one place for each request.
        """
        results: list[KernelError | None] = [None] * len(requests)
        start = 0
        while start < len(requests):
            start = self._send(requests, start, results)
        behind = [
            (place, request.follow)
            for place, request in enumerate(requests)
            if request.follow is not None and results[place] is None
        ]
        if behind:
            outcomes = self.apply([follow for _, follow in behind])
            for (place, _), error in zip(behind, outcomes, strict=True):
                results[place] = error
        return results

    def _send(
        self, requests: Sequence[Request], start: int, results: list[KernelError | None]
    ) -> int:
        """Send requests from `start` on, as many as fit; note refusals; return the next start."""
        parts: list[bytes] = []
        pack, padding = wire.HEADER.pack, wire.PADDING
        size, place, first = 0, start, self._sequence + 1
        stop = min(len(requests), start + self._batch)
        while place < stop and size < BATCH_BYTES:
            request = requests[place]
            payload = request.payload
            length = 16 + len(payload)
            flags = wire.F_REQUEST | request.flags
            parts.append(pack(length, request.type, flags, first + place - start, 0))
            parts.append(payload)
            parts.append(padding[length & 3])
            size += length
            place += 1
        last = requests[place - 1]
        flags = wire.F_REQUEST | wire.F_ACK | last.flags
        self._sequence = first + place - start - 1
        parts[-3] = pack(16 + len(last.payload), last.type, flags, self._sequence, 0)
        self._door.send(b"".join(parts))
        try:
            self._collect(requests, start, first, results)
        except _AnswersLostError:
            for lost in range(start, place):
                results[lost] = results[lost] or refused(
                    errno.ENOBUFS, requests[lost].subject, "the kernel's answer was lost"
                )
        return place

    def _collect(
        self,
        requests: Sequence[Request],
        start: int,
        first: int,
        results: list[KernelError | None],
    ) -> None:
        """Read answers until the last message sent has its own."""
        while True:
            data = self._receive()
            for kind, flags, sequence, _, begin, end in wire.messages(data):
                if kind != wire.NLMSG_ERROR or sequence < first:
                    continue
                number_ = error_number(data, begin, end)
                if number_:
                    place = start + sequence - first
                    sentence = explanation(data, flags, begin, end)
                    results[place] = refused(number_, requests[place].subject, sentence)
                if sequence == self._sequence:
                    return

    def _receive(self) -> bytes:
        # The kernel has answered by the time send returns, and makes the next part of a dump
        # while we take one: there is never anything to wait for.
        try:
            data, _, flags, _ = self._door.recvmsg(DATAGRAM, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise _AnswersLostError from None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _AnswersLostError from None
            raise
        if flags & socket.MSG_TRUNC:
            raise refused(errno.EMSGSIZE, "read netlink", "a message is larger than our buffer")
        return data

    # --- list ---------------------------------------------------------------------------------

    def links(self) -> dict[int, Link]:
        """All links by index."""
        body = wire.LINK.pack(0, 0, 0, 0, 0) + number(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        found = self._dump(wire.GETLINK, body, wire.NEWLINK, decode_link, "links")
        return {link.index: link for link in found}

    def link(self, name: str | int) -> Link | None:
        """The link of that name or index; None when there is none."""
        index = name if isinstance(name, int) else 0
        body = wire.LINK.pack(0, 0, index, 0, 0) + number(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        if isinstance(name, str):
            body += wire.name(_IFLA_IFNAME, name)
        try:
            data, start, end = self._ask(wire.GETLINK, body, f"find link {name}")
        except NotThere:
            return None
        return decode_link(data, start, end)

    def addresses(self) -> tuple[Address, ...]:
        """All addresses of both families."""
        body = wire.ADDRESS.pack(0, 0, 0, 0, 0)
        return tuple(self._dump(wire.GETADDR, body, wire.NEWADDR, decode_address, "addresses"))

    def routes(
        self, table: int | None = MAIN_TABLE, family: int | None = None
    ) -> tuple[Route, ...]:
        """Routes of one table (None: of all) and of family 4 or 6 (None: of both)."""
        found: list[Route] = []
        for version in (4, 6) if family is None else (family,):
            code = wire.AF_INET if version == 4 else wire.AF_INET6
            body = wire.ROUTE.pack(code, 0, 0, 0, 0, 0, 0, 0, 0)
            if table is not None:
                body += number(_RTA_TABLE, table)
            try:
                found += self._dump(wire.GETROUTE, body, wire.NEWROUTE, decode_route, "routes")
            except NotThere:  # the table was never made
                continue
            except KernelError as error:
                # A kernel without IPv6 has no routes of it.
                if error.errno not in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT} or version == 4:
                    raise
        return tuple(found)

    def rules(self) -> tuple[Rule, ...]:
        """Policy rules, IPv4 first, each family in the order in which they are asked."""
        found: list[Rule] = []
        for code in (wire.AF_INET, wire.AF_INET6):
            body = wire.RULE.pack(code, 0, 0, 0, 0, 0, 0, 0, 0)
            try:
                found += self._dump(wire.GETRULE, body, wire.NEWRULE, decode_rule, "rules")
            except KernelError as error:
                # Built without policy routing, or without IPv6.
                if error.errno not in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
                    raise
        return tuple(found)

    def neighbours(self) -> tuple[Neighbour, ...]:
        """ARP and NDP entries of all devices, proxy entries last."""
        found: list[Neighbour] = []
        for flags in (0, _NTF_PROXY):
            body = wire.NEIGHBOUR.pack(0, 0, 0, flags, 0)
            found += self._dump(wire.GETNEIGH, body, wire.NEWNEIGH, decode_neighbour, "neighbours")
        return tuple(found)

    def fdb(self) -> tuple[FDBEntry, ...]:
        """Forwarding entries of all bridges, bridge ports and vxlan devices."""
        body = wire.NEIGHBOUR.pack(wire.AF_BRIDGE, 0, 0, 0, 0)
        return tuple(
            self._dump(wire.GETNEIGH, body, wire.NEWNEIGH, decode_fdb, "forwarding entries")
        )

    def nexthops(self) -> dict[int, tuple[NextHop, ...]]:
        """Nexthop objects by number, groups as their members; empty where it discards packets.

        Routes that point to one list its hops, too, unless net.ipv4.nexthop_compat_mode is 0.
        """
        body = wire.NEXT_HOP_OBJECT.pack(0, 0, 0, 0)
        try:
            found = self._dump(
                wire.GETNEXTHOP, body, wire.NEWNEXTHOP, decode_nexthop, "nexthop objects"
            )
        except KernelError as error:  # before Linux 5.3
            if error.errno != errno.EOPNOTSUPP:
                raise
            return {}
        return resolve(found)

    def lookup(  # one parameter for every attribute of the question
        self,
        destination: IPAddress,
        *,
        source: IPAddress | None = None,
        iif: int | None = None,
        oif: int | None = None,
        selectors: Selectors | None = None,
        entry: bool = False,
    ) -> Route:
        """Ask the kernel how it would route a packet (RTM_GETROUTE).

        The answer tells the next hop chosen for this very packet, its destination as a /32 or
        /128; with `entry` the FIB entry that matched, with all its hops. `iif` asks for a packet
        that came in there, which is also checked as rp_filter would.

        Raises:
            KernelError: there is no way: ENETUNREACH (no route), EHOSTUNREACH, EACCES
                (prohibit), EINVAL (blackhole), EXDEV (rp_filter).
        """
        bits = destination.max_prefixlen
        # IPv6 tells the table unasked, and refuses the question for it.
        table = _RTM_F_LOOKUP_TABLE if destination.version == 4 else 0
        body = wire.ROUTE.pack(
            wire.family_of(destination),
            bits,
            0 if source is None else bits,
            0,
            0,
            0,
            0,
            0,
            table | (_RTM_F_FIB_MATCH if entry else 0),
        )
        body += attribute(_RTA_DST, destination.packed)
        if source is not None:
            body += attribute(_RTA_SRC, source.packed)
        for kind, value in ((_RTA_IIF, iif), (_RTA_OIF, oif)):
            if value is not None:
                body += number(kind, value)
        if selectors is not None:
            body += selectors.attributes()
        return decode_route(*self._ask(wire.GETROUTE, body, f"look up {destination}"))

    def namespace_id(self, namespace_fd: int) -> int | None:
        """The number (nsid) by which this namespace knows another; None when it has none."""
        body = wire.NAMESPACE.pack(0) + number(_NETNSA_FD, namespace_fd)
        data, start, end = self._ask(wire.GETNSID, body, "ask for a namespace id")
        found = wire.attributes(data, start + wire.NAMESPACE.size, end)
        nsid = wire.i32(found.get(_NETNSA_NSID, b"\xff\xff\xff\xff"))
        return None if nsid < 0 else nsid

    def namespace_ids(self) -> dict[int, int]:
        """Inode by nsid, of every other namespace this process can see and this one knows.

        The kernel tells the number of a namespace it is shown, never the namespace of a number;
        so every namespace in sight is shown to it.
        """
        found: dict[int, int] = {}
        for inode, path in namespaces.paths().items():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # it ended, or is not ours to look at
                continue
            try:
                nsid = self.namespace_id(descriptor)
            except KernelError:
                continue
            finally:
                os.close(descriptor)
            if nsid is not None:
                found[nsid] = inode
        return found

    def _ask(self, kind: int, body: bytes, subject: str) -> tuple[bytes, int, int]:
        """The one message the kernel answers with: datagram, start and end of its body."""
        self._sequence += 1
        head = wire.HEADER.pack(16 + len(body), kind, wire.F_REQUEST, self._sequence, 0)
        self._door.send(head + body)
        while True:
            try:
                data = self._receive()
            except _AnswersLostError:
                raise refused(errno.ENOBUFS, subject, "the kernel's answer was lost") from None
            for got, flags, sequence, _, start, end in wire.messages(data):
                if sequence != self._sequence:
                    continue
                if got != wire.NLMSG_ERROR:
                    return data, start, end
                code = error_number(data, start, end)
                raise refused(code, subject, explanation(data, flags, start, end))

    def _dump(
        self,
        kind: int,
        body: bytes,
        wanted: int,
        decode: Callable[[bytes, int, int], T],
        subject: str,
    ) -> list[T]:
        """List one table; begun again when it changed meanwhile (NLM_F_DUMP_INTR)."""
        for _ in range(_DUMP_TRIES):
            found = self._dump_once(kind, body, wanted, decode, f"list {subject}")
            if found is not None:
                return found
        raise refused(errno.EINTR, f"list {subject}", "it changes faster than it can be read")

    def _dump_once(
        self,
        kind: int,
        body: bytes,
        wanted: int,
        decode: Callable[[bytes, int, int], T],
        subject: str,
    ) -> list[T] | None:
        self._sequence += 1
        flags = wire.F_REQUEST | wire.F_DUMP
        self._door.send(wire.HEADER.pack(16 + len(body), kind, flags, self._sequence, 0) + body)
        found: list[T] = []
        steady = True
        while True:
            try:
                data = self._receive()
            except _AnswersLostError:
                raise refused(errno.ENOBUFS, subject, "the kernel's answer was lost") from None
            for got, seen, sequence, _, start, end in wire.messages(data):
                if sequence != self._sequence:
                    continue
                if seen & wire.F_DUMP_INTR:
                    steady = False
                if got == wanted:
                    found.append(decode(data, start, end))
                elif got in {wire.NLMSG_DONE, wire.NLMSG_ERROR}:
                    code = error_number(data, start, end)
                    if code:
                        raise refused(code, subject, explanation(data, seen, start, end))
                    return found if steady else None


class _AnswersLostError(Exception):
    """The receive buffer overran, or an answer never came."""
