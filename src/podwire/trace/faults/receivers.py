"""Faults of receivers: nobody listens, nobody answers, or two have the address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.case import warning
from podwire.trace.schema import Fix

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault


def echo_ignored(case: Case) -> Fault:
    """The receiver does not answer ping."""
    sentence = f"{case.here} gets the packet and does not answer ping (icmp_echo_ignore_all=1)"
    fix = Fix(
        text="try --tcp PORT, or let it answer",
        command="sysctl -w net/ipv4/icmp_echo_ignore_all=0",
    )
    return case.fault("pod.ignores-ping", 52, sentence, fix=fix)


def port_closed(case: Case) -> Fault:
    """Nobody listens."""
    return case.fault("socket.closed", 51, f"{case.here} is reached; {case.cause.text}")


def duplicate(case: Case) -> Fault:
    """An address twice."""
    found = case.fault("address.duplicate", 21, case.cause.text)
    return warning(found) if case.cause.code == "several-answers" else found
