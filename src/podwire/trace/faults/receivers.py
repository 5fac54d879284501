"""Faults of receivers: nobody listens, nobody answers, or two have the address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.case import warning
from podwire.trace.receive import listeners
from podwire.trace.schema import Evidence, Fix, Where

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.flow import Packet
    from podwire.trace.schema import Fault

MOST_PORTS = 6


def echo_ignored(case: Case) -> Fault:
    """The receiver does not answer ping."""
    sentence = f"{case.here} gets the packet and does not answer ping (icmp_echo_ignore_all=1)"
    fix = Fix(
        text="try --tcp PORT, or let it answer",
        command="sysctl -w net/ipv4/icmp_echo_ignore_all=0",
    )
    return case.fault("pod.ignores-ping", 52, sentence, fix=fix)


def port_closed(case: Case) -> Fault:
    """Nobody listens, or only on an address that the packet is not for."""
    packet = case.path.hops[-1].packet
    port = f"{packet.protocol}/{packet.destination_port}"
    told = "refuses" if case.path.complaint is not None else "takes nothing"
    bound = [
        (address, number) for address, number in listeners(case.space, packet.protocol)
        if number == packet.destination_port
    ]  # fmt: skip
    if bound:
        addresses = ", ".join(sorted({address for address, _ in bound}))
        sentence = f"{case.here} {told}: {port} listens on {addresses} only, not on {case.target}"
        text = f"let the program in {case.here} listen on 0.0.0.0 or on {case.target}"
    else:
        sentence = f"{case.here} is reached and {told}: nothing listens on {port} there"
        text = f"start the program in {case.here} that should listen on {port}"
        if listeners(case.space, packet.protocol):
            text += ", or use a port that one listens on"
    return case.fault(
        "socket.closed", 51, sentence, fix=Fix(text=text), evidence=(_listening(case, packet),)
    )


def _listening(case: Case, packet: Packet) -> Evidence:
    """What the namespace does listen on."""
    found = sorted(listeners(case.space, packet.protocol), key=lambda each: each[1])
    shown = ", ".join(f"{address}:{port}" for address, port in found[:MOST_PORTS])
    more = f" and {len(found) - MOST_PORTS} more" if found[MOST_PORTS:] else ""
    key = f"{packet.protocol} sockets that listen"
    return Evidence(kind="socket", key=key, value=f"{shown}{more}" or None, ns=case.here)


def duplicate(case: Case) -> Fault:
    """An address twice."""
    if case.cause.code == "several-answers":
        return warning(case.fault("address.duplicate", 21, case.cause.text))
    return _led_astray(case) or case.fault("address.duplicate", 21, case.cause.text)


def _led_astray(case: Case) -> Fault | None:
    """A node's own route to the one address led to the other owner: that is where it went wrong."""
    for hop in reversed(case.path.hops):
        step = next((each for each in hop.steps if each.component == "Routing"), None)
        if step is None or hop.inode == case.cause.inode or hop.role == "port":
            continue
        if step.detail.get("matched") != f"{case.target}/32":
            return None
        link = str(step.detail.get("dev"))
        sentence = f"{case.cause.text}: {hop.where.netns} has a route of its own to it by {link}"
        fix = Fix(
            text="the other owner has no right to it: without this route it is left alone",
            command=f"ip route del {case.target}/32 dev {link}",
        )
        place = Where(node=hop.where.node, netns=hop.where.netns, interface=link)
        return case.fault("address.duplicate", 21, sentence, fix=fix, where=place)
    return None
