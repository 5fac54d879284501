"""Policy: what the rules of a hook decide, as steps of the walk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace import filter as rules
from podwire.trace.cursor import Cursor, cause_at
from podwire.trace.schema import Disposition, Path, Step
from podwire.trace.space import Lacking
from podwire.trace.statements import RESET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.trace.filter import Outcome
    from podwire.trace.flow import Packet
    from podwire.trace.passage import Passage
    from podwire.trace.world import World


def judge(world: World, cursor: Cursor, passage: Passage) -> list[Cursor | Path]:
    """Let the rules of one hook decide; several ways where they leave it to chance.

    Raises:
        Lacking: something that decides was not read or is not modelled.
    """
    outcomes = rules.judge(cursor.space, passage)
    return [_judged(world, cursor, passage, outcome) for outcome in outcomes]


def onward(
    reached: Iterable[Cursor | Path], step: Callable[[Cursor], list[Cursor | Path]]
) -> list[Cursor | Path]:
    """Go on with each way that has not ended; a way nobody can follow ends as such."""
    found: list[Cursor | Path] = []
    for each in reached:
        if isinstance(each, Path):
            found.append(each)
            continue
        try:
            found += step(each)
        except Lacking as gap:
            found.append(each.lacking(gap))
    return found


def _judged(world: World, cursor: Cursor, passage: Passage, outcome: Outcome) -> Cursor | Path:
    verdict, packet = outcome.verdict, outcome.packet
    if verdict is not None:
        by = {
            "table": verdict.table,
            "chain": verdict.chain,
            "handle": verdict.handle,
            "policy": verdict.comment,
        }
        if verdict.action != "accept":
            # Where it was last: of a forwarded packet that is the link it came in by.
            link = cursor.space.links_by_name.get(passage.iif or passage.oif or "")
            text = f"{verdict.place} of {cursor.space.title} says {verdict.action}"
            known = {
                **by,
                "family": verdict.family,
                "line": verdict.line,
                "hook": passage.hook,
            }
            facts = {key: str(value) for key, value in known.items() if value is not None}
            cause = cause_at(cursor, world, link, f"rule-{verdict.action}", text, facts)
            icmp = None if verdict.refusal == RESET else verdict.refusal
            cause = replace(cause, icmp=icmp, reset=verdict.refusal == RESET)
            drops = verdict.action == "drop"
            disposition = Disposition.DENIED if drops else Disposition.REJECTED
            return cursor.dropped(disposition, cause, "Policy")
        text = f"{passage.hook}: {verdict.place} lets it pass"
        step = Step(component="Policy", action="PERMITTED", text=text, by=by)
        cursor = cursor.with_step(step)
    cursor = replace(cursor, packet=packet, rerouted=outcome.rerouted)
    return _translated(cursor, passage.packet, passage.hook)


def _translated(cursor: Cursor, before: Packet, hook: str) -> Cursor:
    now = cursor.packet
    was, is_now = _ends(before), _ends(now)
    if was == is_now:
        return cursor
    text = f"{hook}: {was} becomes {is_now}"
    detail = {
        "src": str(now.source),
        "dst": str(now.destination),
        "sport": now.source_port,
        "dport": now.destination_port,
    }
    return cursor.with_step(Step(component="NAT", action="TRANSLATED", text=text, detail=detail))


def _ends(packet: Packet) -> str:
    def end(address: object, port: int | None) -> str:
        return str(address) if port is None else f"{address}:{port}"

    source = end(packet.source, packet.source_port)
    return f"{source} → {end(packet.destination, packet.destination_port)}"
