"""Trace of rules: every nftables rule that a probe meets, told by the kernel that runs it.

A table of our own sets the trace bit of probes and of their answers, in each namespace and before
every other rule; the kernel then tells each rule met to a netlink group. The table belongs to the
socket that made it and ends with that socket, so it does not outlive the process, whatever ends it.
Source: nf_tables_api.c (nft_rcv_nl_event), nf_tables_trace.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from struct import Struct, pack
from typing import TYPE_CHECKING, Self

from podwire.drivers import namespaces
from podwire.drivers.netlink import nftables, wire
from podwire.drivers.netlink.nftables import Match
from podwire.drivers.netlink.session import DATAGRAM, RECEIVE_BUFFER, SOL_NETLINK, enlarge
from podwire.drivers.nft_listing import TRACE
from podwire.errors import Forbidden, PodwireError, Unsupported
from podwire.trace.deep import Ruling
from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.observation import Sighting
from podwire.trace.probe import IP_HEADER, MARK_BYTES
from podwire.trace.recognise import Recogniser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.drivers.netlink.nftables import Traced
    from podwire.trace.probe import Series

THREADS = 16
_ADD_MEMBERSHIP = 1
_SIOCGIFNAME = 0x8910
_IFREQ = Struct("=16si20x")
_UDP_HEADER, _VXLAN_HEADER, _ETHERNET = 8, 8, 14
_ICMP_HEADER = 8
_PROTOCOL_AT = 9
"""Of an IP header."""
_NO_TABLES = frozenset({errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.EAFNOSUPPORT})


def matches(series: Series) -> tuple[Match, ...]:
    """What tells the probes, their answers and the errors about them from all other packets.

    Plain, in a VXLAN over IPv4, in IPIP. By the cookie where there is one, by sequence and
    acknowledgement numbers of TCP, by the port of UDP.
    """
    found = []
    vxlan = _UDP_HEADER + _VXLAN_HEADER + _ETHERNET
    for protocol, fields in _plain(series):
        found.append(Match(protocol, fields))
        for outer, inner in ((Protocol.UDP, vxlan), (Protocol.IPIP, 0)):
            shifted = tuple((inner + IP_HEADER + offset, value) for offset, value in fields)
            inside = (inner + _PROTOCOL_AT, bytes((protocol,)))
            found.append(Match(PROTOCOL_NUMBERS[outer], (inside, *shifted)))
    return tuple(found)


def _plain(series: Series) -> Iterator[tuple[int, tuple[tuple[int, bytes], ...]]]:
    """Protocol number, and places and bytes behind the IP header."""
    number, icmp = PROTOCOL_NUMBERS[series.protocol], PROTOCOL_NUMBERS[Protocol.ICMP]
    if series.payload_bytes >= MARK_BYTES:
        yield number, ((series.header, series.mark),)
    known = list(_known(series))
    for place, value in known:
        yield number, ((place, value),)
    quoted = _ICMP_HEADER + IP_HEADER
    for place, value in known:
        protocol = (_ICMP_HEADER + _PROTOCOL_AT, bytes((number,)))
        yield icmp, (protocol, (quoted + place, value))


def _known(series: Series) -> Iterator[tuple[int, bytes]]:
    """What is known of the first eight bytes, and of TCP's answers."""
    if series.protocol is Protocol.ICMP:
        yield 4, pack("!H", series.identifier)
    elif series.protocol is Protocol.UDP:
        yield 0, pack("!H", series.source_port)
        yield 2, pack("!H", series.source_port)
    else:
        for number in range(series.count):
            yield 4, pack("!I", series.sequence(number))
            for acknowledged in sorted(set(series.acknowledgements(number))):
                yield 8, pack("!I", acknowledged)


@dataclass(slots=True)
class _Ear:
    """One namespace: the socket that owns the table, and the one that hears."""

    inode: int
    owner: socket.socket
    listener: socket.socket
    table: str
    recogniser: Recogniser
    lost: bool = False
    names: dict[int, str | None] = field(default_factory=dict)
    packets: dict[int, Ruling] = field(default_factory=dict)
    """What was told of each packet with its headers; later words about it have none."""

    def read(self) -> Iterator[Ruling]:
        """What was told so far; never waits."""
        while True:
            try:
                data = self.listener.recv(DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost = True
                continue
            for kind, _, _, _, start, end in wire.messages(data):
                if kind == nftables.TRACE:
                    yield self._ruling(nftables.decode_trace(data, start, end))

    def _ruling(self, told: Traced) -> Ruling:
        ruling = self._described(told) if told.network else self.packets.get(told.id)
        if told.network and ruling is not None:
            self.packets[told.id] = ruling
        return Ruling(
            inode=self.inode,
            id=told.id,
            family=nftables.FAMILIES.get(told.family, str(told.family)),
            table=told.table,
            chain=told.chain,
            kind=told.kind,
            handle=told.handle,
            verdict=told.verdict,
            target=told.target,
            iif=None if ruling is None else ruling.iif,
            oif=None if ruling is None else ruling.oif,
            role=None if ruling is None else ruling.role,
            probe=None if ruling is None else ruling.probe,
            source=None if ruling is None else ruling.source,
            destination=None if ruling is None else ruling.destination,
            ours=told.table == self.table,
        )

    def _described(self, told: Traced) -> Ruling:
        """The packet that a message with headers is about."""
        data = told.network + told.transport
        sighting = Sighting(
            inode=self.inode,
            index=told.iif or told.oif or 0,
            interface=None,
            packet_type="host",
            timestamp_ns=0,
            order=0,
            data=data,
            length=len(data),
            ethernet=False,
        )
        seen = self.recogniser.recognise(sighting)
        addressed = len(told.network) >= IP_HEADER
        return Ruling(
            inode=self.inode,
            id=told.id,
            family=nftables.FAMILIES.get(told.family, str(told.family)),
            table=told.table,
            chain=told.chain,
            kind=told.kind,
            handle=told.handle,
            verdict=told.verdict,
            iif=self._name(told.iif),
            oif=self._name(told.oif),
            role=None if seen is None else seen.role,
            probe=None if seen is None else seen.probe,
            source=wire.ip(told.network[12:16]) if addressed else None,
            destination=wire.ip(told.network[16:20]) if addressed else None,
        )

    def _name(self, index: int | None) -> str | None:
        """Name of a link, asked through a socket, which belongs to the right namespace."""
        if index is None:
            return None
        if index not in self.names:
            self.names[index] = None
            with suppress(OSError):
                answer = fcntl.ioctl(self.listener, _SIOCGIFNAME, _IFREQ.pack(b"", index))
                self.names[index] = _IFREQ.unpack(answer)[0].rstrip(b"\0").decode()
        return self.names[index]

    def close(self) -> None:
        self.owner.close()
        self.listener.close()


@dataclass(slots=True)
class RuleTrace:
    """The traces of several namespaces; a context manager that ends them."""

    _ears: list[_Ear] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    """Why there is none, by inode."""

    @classmethod
    def open(cls, spaces: Mapping[int, int], series: Series) -> RuleTrace:
        """Turn the trace on in each of `spaces` (descriptors by inode); refusals are kept."""
        trace = cls()
        table = f"{TRACE}{os.getpid()}-{secrets.token_hex(3)}"
        batch = nftables.owned_table(table, matches(series))

        def arm(inode: int) -> _Ear | str:
            try:
                owner, listener = namespaces.call_in(spaces[inode], _open_here, batch)
            except PodwireError as error:
                return error.message if error.fix is None else f"{error.message}: {error.fix}"
            return _Ear(inode, owner, listener, table, Recogniser(series))

        # Each waits for the kernel's commit, some milliseconds.
        with ThreadPoolExecutor(max(1, min(len(spaces), THREADS))) as threads:
            for inode, found in zip(spaces, threads.map(arm, spaces), strict=True):
                if isinstance(found, str):
                    trace.refused[inode] = found
                else:
                    trace._ears.append(found)
        return trace

    def read(self) -> tuple[Ruling, ...]:
        """What was told so far, in the order of each namespace."""
        return tuple(ruling for ear in self._ears for ruling in ear.read())

    @property
    def complete(self) -> frozenset[int]:
        """Namespaces of which nothing was lost."""
        return frozenset(ear.inode for ear in self._ears if not ear.lost)

    def close(self) -> None:
        """End the traces; safe to repeat. The tables are gone when this returns."""
        ears, self._ears = self._ears, []
        if ears:
            # Each waits for grace periods of the kernel.
            with ThreadPoolExecutor(min(len(ears), THREADS)) as threads:
                list(threads.map(_Ear.close, ears))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_here(batch: bytes) -> tuple[socket.socket, socket.socket]:
    """The two sockets in the calling thread's namespace, the table made."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    opened: list[socket.socket] = []
    try:
        owner = socket.socket(socket.AF_NETLINK, kind, nftables.NETLINK_NETFILTER)
        opened.append(owner)
        listener = socket.socket(socket.AF_NETLINK, kind, nftables.NETLINK_NETFILTER)
        opened.append(listener)
        enlarge(listener, RECEIVE_BUFFER)
        listener.bind((0, 0))
        listener.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, nftables.TRACE_GROUP)
        owner.bind((0, 0))
        owner.send(batch)
        _confirm(owner)
    except OSError as error:
        for each in opened:
            each.close()
        raise _refused(error) from None
    except BaseException:
        for each in opened:
            each.close()
        raise
    return owner, listener


def _confirm(owner: socket.socket) -> None:
    """Wait for the answer to the batch; the first refusal of it is raised."""
    while True:
        data = owner.recv(DATAGRAM)
        for kind, _, _, _, start, _ in wire.messages(data):
            if kind == wire.NLMSG_ERROR:
                code = -wire.i32(data[start : start + 4])
                if code:
                    raise OSError(code, os.strerror(code))
                return


def _refused(error: OSError) -> Forbidden | Unsupported:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Forbidden("rules may not be traced", fix="this needs CAP_NET_ADMIN there")
    if error.errno in _NO_TABLES:
        return Unsupported(
            "this kernel cannot trace rules for us",
            fix="this needs nf_tables with owned tables (Linux 5.12)",
        )
    return Unsupported(f"rules cannot be traced: {error.strerror}")
