"""Signed: who calls us with a TCP-MD5 signature (RFC 2385) that our kernel throws away unread.

Its counters tell only that some were thrown away. A raw socket gets a copy of each segment before
TCP judges it (net/ipv4/ip_input.c), and a SYN with option 19 names its sender.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from podwire.drivers.capture.bpf import Assembler, B
from podwire.drivers.capture.taps import attach

if TYPE_CHECKING:
    from collections.abc import Collection

    from podwire.drivers.capture.bpf import Instruction
    from podwire.model.addressing import IPAddress

PATIENCE_S = 6.0
"""A router that calls repeats its SYN after 1, 2 and 4 seconds, and calls again after some."""
IP_HEAD, TCP_HEAD = 20, 20
SYN = 0x02
OPTION_END, OPTION_NOTHING, OPTION_MD5 = 0, 1, 19


def watch_signed(
    suspects: Collection[IPAddress], patience_s: float = PATIENCE_S
) -> frozenset[IPAddress]:
    """Those of the suspects that call us with a signature; returns early when all have.

    Empty where raw sockets are not allowed.
    """
    seen: set[IPAddress] = set()
    try:
        ear = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError:
        return frozenset()
    deadline = time.monotonic() + patience_s
    with ear:
        attach(ear, _only_calls())
        while not seen.issuperset(suspects) and (left := deadline - time.monotonic()) > 0:
            ear.settimeout(left)
            try:
                segment = ear.recv(2048)
            except TimeoutError:
                break
            caller = signed_caller(segment)
            if caller is not None and caller in suspects:
                seen.add(caller)
    return frozenset(seen)


def signed_caller(packet: bytes) -> IPAddress | None:
    """The sender of a signed SYN; None for any other packet."""
    if len(packet) < IP_HEAD + TCP_HEAD:
        return None
    segment = packet[IP_HEAD:]
    options = segment[TCP_HEAD : (segment[12] >> 4) * 4]
    if not segment[13] & SYN or not _has_signature(options):
        return None
    return IPv4Address(packet[12:16])


def _has_signature(options: bytes) -> bool:
    place = 0
    while place < len(options) and options[place] != OPTION_END:
        if options[place] == OPTION_MD5:
            return True
        if options[place] == OPTION_NOTHING:
            place += 1
        elif place + 1 < len(options) and options[place + 1] >= 2:
            place += options[place + 1]
        else:
            return False
    return False


def _only_calls() -> tuple[Instruction, ...]:
    """Only SYNs, so that a busy host's other traffic costs nothing; IP options are passed over."""
    code = Assembler()
    code.load(0, B)
    code.mask(0x0F)
    code.if_equal(IP_HEAD // 4, other="none")
    code.load(IP_HEAD + 13, B)
    code.mask(SYN)
    code.if_equal(SYN, other="none")
    code.give(0xFFFF)
    code.label("none")
    code.give(0)
    return code.assemble()
