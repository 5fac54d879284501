"""What the kernels told of a probe, put beside prediction and observation.

A rule that the kernel itself names is no guess: where the model says otherwise, MODEL_DISAGREES. A
reason of a drop is evidence for what the state explains, and names the loss that nothing explains;
it makes nothing certain.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.deep import loose_drops, tied_drops
from podwire.trace.deepplaces import (
    dropped_as,
    ended,
    met_at,
    packets,
    place_of,
    ruled_as,
    steady,
    with_drops,
    with_rules,
)
from podwire.trace.schema import Disposition, Evidence, Fault, Fix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.trace.deep import Heard, Ruling, Tied
    from podwire.trace.deepplaces import Spot
    from podwire.trace.observation import Observation
    from podwire.trace.schema import Path, Ruled, Trace

RULES = frozenset({"rule-drop", "rule-reject"})
WORDS: Mapping[str, str] = {
    "NETFILTER_DROP": "a firewall rule",
    "IP_RPFILTER": "source validation by rp_filter",
    "IP_INNOROUTES": "no route onward",
    "IP_OUTNOROUTES": "no route for a packet made here",
    "IP_INADDRERRORS": "it may not be forwarded here",
    "IP_LOCAL_SOURCE": "its source is an address of the receiver",
    "IP_INVALID_SOURCE": "its source is no valid one",
    "IP_LOCALNET": "a loopback address from outside",
    "INVALID_PROTO": "an unknown protocol",
    "IP_NOPROTO": "nobody handles its protocol",
    "NEIGH_FAILED": "nobody answered for the next hop",
    "NEIGH_QUEUEFULL": "too many packets wait for the next hop's answer",
    "NEIGH_DEAD": "the next hop's entry was deleted",
    "PKT_TOO_BIG": "it is larger than the MTU",
    "PKT_TOO_SMALL": "it is shorter than its header says",
    "NO_SOCKET": "no socket takes it",
    "NO_TX_TARGET": "the tunnel knows no node for it",
    "OTHERHOST": "its MAC is another's",
    "QDISC_DROP": "a queue of the link",
    "TC_INGRESS": "a classifier at the link's entry",
    "TC_EGRESS": "a classifier at the link's exit",
    "XDP": "an XDP program",
    "SOCKET_RCVBUFF": "the socket's buffer is full",
    "TCP_CSUM": "a wrong TCP checksum",
    "UDP_CSUM": "a wrong UDP checksum",
    "ICMP_CSUM": "a wrong ICMP checksum",
    "IP_CSUM": "a wrong IP checksum",
    "VXLAN_VNI_NOT_FOUND": "a VXLAN number that no device has",
    "VXLAN_NO_REMOTE": "the tunnel knows no node for it",
    "DEV_READY": "the link is down",
}
"""What a reason means, where its name does not say it to everybody."""
SPEAKING: Mapping[str, frozenset[str]] = {
    "NETFILTER_DROP": RULES,
    "IP_RPFILTER": frozenset({"rpf", "own-source", "martian"}),
}
"""Reasons with one meaning only, and the causes of the model that agree with them."""
FITTING: Mapping[Disposition, tuple[str, ...]] = {
    Disposition.NEIGHBOR_FAILED: ("NEIGH_",),
    Disposition.NOT_FOR_ME: ("NEIGH_",),
    Disposition.LOST_ON_LINK: ("DEV_", "QDISC_", "NEIGH_"),
}
"""How reasons begin that go with a loss that is explained, though no drop is tied to it."""
MOST_GUESSES = 3


def told(trace: Trace, observation: Observation, heard: Heard) -> Trace:
    """The explained trace completed by what the kernels told."""
    if trace.probing is not None:
        probing = replace(trace.probing, nft_trace=heard.nft, tracefs=heard.tracefs)
        trace = replace(trace, probing=probing)
    trace = replace(trace, gaps=(*trace.gaps, *heard.gaps))
    lost = frozenset(
        each.probe for each in observation.sent if not observation.answered(each.probe)
    )
    met = met_at(trace.paths, heard.rulings)
    trace = with_rules(trace, met)
    tied = tied_drops(observation, heard.events)
    drops = steady([each for each in tied if ended(each, observation, lost)], lost)
    trace = with_drops(trace, drops)
    if not lost:
        return trace
    judge = _Judge(trace=trace, observation=observation, heard=heard, met=met, lost=lost)
    return judge.judged(drops)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """A loss, and what the kernels told of it."""

    trace: Trace
    observation: Observation
    heard: Heard
    met: list[tuple[Spot, Ruling]]
    lost: frozenset[int]

    def judged(self, drops: list[Tied]) -> Trace:
        killed = [
            (spot, ruling)
            for spot, ruling in self.met
            if ruling.verdict == "drop" and (ruling.probe is None or ruling.probe in self.lost)
        ]
        evidence = self._reasons(drops)
        if killed:
            spot, ruling = killed[0]
            same = [each for _, each in killed if ruled_as(each) == ruled_as(ruling)]
            return self._by_rule(spot, ruled_as(ruling), packets(same), evidence)
        spared = self._spared()
        if spared is not None:
            return self._disagrees(spared, evidence)
        if not evidence:
            return self._meanwhile()
        reason = drops[0].event.reason or ""
        causes = {path.cause.code for path in self.trace.paths if path.cause is not None}
        if causes and not causes & SPEAKING.get(reason, causes):
            text = f"the kernel dropped it for another reason: {evidence[0].value}"
            return self._disagrees(text, evidence)
        return self._by_reason(drops, evidence)

    def _probes(self, count: int) -> str:
        return f"{min(count, len(self.lost))} of {len(self.observation.sent)} probes"

    def _reasons(self, drops: list[Tied]) -> tuple[Evidence, ...]:
        groups: dict[tuple[str, str], list[Tied]] = defaultdict(list)
        for tied in drops:
            dropped = dropped_as(tied)
            groups[_meant(dropped.reason), dropped.function].append(tied)
        return tuple(
            Evidence(
                kind="drop",
                key="the kernel's reason",
                value=f"{reason} in {function}, {self._probes(len(group))}",
                ns=self._title(group[0].last.sighting.inode),
            )
            for (reason, function), group in groups.items()
        )

    def _title(self, inode: int) -> str | None:
        for path in self.trace.paths:
            for hop in path.hops:
                if hop.inode == inode:
                    return hop.where.netns
        return None

    def _by_rule(
        self, spot: Spot, ruled: Ruled, count: int, reasons: tuple[Evidence, ...]
    ) -> Trace:
        """The kernel named the rule that ended it."""
        path = self.trace.paths[spot[0]]
        hop = path.hops[spot[1]]
        evidence = (
            Evidence(
                kind="rule",
                key="the kernel's trace of rules",
                value=f"{ruled.place} ends it, {self._probes(count)}",
                ns=hop.where.netns,
            ),
            *reasons,
        )
        same_way = [each for each in self.trace.paths if each.direction is path.direction]
        if any(_is_it(each, hop.inode, ruled) for each in same_way):
            return self._with_evidence(evidence)
        unknown = any(each.gap is not None for each in same_way)
        where = hop.where
        sentence = f"dropped: {ruled.place} of {where.netns} says drop"
        fix = _deletion(ruled) if unknown else None
        fault = Fault(
            id="policy.denied",
            number=None,
            where=where,
            sentence=sentence,
            evidence=evidence,
            fix=fix,
            confidence="likely",
        )
        if not unknown:
            return self._disagrees(f"the kernel says: {sentence}", evidence, fault)
        return replace(
            self.trace,
            disposition=Disposition.DENIED,
            summary=sentence,
            confidence="likely",
            faults=(fault, *self.trace.faults),
        )

    def _spared(self) -> str | None:
        """What the model says of a rule that a lost packet came by and that did not end it."""
        for path in self.trace.paths:
            cause = path.cause
            if cause is None or cause.code not in RULES or "handle" not in cause.facts:
                continue
            came_by = any(
                ruling.inode == cause.inode
                and self.trace.paths[spot[0]].direction is path.direction
                for spot, ruling in self.met
            )
            if came_by and cause.inode in self.heard.listened:
                return f"the model says: {cause.text}; the kernel's trace shows no rule that drops"
        return None

    def _disagrees(self, text: str, evidence: tuple[Evidence, ...], *faults: Fault) -> Trace:
        old = tuple(replace(each, confidence="possible") for each in self.trace.faults)
        trace = replace(
            self._with_evidence(evidence) if not faults else self.trace,
            disposition=Disposition.MODEL_DISAGREES,
            summary=f"model and kernel disagree: {text}",
            confidence="possible",
        )
        return replace(trace, faults=(*faults, *old)) if faults else trace

    def _with_evidence(self, evidence: tuple[Evidence, ...]) -> Trace:
        """The first error with more evidence."""
        faults = list(self.trace.faults)
        for number, fault in enumerate(faults):
            if fault.severity == "error":
                faults[number] = replace(fault, evidence=(*fault.evidence, *evidence))
                break
        return replace(self.trace, faults=tuple(faults))

    def _by_reason(self, drops: list[Tied], evidence: tuple[Evidence, ...]) -> Trace:
        """The kernel told why; it is a fault of its own where nothing else explains the loss."""
        named = any(fault.severity == "error" for fault in self.trace.faults)
        if named or self.trace.disposition is not Disposition.UNEXPLAINED:
            return self._with_evidence(evidence)
        spot = place_of(self.trace.paths, drops[0])
        if spot is None:
            return self.trace
        hop = self.trace.paths[spot[0]].hops[spot[1]]
        sentence = (
            f"the kernel dropped it after {hop.where.netns} {hop.where.interface} {hop.side}: "
            f"{evidence[0].value}"
        )
        every = {tied.last.probe for tied in drops} == self.lost
        fault = Fault(
            id="kernel.dropped",
            number=None,
            where=hop.where,
            sentence=sentence,
            evidence=evidence,
            confidence="likely" if every else "possible",
        )
        return replace(
            self.trace,
            summary=f"{sentence}; nothing in the state explains it",
            faults=(fault, *self.trace.faults),
        )

    def _meanwhile(self) -> Trace:
        """No drop is tied to a probe: say what was dropped in the same time, and no more."""
        found = loose_drops(self.observation, self.heard.events, tuple(self.lost))
        evidence = tuple(
            Evidence(
                kind="drop",
                key="dropped meanwhile, whose packet is not known",
                value=f"{_meant(reason)} in {function}, {count} times",
            )
            for (reason, function), count in found.items()
            if count == len(self.lost) and self._fits(reason)
        )[:MOST_GUESSES]
        if evidence and any(fault.severity == "error" for fault in self.trace.faults):
            return self._with_evidence(evidence)
        if not evidence or self.trace.disposition is not Disposition.UNEXPLAINED:
            return self.trace
        where = self.trace.paths[0].hops[0].where
        sentence = "the kernel dropped IPv4 packets meanwhile; whether it were these is not known"
        fault = Fault(
            id="kernel.dropped-meanwhile",
            number=None,
            where=where,
            sentence=sentence,
            evidence=evidence,
            confidence="possible",
        )
        return replace(self.trace, faults=(*self.trace.faults, fault))

    def _fits(self, reason: str) -> bool:
        """Whether it says more than that something was dropped somewhere on this machine."""
        if not any(fault.severity == "error" for fault in self.trace.faults):
            return True
        return reason.startswith(FITTING.get(self.trace.disposition, ()))


def _meant(reason: str) -> str:
    return f"{reason} ({WORDS[reason]})" if reason in WORDS else reason


def _is_it(path: Path, inode: int, ruled: Ruled) -> bool:
    """Whether the model says that this very rule ends it."""
    cause = path.cause
    if cause is None or cause.code not in RULES or cause.inode != inode:
        return False
    facts = cause.facts
    if (facts.get("table"), facts.get("chain")) != (ruled.table, ruled.chain):
        return False
    handle = facts.get("handle")
    return handle is None or ruled.handle is None or handle == str(ruled.handle)


def _deletion(ruled: Ruled) -> Fix:
    if ruled.handle is None:
        return Fix(text="if it should pass, add a rule to this chain that accepts it")
    command = f"nft delete rule {ruled.family} {ruled.table} {ruled.chain} handle {ruled.handle}"
    return Fix(text="if it should pass, delete the rule", command=command)
