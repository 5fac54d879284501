"""The table of a report: one row per place, beside it what was predicted and what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.trace.schema import Direction, Disposition, Hop, Path, Question, Result, Step, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.trace.flow import Packet

WIDTH = 100
_LEAD = 4
_DROPS = frozenset({"DROPPED", "DENIED", "REJECTED"})
CALM = frozenset({Result.MATCH, None})
"""What needs no row of its own at the port of a bridge."""
_SEEN = {
    Result.MATCH: "●",
    Result.EXTRA: "●",
    Result.DIFFERS: "≠",
    Result.MISSING: "✘",
    None: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How wide everything is; names are told apart by their ends, so these are kept."""

    where: int
    link: int
    seen: bool

    @property
    def what(self) -> int:
        """What the marks leave."""
        marks = 18 if self.seen else 6
        return WIDTH - _LEAD - 1 - self.where - 1 - self.link - 1 - marks

    def head(self, title: str) -> str:
        """The line above the rows."""
        marks = " pred seen     +µs" if self.seen else " pred"
        names = f"{title:<{self.where}} {'interface':<{self.link}} {'what':<{self.what}}"
        return f"{'':<{_LEAD}} {names}{marks}"

    def row(self, cells: tuple[str, str, str, str], marks: tuple[str, str, str]) -> str:
        """Lead, place, link and text, then predicted, seen and time; long texts are folded."""
        lead, where, link, what = cells
        first, *rest = _wrapped(what, self.what)
        place = f"{_cut(where, self.where):<{self.where}} {_cut(link, self.link):<{self.link}}"
        line = f"{lead:<{_LEAD}} {place} {first:<{self.what}}  {marks[0]:<3}"
        if self.seen:
            line += f"  {marks[1]:<2} {marks[2]:>8}"
        indent = " " * (_LEAD + 1 + self.where + 1 + self.link + 1)
        return "\n".join([line.rstrip(), *(f"{indent}{each}" for each in rest)])


PREDICTED = Columns(where=16, link=19, seen=False)
COMPARED = Columns(where=14, link=19, seen=True)


def table(path: Path, trace: Trace, *, verbose: bool) -> Iterator[str]:
    """One direction, or one branch of it."""
    columns = PREDICTED if trace.probing is None else COMPARED
    forward = path.direction is Direction.FORWARD
    several = [each for each in trace.paths if each.direction is path.direction]
    branch = f" (way {path.branch + 1} of {len(several)})" if several[1:] else ""
    yield columns.head(("there" if forward else "back") + branch)
    rows = _Rows(columns=columns, path=path, verbose=verbose)
    arrow = "──▶" if forward else "◀──"
    crossed: list[str] = []
    for number, hop in enumerate(path.hops):
        last = number + 1 == len(path.hops)
        if hop.role == "port" and not verbose and not last and hop.result in CALM:
            crossed.append(hop.where.netns or "?")
            continue
        if number and _is_wire(path.hops, number):
            over = f" over the bridge of {crossed[0]}" if crossed else ""
            yield f"     ┄ wire ┄{over}"
        crossed = []
        yield from rows.of(hop, f" {arrow}" if number == 0 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The rows of one path."""

    columns: Columns
    path: Path
    verbose: bool

    def of(self, hop: Hop, lead: str) -> Iterator[str]:
        """The rows of one place."""
        name = (hop.where.netns or "?").rpartition("/")[2]
        link = f"{hop.where.interface or '-'} {hop.side}"
        main = _main(hop.steps)
        extra = hop.result is Result.EXTRA
        what = main.text if main is not None else _header(hop.packet)
        predicted = "" if extra else "●"
        since = "" if hop.observed is None else str(hop.observed.since_ns // 1000)
        marks = (predicted, _SEEN[hop.result], since)
        yield self.columns.row(
            (lead, name, link, f"not predicted: {what}" if extra else what), marks
        )
        if hop.observed is not None:
            for each in hop.observed.differences:
                yield self.columns.row(("", "", "", each), ("", "", ""))
        for step in hop.steps:
            if step.component == "ARP" and "kind" in step.detail:
                yield self._asked(step)
            elif self.verbose and step is not main:
                yield self.columns.row(("", "", step.component, step.text), ("", "", ""))
        if any(step.action in _DROPS for step in hop.steps):
            yield self._lost(hop)
        yield from self._told(hop)

    def _told(self, hop: Hop) -> Iterator[str]:
        """What the kernel itself said of the packet here."""
        for ruled in hop.ruled:
            ends = ruled.verdict == "drop"
            if ends or self.verbose:
                onward = f" {ruled.target}" if ruled.target else ""
                text = f"{ruled.place}: {ruled.verdict}{onward}"
                yield self.columns.row(("", "│ rule", "", text), ("", "✘" if ends else "", ""))
        for dropped in hop.dropped:
            text = f"{dropped.reason} in {dropped.function}"
            yield self.columns.row(("", "│ dropped", "", text), ("", "✘", ""))

    def _asked(self, step: Step) -> str:
        target = str(step.detail["target"])
        found = next((each for each in self.path.questions if str(each.target) == target), None)
        text = step.text
        if found is not None and found.took_ns is not None:
            text += f", after {found.took_ns // 1000} µs"
        return self.columns.row(("", "│ ARP", target, text), ("●", _heard(found), ""))

    def _lost(self, hop: Hop) -> str:
        last = hop.steps[-1]
        silent = f"; {last.detail.get('sentBack') or self._unheard(hop, last)}"
        later = self.path.hops[self.path.hops.index(hop) + 1 :]
        gone = hop.result is Result.MATCH and not any(each.observed for each in later)
        return self.columns.row(
            ("", "", "", f"{last.text}{silent}"), ("✘", "✘" if gone else "", "")
        )

    def _unheard(self, hop: Hop, step: Step) -> str:
        """What the sender learns of a loss that nothing is sent back about."""
        reason = str(step.detail.get("reason"))
        made_here = self.path.direction is Direction.FORWARD and hop.where.interface is None
        if made_here and reason.startswith("source-"):
            return "its program is told at once"
        if made_here and self.path.disposition is Disposition.NEIGHBOR_FAILED:
            return "its program is told after 3 s"
        if reason == "loop":
            return "it goes round until its TTL is spent"
        return "silently"


def _heard(question: Question | None) -> str:
    """A dot when the answer was seen; what was known already need not be asked."""
    if question is None or question.observed is None:
        return ""
    if question.took_ns is not None:
        return "●"
    return "✘" if question.observed.startswith("asked") else ""


def _is_wire(hops: tuple[Hop, ...], number: int) -> bool:
    """Whether the packet crossed from one node to another just before this hop."""
    before = [hop for hop in hops[:number] if hop.role != "port"]
    return (
        bool(before)
        and hops[number].side == "in"
        and before[-1].where.node != hops[number].where.node
    )


def _main(steps: tuple[Step, ...]) -> Step | None:
    """The step that says most about a place."""
    for component in ("Tunnel", "Routing", "Socket"):
        for step in steps:
            if step.component == component and step.action not in _DROPS:
                return step
    return None


def _header(packet: Packet) -> str:
    port = "" if packet.destination_port is None else f"/{packet.destination_port}"
    more = ""
    if packet.inner is not None:
        added = packet.length - packet.inner.length
        more = f" +{added} bytes" if added >= 0 else f" in pieces of {packet.length} bytes"
    way = f"{packet.source} → {packet.destination}"
    return f"{way} {packet.protocol}{port} ttl {packet.ttl}{more}"


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[-(width - 1) :]}"
