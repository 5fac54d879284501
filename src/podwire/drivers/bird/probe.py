"""Probe: what becomes of an attempt to open the TCP connection of a BGP session, now.

All attempts run at once. Each that is accepted is closed without a word; the other router sees a
caller who hangs up, which leaves an established session alone.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.bgp.reach import Answer, Reach, Signatures
from podwire.drivers.bird.signed import watch_signed
from podwire.model.addressing import IPAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podwire.desired.bgp import BirdPeer

TIMEOUT_S = 2.0
"""One lost SYN is sent again after a second."""
BESIDE_PORT = 1
"""tcpmux: reserved, and used by nobody."""
TCP_MD5SIG = 14
LONGEST_PASSWORD = 80
"""TCP_MD5SIG_MAXKEYLEN of linux/tcp.h."""
NETSTAT = Path("/proc/thread-self/net/netstat")

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One connection to try."""

    address: IPAddress
    port: int
    source: IPAddress | None = None
    password: str | None = None


def reach(peers: Iterable[tuple[BirdPeer, str | None]]) -> dict[str, Reach]:
    """Try every peer, given with its password; what was found, by BIRD's name of the session."""
    peers = list(peers)
    attempts: list[Attempt] = []
    for peer, password in peers:
        plain = Attempt(address=peer.address, port=peer.port, source=peer.source)
        beside = Attempt(address=peer.address, port=BESIDE_PORT, source=peer.source)
        signed = Attempt(
            address=peer.address, port=peer.port, source=peer.source, password=password
        )
        attempts += [plain, beside, *([signed] if password else [])]
    answers = dict(zip(attempts, attempt(attempts), strict=True))
    signatures = read_signatures()
    found = {
        peer.protocol: _reach_of(peer, password, answers, signatures) for peer, password in peers
    }
    suspects = {peer.address for peer, _ in peers if _may_sign(found[peer.protocol])}
    signing = watch_signed(suspects) if suspects else frozenset[IPAddress]()
    return {
        peer.protocol: replace(found[peer.protocol], calls_signed=peer.address in signing)
        for peer, _ in peers
    }


def _may_sign(reach: Reach) -> bool:
    """Silent though it lives, while this kernel throws signed segments away that nobody expects."""
    return (
        reach.plain is Answer.SILENT
        and reach.signed is Answer.NOT_TRIED
        and reach.beside in {Answer.REFUSED, Answer.ACCEPTED}
        and reach.signatures.unexpected > 0
    )


def _reach_of(
    peer: BirdPeer,
    password: str | None,
    answers: Mapping[Attempt, Answer],
    signatures: Signatures,
) -> Reach:
    plain = Attempt(address=peer.address, port=peer.port, source=peer.source)
    beside = Attempt(address=peer.address, port=BESIDE_PORT, source=peer.source)
    signed = Attempt(address=peer.address, port=peer.port, source=peer.source, password=password)
    return Reach(
        plain=answers[plain],
        signed=answers[signed] if password else Answer.NOT_TRIED,
        beside=answers[beside],
        source_missing=answers[plain] is Answer.IMPOSSIBLE,
        signatures=signatures,
    )


def attempt(attempts: Sequence[Attempt], timeout_s: float = TIMEOUT_S) -> list[Answer]:
    """Try them all at once; what became of each, in the same order."""
    answers = [Answer.SILENT] * len(attempts)
    open_: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    try:
        for number, each in enumerate(attempts):
            door = socket.socket(_family(each.address), socket.SOCK_STREAM)
            open_[door.fileno()] = number, door
            outcome = _begin(door, each)
            if outcome is None:
                poll.register(door, select.POLLOUT)
            else:
                answers[number] = outcome
                open_.pop(door.fileno())[1].close()
        _collect(poll, open_, answers, time.monotonic() + timeout_s)
    finally:
        for _, door in open_.values():
            door.close()
    return answers


def _collect(
    poll: select.poll,
    open_: dict[int, tuple[int, socket.socket]],
    answers: list[Answer],
    deadline: float,
) -> None:
    while open_ and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            number, door = open_.pop(descriptor)
            poll.unregister(descriptor)
            answers[number] = _answer(door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            door.close()


def _begin(door: socket.socket, each: Attempt) -> Answer | None:
    """Start to connect; the answer where there is one at once."""
    door.setblocking(False)
    try:
        if each.password:
            door.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, _signature(each))
        if each.source is not None:
            door.bind((str(each.source), 0))
    except OSError:
        return Answer.IMPOSSIBLE
    code = door.connect_ex((str(each.address), each.port))
    return None if code == errno.EINPROGRESS else _answer(code)


def _answer(code: int) -> Answer:
    if code == 0:
        return Answer.ACCEPTED
    if code in {errno.ECONNREFUSED, errno.ECONNRESET}:
        return Answer.REFUSED
    return Answer.UNREACHABLE if code in _UNREACHABLE else Answer.SILENT


def _signature(each: Attempt) -> bytes:
    """`struct tcp_md5sig` (linux/tcp.h): whom to sign for, and the key."""
    assert each.password is not None
    key = each.password.encode()[:LONGEST_PASSWORD]
    if isinstance(each.address, IPv6Address):
        address = struct.pack("=HHI", socket.AF_INET6, 0, 0) + each.address.packed
    else:
        address = struct.pack("=HH", socket.AF_INET, 0) + each.address.packed
    return struct.pack(f"=128sBBHi{LONGEST_PASSWORD}s", address, 0, 0, len(key), 0, key)


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


def read_signatures(path: Path = NETSTAT) -> Signatures:
    """What this network namespace has dropped for MD5 signatures since it was made."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return Signatures()
    counters: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            pairs = zip(names.split()[1:], values.split()[1:], strict=False)
            counters = {name: int(value) for name, value in pairs}
    return Signatures(
        missing=counters.get("TCPMD5NotFound", 0),
        unexpected=counters.get("TCPMD5Unexpected", 0),
        wrong=counters.get("TCPMD5Failure", 0),
    )
