"""ARP as it was seen, beside the predicted questions; and what nobody answered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace.questions import questions

if TYPE_CHECKING:
    from podwire.trace.observation import Observation
    from podwire.trace.questions import AskedARP
    from podwire.trace.schema import Question
    from podwire.trace.world import World


def beside(world: World, question: Question, observation: Observation) -> Question:
    """The question with what was seen of it."""
    asked = [
        each
        for each in questions(observation)
        if each.side == "out"
        and each.target == question.target
        and question.asker == f"{_title(world, each.inode)} {each.interface}"
    ]
    if not asked:
        return replace(question, observed="not asked: known already")
    answered = next((each for each in asked if each.answered_ns is not None), None)
    if answered is None:
        times = sum(len(each.asked_ns) for each in asked)
        return replace(question, observed=f"asked {times} times, not answered")
    took = answered.delay_ns
    said = f"{' and '.join(answered.macs)} answered after {(took or 0) // 1000} µs"
    return replace(question, observed=said, took_ns=took)


def _title(world: World, inode: int) -> str | None:
    space = world.spaces.get(inode)
    return None if space is None else space.title


def unanswered(observation: Observation) -> list[AskedARP]:
    """What was asked in vain anywhere, in the order of time."""
    return [
        each for each in questions(observation) if each.side == "out" and each.answered_ns is None
    ]
