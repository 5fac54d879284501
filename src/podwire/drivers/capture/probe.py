"""Prober: sends a series of probes from inside a namespace, as the kernel there would send them.

The kernel makes the IP header, chooses the route and asks for neighbours itself. What it refuses at
once (no route, too big) is an outcome, not an error.
Source: raw(7), udp(7), ip(7); net/ipv4/ip_output.c for what IP_MTU_DISCOVER means.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from podwire.drivers import namespaces
from podwire.drivers.capture.bpf import Assembler
from podwire.drivers.capture.taps import attach
from podwire.errors import Forbidden
from podwire.trace.flow import PROTOCOL_NUMBERS, Protocol
from podwire.trace.observation import Sent

if TYPE_CHECKING:
    from podwire.drivers.capture.bpf import Instruction
    from podwire.trace.probe import Series

IP_MTU_DISCOVER = 10
IP_RECVERR = 11
"""Without it the kernel keeps to itself that a queue or its table of neighbours is full."""
PMTUDISC_PROBE = 3
"""Set the *don't fragment* bit and do not heed path MTUs learnt before: each probe learns anew."""
PMTUDISC_OMIT = 5
"""No such bit, fragments where the link needs them, and no heed to path MTUs learnt before."""


@dataclass(slots=True)
class Prober:
    """The sockets that send a series; a context manager.

    They stay open until the answers are in: an answer to a closed UDP port would be refused.
    """

    series: Series
    _sender: socket.socket | None = None
    _holder: socket.socket | None = None
    _refusal: OSError | None = None
    _sent: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, namespace_fd: int, series: Series) -> Prober:
        """Make the sockets in a namespace.

        An address or port that cannot be used shows up as the refusal of every probe.

        Raises:
            Forbidden: the caller lacks CAP_NET_RAW there.
        """
        prober = cls(series)
        try:
            namespaces.call_in(namespace_fd, prober._prepare)
        except PermissionError:
            prober.close()
            raise Forbidden(
                f"no {series.protocol} probe may be sent",
                fix="CAP_NET_RAW over the sender is missing",
            ) from None
        except BaseException:
            prober.close()
            raise
        return prober

    def _prepare(self) -> None:
        number, series = PROTOCOL_NUMBERS[self.series.protocol], self.series
        datagram = series.protocol is Protocol.UDP
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_RAW
        self._sender = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, number)
        self._sender.setblocking(False)
        # It only sends; a raw socket would be given a copy of every packet of its protocol.
        attach(self._sender, _nothing())
        discover = PMTUDISC_PROBE if series.df else PMTUDISC_OMIT
        self._sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
        self._sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if series.ttl is not None:
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, series.ttl)
        # As much as one probe and its fragments take.
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        try:
            self._sender.bind((str(series.source), series.source_port if datagram else 0))
            if series.protocol is Protocol.TCP:
                # Keeps the port from everybody else. A bound socket that neither listens nor
                # connects is not found by an answer, so the kernel resets it by itself.
                self._holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                self._holder.bind((str(series.source), series.source_port))
        except OSError as error:
            self._refusal = error.with_traceback(None)

    def send(self, number: int) -> Sent:
        """Hand probe `number` to the kernel."""
        if self._refusal is not None:
            return _refused(number, self._refusal)
        assert self._sender is not None
        series = self.series
        datagram = series.protocol is Protocol.UDP
        data = series.payload(number) if datagram else series.segment(number)
        to = (str(series.destination), series.port if datagram else 0)
        now = time.time_ns()
        try:
            with suppress(OSError):  # may be what an ICMP error says of an earlier probe
                return self._sent_now(number, data, to, now)
            return self._sent_now(number, data, to, now)
        except OSError as error:
            return _refused(number, error)

    def _sent_now(self, number: int, data: bytes, to: tuple[str, int], now: int) -> Sent:
        assert self._sender is not None
        self._sender.sendto(data, to)
        self._sent.append(number)
        return Sent(probe=number, time_ns=now)

    def close(self) -> None:
        """Take back what the probes may have begun, and close; safe to repeat."""
        if self._sender is not None:
            if self.series.protocol is Protocol.TCP:
                self._reset(self._sender)
            self._sender.close()
        if self._holder is not None:
            self._holder.close()
        self._sender = self._holder = None

    def _reset(self, sender: socket.socket) -> None:
        """Where the answer did not come back, nobody else tells the receiver that it is over."""
        while self._sent:
            with suppress(OSError):
                sender.sendto(
                    self.series.reset(self._sent.pop()), (str(self.series.destination), 0)
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refused(number: int, error: OSError) -> Sent:
    code = error.errno or 0
    return Sent(probe=number, time_ns=time.time_ns(), errno=code, reason=os.strerror(code))


def _nothing() -> tuple[Instruction, ...]:
    """The filter that lets nothing through."""
    asm = Assembler()
    asm.give(0)
    return asm.assemble()
