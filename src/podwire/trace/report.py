"""The trace for a terminal: verdict first, cause and fix before the table, one row per place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.trace.schema import Direction, Disposition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.trace.flow import Packet
    from podwire.trace.schema import Fault, Hop, Path, Step, Trace

WIDTH = 100
_WHERE, _LINK = 16, 19
_WHAT = WIDTH - 6 - _WHERE - 1 - _LINK - 1 - 5
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
    }
)
_GREEN, _RED, _YELLOW, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_DROPS = frozenset({"DROPPED", "DENIED", "REJECTED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How much is said, and in which characters."""

    color: bool = False
    ascii: bool = False
    verbose: bool = False
    quiet: bool = False
    """The first line only."""


def render(trace: Trace, style: Style) -> str:
    """The report, ending with a newline."""
    lines = _verdict(trace, style)
    if not style.quiet:
        lines += _explanation(trace)
        for path in trace.paths:
            lines += ["", *_table(path, trace, style)]
        lines += _notes(trace)
    text = "\n".join(lines) + "\n"
    return text.translate(_ASCII) if style.ascii else text


def _verdict(trace: Trace, style: Style) -> list[str]:
    """One line; its details go to a second one when names are long."""
    ok = trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    unknown = trace.disposition is Disposition.INSUFFICIENT_INFO
    mark, paint = ("✔", _GREEN) if ok else ("?", _YELLOW) if unknown else ("✘", _RED)
    word = "REACHABLE" if ok else str(trace.disposition)
    who = f"{trace.source.title} → {trace.destination.title} {trace.flow.title}  {word}"
    details = _facts(trace) if ok else _at(trace)
    lines = [f" {who}  {details}".rstrip()]
    if len(lines[0]) >= WIDTH:
        lines = [f" {who}", f"  {details}"]
    lines[0] = (f"{paint}{mark}{_OFF}" if style.color else mark) + lines[0]
    return lines[:1] if style.quiet else lines


def _facts(trace: Trace) -> str:
    facts = ["predicted there and back", *_time_to_live(trace)]
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
    if not faults:
        return ""
    where = faults[0].where
    link = f" {where.interface}" if where.interface else ""
    return f"at {where.netns}{link}"


def _explanation(trace: Trace) -> list[str]:
    if trace.disposition is Disposition.INSUFFICIENT_INFO:
        return ["", *_folded("Why", trace.summary)]
    lines: list[str] = []
    for fault in trace.faults:
        lines += ["", *_explained(fault)]
    if lines and trace.disposition is not Disposition.DELIVERED_AND_ANSWERED:
        lines += _folded(
            "Sure?", f"{trace.confidence}: predicted from the kernels' state, not sent"
        )
    return lines


def _explained(fault: Fault) -> list[str]:
    label = "Cause" if fault.severity == "error" else "Note"
    lines = _folded(label, fault.sentence)
    for each in fault.evidence:
        expected = f"  (expected: {each.expected})" if each.expected else ""
        place = f"{each.ns}: " if each.ns else ""
        lines += _folded("", f"{place}{each.key} = {each.value or 'none'}{expected}")
    if fault.fix is not None:
        lines += _folded("Fix", fault.fix.text)
        if fault.fix.command is not None:
            place = f" on {fault.where.netns}" if fault.where.netns else ""
            lines += _folded("", f"by hand{place}:  {fault.fix.command}")
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


def _table(path: Path, trace: Trace, style: Style) -> Iterator[str]:
    forward = path.direction is Direction.FORWARD
    several = [each for each in trace.paths if each.direction is path.direction]
    branch = f" (way {path.branch + 1} of {len(several)})" if several[1:] else ""
    title = ("there" if forward else "back") + branch
    yield f"     {title:<{_WHERE}} {'interface':<{_LINK}} {'what':<{_WHAT}} pred"
    arrow = "──▶" if forward else "◀──"
    crossed: list[str] = []
    for number, hop in enumerate(path.hops):
        if hop.role == "port" and not style.verbose and number + 1 < len(path.hops):
            crossed.append(hop.where.netns or "?")
            continue
        if number and _is_wire(path.hops, number):
            over = f" over the bridge of {crossed[0]}" if crossed else ""
            yield f"     ┄ wire ┄{over}"
        crossed = []
        yield from _rows(hop, f" {arrow}" if number == 0 else "    ", style)


def _is_wire(hops: tuple[Hop, ...], number: int) -> bool:
    """Whether the packet crossed from one node to another just before this hop."""
    before = [hop for hop in hops[:number] if hop.role != "port"]
    return (
        bool(before)
        and hops[number].side == "in"
        and before[-1].where.node != hops[number].where.node
    )


def _rows(hop: Hop, lead: str, style: Style) -> Iterator[str]:
    name = (hop.where.netns or "?").rpartition("/")[2]
    link = f"{hop.where.interface or '-'} {hop.side}"
    lost = any(step.action in _DROPS for step in hop.steps)
    main = _main(hop.steps)
    what = main.text if main is not None else _header(hop.packet)
    yield _row(lead, name, link, what, "●")
    for step in hop.steps:
        if step.component == "ARP" and "kind" in step.detail:
            yield _row("    ", "│ ARP", str(step.detail["target"]), step.text, "●")
        elif style.verbose and step is not main:
            yield _row("    ", "", step.component, step.text, "")
    if lost:
        last = hop.steps[-1]
        answer = last.detail.get("icmp")
        silent = f"; ICMP {answer} goes back" if answer else "; silently"
        yield _row("    ", "", "", f"{last.text}{silent}", "✘")


def _main(steps: tuple[Step, ...]) -> Step | None:
    """The step that says most about a place."""
    for component in ("Tunnel", "Routing", "Socket"):
        for step in steps:
            if step.component == component and step.action not in _DROPS:
                return step
    return None


def _header(packet: Packet) -> str:
    port = "" if packet.destination_port is None else f"/{packet.destination_port}"
    more = f" +{packet.length - packet.inner.length} bytes" if packet.inner is not None else ""
    way = f"{packet.source} → {packet.destination}"
    return f"{way} {packet.protocol}{port} ttl {packet.ttl}{more}"


def _row(lead: str, where: str, link: str, what: str, mark: str) -> str:
    first, *rest = _wrapped(what)
    text = f"{lead} {_cut(where, _WHERE):<{_WHERE}} {_cut(link, _LINK):<{_LINK}} {first:<{_WHAT}}"
    lines = [f"{text}  {mark}".rstrip()]
    indent = " " * (5 + _WHERE + 1 + _LINK + 1)
    lines += [f"{indent}{each}" for each in rest]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > _WHAT:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _cut(text: str, width: int) -> str:
    """Names are told apart by their ends."""
    return text if len(text) <= width else f"…{text[-(width - 1) :]}"


def _notes(trace: Trace) -> list[str]:
    remarks = {remark.text for path in trace.paths for remark in path.remarks}
    lines = [line for text in sorted(remarks) for line in _folded("note", text)]
    return ["", *lines] if lines else []
