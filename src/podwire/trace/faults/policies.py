"""Faults of rule sets: dropped, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace import intent, tracking
from podwire.trace.faults import doors, mending
from podwire.trace.faults.doors import SHOWN
from podwire.trace.schema import Evidence

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault


def rule(case: Case) -> Fault:
    """A firewall rule, or the policy of a chain."""
    ours = doors.named(case)
    if ours is not None:
        return ours
    fix = mending.let_pass(case)
    packet = case.path.hops[-1].packet
    what = "the tunnel's packet" if packet.inner is not None else "it"
    if case.is_return:
        lost = case.path.lost
        what = "the answer" if lost is None or lost.complaint is None else "the ICMP error"
    hook, (name, evidence) = case.cause.facts.get("hook", "?"), _named(case)
    shown = case.without(*SHOWN)
    if case.cause.code == "rule-reject":
        said = "" if case.cause.icmp is None else f" with ICMP {case.cause.icmp}"
        sentence = f"{case.here} refuses {what}{said} at its {hook} hook: {name}"
        return shown.fault("policy.rejected", 24, sentence, fix=fix, evidence=evidence)
    sentence = f"{case.here} drops {what} at its {hook} hook: {name}"
    lost, rule_text = case.path.lost, mending.rule_met(case)
    if lost is not None and "'ct'" in rule_text and tracking.state(case.space, lost) == "invalid":
        sentence += "; its conntrack knows no connection that it belongs to (ct state invalid)"
    return shown.fault("policy.denied", _row(case), sentence, fix=fix, evidence=evidence)


def _named(case: Case) -> tuple[str, tuple[Evidence, ...]]:
    """What decided, in words, and as evidence."""
    facts = case.cause.facts
    verdict = case.cause.code.removeprefix("rule-")
    if "line" in facts:
        rule = mending.legacy_line(case.space, int(facts["line"]))
        shown = Evidence(kind="rule", key=f"iptables-legacy -t {facts['table']}",
                         value=f"-A {rule}", ns=case.here)  # fmt: skip
        return f"a rule of iptables-legacy, which nft does not list: -A {rule}", (shown,)
    family = "iptables-legacy" if mending.is_legacy(case) else facts.get("family", "")
    chain = " ".join(each for each in (family, facts.get("table"), facts.get("chain")) if each)
    if "(policy)" in case.cause.text:
        shown = Evidence(kind="rule", key=f"chain {chain}", value=f"policy {verdict}", ns=case.here)
        return f"no rule of chain {chain} decides, and its policy is {verdict}", (shown,)
    handle = f"handle {facts.get('handle')}"
    by = f", policy {facts['policy']}" if "policy" in facts else ""
    shown = Evidence(kind="rule", key=f"{chain} {handle}", value=f"{verdict}{by}", ns=case.here)
    return f"rule {handle} of chain {chain}{by}", (shown,)


def question(case: Case) -> Fault:
    """A rule that takes ARP, or neighbour discovery, away."""
    ours = doors.named(case)
    if ours is not None:
        return ours
    _, evidence = _named(case)
    fix, sentence = mending.let_pass(case), f"dropped: {case.cause.text}"
    return case.without(*SHOWN).fault("arp.denied", None, sentence, fix=fix, evidence=evidence)


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
