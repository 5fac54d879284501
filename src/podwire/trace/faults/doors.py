"""Faults at our own rules: a source that is not the pod's, ARP for others, tunnels of strangers.

They are known by the counters of the tables `podwire` (desired/nfttables.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.nftelement import TABLE
from podwire.trace import intent
from podwire.trace.faults import mending
from podwire.trace.schema import Evidence, Fix

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault

TUNNELS = {"stranger-into-ipip": "IPIP", "stranger-into-vxlan": "VXLAN"}
SHOWN = ("table", "chain", "handle", "family", "line", "hook", "policy")
"""Facts that one line of evidence says together."""


def named(case: Case) -> Fault | None:
    """What one of our rules means by dropping it; None: the rule is another's."""
    if case.cause.facts.get("table") != TABLE:
        return None
    rule = mending.rule_met(case)
    shown = case.without(*SHOWN)
    for counter, tunnel in TUNNELS.items():
        if _counts(rule, counter):
            return _stranger(shown, tunnel, counter)
    if _counts(rule, "spoofed-source"):
        return _source(shown)
    if _counts(rule, "spoofed-arp"):
        return _arp(shown)
    if _counts(rule, "pod-into-tunnel"):
        sentence = f"{case.here} lets no pod send a tunnel's packets to a node"
        fix = Fix(
            text="if it should: allowVXLANPacketsFromWorkloads of FelixConfiguration, or …IPIP…"
        )
        return shown.fault(
            "tunnel.from-pod", None, sentence, fix=fix, evidence=_counter(case, "pod-into-tunnel")
        )
    return None


def _counts(rule: str, counter: str) -> bool:
    return f"'counter': '{counter}'" in rule


def _counter(case: Case, name: str, family: str = "ip") -> tuple[Evidence, ...]:
    key = f"table {family} {TABLE}, counter {name}"
    return (Evidence(kind="rule", key=key, value="drop", ns=case.here),)


def _stranger(case: Case, tunnel: str, counter: str) -> Fault:
    """The outer packet's sender is none of the nodes."""
    sender = case.path.hops[-1].packet.source
    sentence = (
        f"{case.here} takes no {tunnel} from {case.called(sender)}: its set of nodes (table ip "
        f"{TABLE}, set nodes) does not have that address"
    )
    fix = mending.agents(f"nft add element ip {TABLE} nodes '{{ {sender} }}'")
    absent = Evidence(
        kind="rule", key=f"set ip {TABLE} nodes", value=None, expected=str(sender), ns=case.here
    )
    return case.fault(
        "tunnel.stranger", None, sentence, fix=fix, evidence=(absent, *_counter(case, counter))
    )


def _source(case: Case) -> Fault:
    """The route to the sender does not lead back there."""
    wanted = intent.host_route(case.world, case.space, case.origin)
    pod = intent.pod_of(case.world, case.origin)
    evidence = _counter(case, "spoofed-source", "ip" if case.origin.version == 4 else "ip6")
    if wanted is not None and pod is not None and pod.host.link.name == case.interface:
        sentence = (
            f"{case.here} drops {'the answer' if case.is_return else 'it'}: no route to "
            f"{case.called(case.origin)} leaves by {case.interface}, so its rule against foreign "
            "sources does not know the sender"
        )
        absent = Evidence(
            kind="route", key=wanted.destination, value=None, expected=wanted.route, ns=case.here
        )
        fix = mending.agents(f"ip route replace {wanted.route}")
        return case.fault("rpf.failed", 18, sentence, fix=fix, evidence=(absent, *evidence))
    sentence = (
        f"{case.here} drops what comes in by {case.interface} in the name of "
        f"{case.called(case.origin)}: it is no address of that pod"
    )
    fix = Fix(text="let the pod send with its own address, or allow it the prefix besides")
    return case.fault("source.spoofed", None, sentence, fix=fix, evidence=evidence)


def _arp(case: Case) -> Fault:
    sentence = (
        f"{case.here} takes no ARP that comes in by {case.interface}: its sender is not the "
        f"address with the MAC that this pod was given (table arp {TABLE}, set senders)"
    )
    fix = Fix(text="give the pod its own address and MAC back, or attach it anew")
    return case.fault(
        "arp.spoofed", None, sentence, fix=fix, evidence=_counter(case, "spoofed-arp", "arp")
    )
