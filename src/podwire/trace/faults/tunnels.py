"""Faults of tunnels: down, without a neighbour, to a wrong node, with another VNI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.faults import mending, remaking
from podwire.trace.schema import Evidence

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault, Fix


def tunnel_down(case: Case) -> Fault:
    """The tunnel device is down or not there."""
    ipip = case.cause.code == "no-ipip" or case.interface == "tunl0"
    fix = mending.tunnel_up(case)
    return case.fault("tunnel.down", 41 if ipip else None, case.cause.text, fix=fix)


def vtep_missing(case: Case) -> Fault:
    """No permanent neighbour for the tunnel address."""
    target = case.cause.facts["target"]
    sentence = (
        f"{case.here} does not know the tunnel MAC of {target}: no neighbour entry on "
        f"{case.interface}"
    )
    fix = mending.vtep(case, target)
    key = f"neighbour {target} dev {case.interface}"
    absent = _absent(case, "neigh", key, _after(fix, "lladdr"))
    return case.fault("neighbour.vtep-missing", 28, sentence, fix=fix, evidence=(absent,))


def _absent(case: Case, kind: str, key: str, expected: str | None) -> Evidence:
    """An entry that is not there."""
    return Evidence(kind=kind, key=key, value=None, expected=expected, ns=case.here)


def _after(fix: Fix | None, word: str) -> str | None:
    """`lladdr 66:…`: what the command of a fix would write after a word."""
    words = [] if fix is None or fix.command is None else fix.command.split()
    return f"{word} {words[words.index(word) + 1]}" if word in words else None


def fdb_missing(case: Case) -> Fault:
    """A MAC without a node behind it."""
    mac, via = case.cause.facts["mac"], case.cause.facts["via"]
    sentence = f"{case.here} has the MAC {mac} of {via}, but not the node behind it (FDB)"
    fix = mending.true_node(case, mac=mac)[1]
    absent = _absent(case, "fdb", f"fdb {mac} dev {case.interface}", _after(fix, "dst"))
    shown = case.without("mac", "via")
    return shown.fault("fdb.missing", 29, sentence, fix=fix, evidence=(absent,))


def vtep_mac(case: Case) -> Fault:
    """The inner frame is for another VTEP."""
    place, fix = mending.true_node(case, mac=case.cause.facts["mac"])
    return case.fault("tunnel.wrong-node", 30, case.cause.text, fix=fix, where=place)


def vni(case: Case) -> Fault:
    """The two ends differ in their VNI."""
    sent, here = case.cause.facts["sent"], case.cause.facts["here"]
    sentence = f"the sender uses VNI {sent}, {case.interface} of {case.here} has VNI {here}"
    fix = remaking.vxlan(case.space, case.interface, int(sent))
    key = f"{case.interface} VNI"
    shown = Evidence(kind="link", key=key, value=here, expected=sent, ns=case.here)
    case = case.without("sent", "here")
    return case.fault("tunnel.vni-differs", 32, sentence, fix=fix, evidence=(shown,))
