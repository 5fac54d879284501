"""Policy: a verdict of the rule sets as a step of the walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace import filter as rules
from podwire.trace.cursor import cause_at
from podwire.trace.schema import Disposition, Path, Step

if TYPE_CHECKING:
    from podwire.trace.cursor import Cursor
    from podwire.trace.filter import Passage
    from podwire.trace.world import World


def judge(world: World, cursor: Cursor, passage: Passage) -> Cursor | Path:
    """Let the rule sets of one hook decide."""
    verdict = rules.judge(cursor.space, passage)
    if verdict is None:
        return cursor
    by = {
        "table": verdict.table,
        "chain": verdict.chain,
        "handle": verdict.handle,
        "policy": verdict.comment,
    }
    if verdict.action == "accept":
        text = f"{passage.hook}: {verdict.place} lets it pass"
        return cursor.with_step(Step(component="Policy", action="PERMITTED", text=text, by=by))
    link = cursor.space.links_by_name.get(passage.oif or passage.iif or "")
    text = f"{verdict.place} of {cursor.space.title} says {verdict.action}"
    facts = {key: str(value) for key, value in by.items() if value is not None}
    cause = cause_at(cursor, world, link, f"rule-{verdict.action}", text, facts)
    disposition = Disposition.DENIED if verdict.action == "drop" else Disposition.REJECTED
    return cursor.dropped(disposition, cause, "Policy")
