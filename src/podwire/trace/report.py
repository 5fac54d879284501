"""The trace for a terminal: verdict first, cause and fix before the table, one row per place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.trace.commands import commands
from podwire.trace.faults import WORTH_A_WARNING
from podwire.trace.schema import Direction, Disposition
from podwire.trace.table import WIDTH, table

if TYPE_CHECKING:
    from podwire.trace.schema import Fault, Hop, Probing, Trace

_ASCII = str.maketrans(
    {
        "✔": "+",
        "✘": "x",
        "●": "*",
        "│": "|",
        "┄": "-",
        "…": "~",
        "→": ">",
        "▶": ">",
        "◀": "<",
        "─": "-",
        "≠": "!",
        "µ": "u",
    }
)
_GREEN, _RED, _YELLOW, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_OPEN = frozenset({Disposition.INSUFFICIENT_INFO, Disposition.UNEXPLAINED, Disposition.MISMATCH})
"""Where no fault says it."""
_MARKS = {
    Disposition.DELIVERED_AND_ANSWERED: ("✔", _GREEN),
    Disposition.INSUFFICIENT_INFO: ("?", _YELLOW),
    Disposition.MISMATCH: ("≠", _YELLOW),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How much is said, and in which characters."""

    color: bool = False
    ascii: bool = False
    verbose: bool = False
    quiet: bool = False
    """The first line only."""
    minimal: bool = False
    """The stable form for tests: no times, no layout."""
    lab: str | None = None
    """The lab it is about: commands are shown as one types them outside of it."""


def render(trace: Trace, style: Style) -> str:
    """The report, ending with a newline."""
    if style.minimal:
        return "\n".join(minimal(trace)) + "\n"
    lines = _verdict(trace, style)
    if not style.quiet:
        lines += _explanation(trace, style)
        for path in trace.paths:
            lines += ["", *table(path, trace, verbose=style.verbose)]
        lines += _notes(trace)
    text = "\n".join(lines) + "\n"
    return text.translate(_ASCII) if style.ascii else text


def _verdict(trace: Trace, style: Style) -> list[str]:
    """One line; its details go to a second one when names are long."""
    ok = trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    mark, paint = _MARKS.get(trace.disposition, ("✘", _RED))
    word = "REACHABLE" if ok else str(trace.disposition)
    who = f"{trace.source.title} → {trace.destination.title} {trace.flow.title}  {word}"
    details = _facts(trace) if ok else _at(trace)
    lines = [f" {who}  {details}".rstrip()]
    if len(lines[0]) >= WIDTH:
        lines = [f" {who}", f"  {details}"]
    lines[0] = (f"{paint}{mark}{_OFF}" if style.color else mark) + lines[0]
    return lines[:1] if style.quiet else lines


def _facts(trace: Trace) -> str:
    if trace.probing is None:
        facts = ["predicted there and back", *_time_to_live(trace)]
    else:
        points = [hop for path in trace.paths for hop in path.hops if hop.result is not None]
        seen = sum(hop.observed is not None for hop in points)
        facts = [f"path as predicted, {seen} of {len(points)} points"]
        if trace.probing.steadiness != "steady":
            facts.append(trace.probing.steadiness.replace("-", " "))
        if trace.probing.rtt_ns is not None:
            facts.append(f"rtt {trace.probing.rtt_ns // 1000} µs")
    if trace.path_mtu is not None:
        facts.append(f"path MTU {trace.path_mtu}")
    return ", ".join(facts)


def _time_to_live(trace: Trace) -> list[str]:
    for path in trace.paths:
        if path.direction is Direction.RETURN and path.hops:
            return [f"ttl {path.hops[-1].packet.ttl}"]
    return []


def _at(trace: Trace) -> str:
    faults = [fault for fault in trace.faults if fault.severity == "error"]
    if not faults or faults[0].where.netns is None:
        return ""
    where = faults[0].where
    link = f" {where.interface}" if where.interface else ""
    return f"at {where.netns}{link}"


def _explanation(trace: Trace, style: Style) -> list[str]:
    lines: list[str] = []
    if trace.disposition in _OPEN:
        lines += ["", *_folded("Why", trace.summary)]
        if trace.bundle is not None:
            lines += _folded("", f"the states are kept: podwire trace --from {trace.bundle}")
    for fault in trace.faults:
        lines += ["", *_explained(fault, style)]
    if trace.faults and trace.disposition is not Disposition.DELIVERED_AND_ANSWERED:
        lines += _folded("Sure?", _sure(trace))
    return lines


def _sure(trace: Trace) -> str:
    if trace.probing is None:
        return f"{trace.confidence}: predicted from the kernels' state, not sent"
    probes = _fate_of_probes(trace.probing, rejected=trace.disposition is Disposition.REJECTED)
    if trace.confidence == "certain":
        return f"certain: the state says so, and the packet was seen to end there; {probes}"
    return f"{trace.confidence}: {probes}"


def _fate_of_probes(probing: Probing, *, rejected: bool) -> str:
    """`2 of 3 probes lost, 1 refused`; `rejected`: by a rule, which is no loss either."""
    sent = probing.sent
    lost = sent - probing.answered - probing.refused
    refused = probing.refused + (lost if rejected else 0)
    counts = {"lost": 0 if rejected else lost, "refused": refused, "answered": probing.answered}
    (first, number), *others = [(word, count) for word, count in counts.items() if count]
    return ", ".join(
        [f"{number} of {sent} probes {first}", *(f"{count} {word}" for word, count in others)]
    )


def _explained(fault: Fault, style: Style) -> list[str]:
    label = "Cause" if fault.severity == "error" else "Note"
    if fault.after is not None:
        label = "Then"
    elif fault.confidence == "possible":
        label = "Maybe"
    lines = _folded(label, fault.sentence)
    for each in fault.evidence:
        expected = f"  (expected: {each.expected})" if each.expected else ""
        place = f"{each.ns}: " if each.ns else ""
        lines += _folded("", f"{place}{each.key} = {each.value or 'none'}{expected}")
    if fault.fix is not None:
        lines += _folded("Fix", fault.fix.text)
        lines += [f"{'':10}{line}" for line in commands(fault.fix, fault.where, style.lab)]
        if fault.fix.verified_by is not None:
            lines += _folded("", "(checked: then reachable)")
    return lines


def _folded(label: str, text: str) -> list[str]:
    """`  Cause   text`, continued below itself."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > WIDTH - 10:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [f"  {label if n == 0 else '':<6}  {each}".rstrip() for n, each in enumerate(lines)]


def _notes(trace: Trace) -> list[str]:
    remarks = {
        remark.text
        for path in trace.paths
        for remark in path.remarks
        if remark.code not in WORTH_A_WARNING
    }
    if trace.disposition is Disposition.INSUFFICIENT_INFO and trace.probing is None:
        gaps = set()
    else:
        said = {f"{gap.what}: {gap.why}" for gap in trace.gaps}
        gaps = {each for each in said if each not in trace.summary}
    lines = [line for text in sorted(remarks | gaps) for line in _folded("note", text)]
    return ["", *lines] if lines else []


def minimal(trace: Trace) -> list[str]:
    """One line a fact, in a form that does not change between runs."""
    lines = [f"{trace.disposition} {trace.confidence}"]
    for fault in trace.faults:
        where = " ".join(each or "-" for each in (fault.where.netns, fault.where.interface))
        lines.append(f"fault {fault.id} {fault.number or '-'} {fault.confidence} {where}")
        if fault.fix is not None and fault.fix.command is not None:
            lines.append(f"fix {fault.fix.verified_by or '-'} {fault.fix.command}")
    for path in trace.paths:
        lines += [f"{path.direction} {path.branch} {_place(hop)}" for hop in path.hops]
        lines += [
            f"arp {each.asker} {each.target} {each.kind} {each.replier or '-'}"
            for each in path.questions
        ]
    return lines


def _place(hop: Hop) -> str:
    words = (hop.position, hop.where.netns, hop.where.interface, hop.side, hop.result)
    return " ".join(str(each or "-") for each in words)
