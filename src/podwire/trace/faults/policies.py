"""Faults of rule sets: dropped, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace import intent
from podwire.trace.faults import mending

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault


def rule(case: Case) -> Fault:
    """A firewall rule, or the policy of a chain."""
    fix = mending.let_pass(case)
    if case.cause.code == "rule-reject":
        sentence = f"refused, not lost: {case.cause.text}"
        return case.fault("policy.rejected", 24, sentence, fix=fix)
    return case.fault("policy.denied", _row(case), f"dropped: {case.cause.text}", fix=fix)


def question(case: Case) -> Fault:
    """A rule that takes ARP, or neighbour discovery, away."""
    return case.fault("arp.denied", None, f"dropped: {case.cause.text}", fix=mending.let_pass(case))


def _row(case: Case) -> int:
    """The row of the catalogue, by what was dropped where."""
    space = case.space
    if case.path.hops[-1].packet.inner is not None:
        routes_for_pods = any(pod.host.space is space for pod in case.world.pods.values())
        return 34 if routes_for_pods else 35
    if case.is_return:
        return 56
    if mending.is_legacy(case):
        return 26
    if "(policy)" in case.cause.text:
        return 22
    source, destination = (intent.pod_of(case.world, each) for each in (case.origin, case.target))
    for_it = destination is not None and destination.host.space is space
    from_it = source is not None and source.host.space is space
    if for_it and from_it:
        # Both pods hang here: a rule about the link out is about what comes to the pod.
        rule = mending.rule_met(case)
        return 50 if "'oifname'" in rule and "'iifname'" not in rule else 23
    return 50 if for_it else 23
