"""Taps: see every frame of interest on all links of a set of namespaces.

One packet socket per namespace listens to all its links at once, those that appear later included:
the kernel says with every frame by which link it passed, and the frames of one namespace come in
the order in which they passed. The filter is attached before the socket listens to anything, so
nothing foreign is ever queued. Nothing outlives the process.

Frames come through a ring in shared memory. There the kernel stamps every frame when it passes; an
ordinary packet socket stamps it when it is *read*, until the kernel's lazily started time stamping
has come up, which turns the order of places round.

Source: packet(7), Documentation/networking/packet_mmap.rst, tpacket_rcv in net/packet/af_packet.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Self

from podwire.drivers import namespaces
from podwire.drivers.capture.bpf import encode
from podwire.drivers.capture.filters import WITH_ETHERNET
from podwire.errors import Forbidden, PodwireError
from podwire.trace.observation import PACKET_TYPES, Sighting, TapReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.drivers.capture.bpf import Instruction

THREADS = 32
"""Taps that are opened or closed at the same time."""
ETH_P_ALL = 0x0003
SO_ATTACH_FILTER, SO_LOCK_FILTER = 26, 44
SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 5, 6, 10
TPACKET_V2 = 1
BLOCK_BYTES = 1 << 14
FRAME_BYTES = 512
"""Of the ring, for one frame with the kernel's notes about it."""
RING_BYTES = 32 * BLOCK_BYTES
"""For 1024 frames, which wait there only until the loop comes round: packets that go in a circle
pass a switch's links so often before their TTL is spent."""
SNAP_BYTES = 256
"""Of a frame that are kept: all headers of a packet in a tunnel, and what an error quotes."""

SIOCGIFNAME = 0x8910

_IFREQ = Struct("=16si20x")
_STATUS = Struct("=I")
_NOTES = Struct("=IIIHHIIHH")
"""tpacket2_hdr: status, length, kept, offset of the frame, offset of IP, s, ns, VLAN, its type."""
_PLACE = Struct("=HHiHBB")
"""sockaddr_ll: family, protocol, link index, ARPHRD type, packet type, length of the MAC."""
_PLACE_AT = 32
_RING = Struct("=IIII")
"""tpacket_req: bytes of a block, blocks, bytes of a frame, frames."""
_PROGRAM = Struct("@HP")
"""sock_fprog: number of instructions, where they are."""
_STATISTICS = Struct("=II")
_READY, _CHECKSUM_UNFINISHED, _VLAN_VALID = 0x1, 0x8, 0x10


_libc = ctypes.CDLL(None, use_errno=True)


def attach(sock: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Let the kernel hand a socket only what the program lets through, for good."""
    text = ctypes.create_string_buffer(encode(program))
    given = _PROGRAM.pack(len(program), ctypes.addressof(text))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, given)
    sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


@dataclass(slots=True)
class _Tap:
    """The ring of one namespace."""

    inode: int
    sock: socket.socket
    ring: mmap.mmap
    frames: int
    place: int = 0
    taken: int = 0
    received: int = 0
    dropped: int = 0
    names: dict[int, str] = field(default_factory=dict)

    def read(self) -> Iterator[Sighting]:
        """Take out what is there; never waits."""
        while True:
            at = self.place * FRAME_BYTES
            status, length, kept, start, _, seconds, nanoseconds, vlan, _ = _NOTES.unpack_from(
                self.ring, at
            )
            if not status & _READY:
                return
            _, _, index, kind, packet_type, _ = _PLACE.unpack_from(self.ring, at + _PLACE_AT)
            data = self.ring[at + start : at + start + kept]
            _STATUS.pack_into(self.ring, at, 0)
            self.place = (self.place + 1) % self.frames
            self.taken += 1
            if packet_type >= len(PACKET_TYPES):
                continue
            yield Sighting(
                inode=self.inode,
                index=index,
                interface=self._name(index),
                packet_type=PACKET_TYPES[packet_type],
                timestamp_ns=seconds * 1_000_000_000 + nanoseconds,
                order=self.taken,
                data=data,
                length=length,
                ethernet=kind in WITH_ETHERNET,
                vlan=vlan & 0xFFF if status & _VLAN_VALID else None,
                checksum_unfinished=bool(status & _CHECKSUM_UNFINISHED),
            )

    def _name(self, index: int) -> str | None:
        """Name of a link, asked through the socket, which belongs to the right namespace."""
        if index not in self.names:
            with suppress(OSError):
                answer = fcntl.ioctl(self.sock, SIOCGIFNAME, _IFREQ.pack(b"", index))
                self.names[index] = _IFREQ.unpack(answer)[0].rstrip(b"\0").decode()
        return self.names.get(index)

    def report(self) -> TapReport:
        # The kernel starts counting anew with every reading.
        with suppress(OSError):
            raw = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
            received, dropped = _STATISTICS.unpack(raw)
            self.received += received
            self.dropped += dropped
        return TapReport(inode=self.inode, received=self.received, dropped=self.dropped)

    def close(self) -> None:
        self.ring.close()
        self.sock.close()


@dataclass(slots=True)
class Taps:
    """Taps of several namespaces, read by one loop; a context manager that closes them."""

    _taps: list[_Tap] = field(default_factory=list)
    _refused: list[TapReport] = field(default_factory=list)
    _poll: select.poll = field(default_factory=select.poll)

    @classmethod
    def open(
        cls,
        spaces: Mapping[int, int],
        program: tuple[Instruction, ...],
        *,
        ring_bytes: int = RING_BYTES,
    ) -> Taps:
        """Listen in each of `spaces` (descriptors by inode, which may be closed afterwards).

        A namespace that cannot be watched is named in `reports`, the others are watched.

        Raises:
            Forbidden: not one of them may be watched.
        """
        taps = cls()
        blocks = max(1, ring_bytes // BLOCK_BYTES)
        try:
            # A ring waits for a grace period of the kernel, some 15 ms; all can wait for the same.
            with ThreadPoolExecutor(max(1, min(len(spaces), THREADS))) as threads:
                armed = [
                    threads.submit(taps._arm, inode, descriptor, program, blocks)
                    for inode, descriptor in spaces.items()
                ]
            for each in armed:
                each.result()
        except BaseException:
            taps.close()
            raise
        if spaces and not taps._taps:
            reasons = sorted({str(each.refused) for each in taps._refused})
            raise Forbidden(f"packets cannot be watched: {'; '.join(reasons)}")
        taps._taps.sort(key=lambda tap: tap.inode)
        for tap in taps._taps:
            taps._poll.register(tap.sock, select.POLLIN)
        return taps

    def _arm(
        self, inode: int, descriptor: int, program: tuple[Instruction, ...], blocks: int
    ) -> None:
        """Open one tap; runs in a thread that ends soon, so that it may stay where it goes."""
        try:
            namespaces.setns(descriptor)
            self._taps.append(_open_here(inode, program, blocks))
        except Forbidden:
            self._refused.append(TapReport(inode=inode, refused="CAP_SYS_ADMIN over it is missing"))
        except PermissionError:
            self._refused.append(TapReport(inode=inode, refused="CAP_NET_RAW over it is missing"))
        except (PodwireError, OSError) as error:
            reason = error.message if isinstance(error, PodwireError) else error.strerror
            self._refused.append(TapReport(inode=inode, refused=reason))

    def read(self, timeout_s: float = 0.0) -> list[Sighting]:
        """Everything there is; waits up to `timeout_s` when there is nothing yet.

        The frames of one namespace are in order, those of several are not.
        """
        found = self._drain()
        if not found and timeout_s > 0:
            # Rounded up: zero would make the caller spin.
            self._poll.poll(int(timeout_s * 1000) + 1)
            found = self._drain()
        return found

    def _drain(self) -> list[Sighting]:
        return [sighting for tap in self._taps for sighting in tap.read()]

    def reports(self) -> tuple[TapReport, ...]:
        """How well each namespace is watched."""
        return (*(tap.report() for tap in self._taps), *self._refused)

    def close(self) -> None:
        """Stop listening; safe to repeat."""
        taps, self._taps = self._taps, []
        if taps:
            # Each waits for grace periods of the kernel, as above.
            with ThreadPoolExecutor(min(len(taps), THREADS)) as threads:
                list(threads.map(_Tap.close, taps))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_here(inode: int, program: tuple[Instruction, ...], blocks: int) -> _Tap:
    """A tap in the calling thread's namespace."""
    # Protocol 0: it hears nothing before filter and ring are in place.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        attach(sock, program)
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        frames = blocks * (BLOCK_BYTES // FRAME_BYTES)
        _set_ring(sock, _RING.pack(BLOCK_BYTES, blocks, FRAME_BYTES, frames))
        ring = mmap.mmap(sock.fileno(), blocks * BLOCK_BYTES)
    except BaseException:
        sock.close()
        raise
    try:
        _listen(sock)
    except BaseException:
        ring.close()
        sock.close()
        raise
    return _Tap(inode=inode, sock=sock, ring=ring, frames=frames)


def _set_ring(sock: socket.socket, request: bytes) -> None:
    """Give a socket its ring; Python's own call would make all threads wait with this one."""
    _check(
        _libc.setsockopt(sock.fileno(), SOL_PACKET, PACKET_RX_RING, request, len(request)),
    )


def _listen(sock: socket.socket) -> None:
    """Hear all links of the namespace; Python's own bind insists on one."""
    address = _PLACE.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0).ljust(20, b"\0")
    _check(_libc.bind(sock.fileno(), address, len(address)))


def _check(code: int) -> None:
    if code != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))
