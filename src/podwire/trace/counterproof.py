"""Counter-proof: mend the states as the printed fix would, and predict once more.

If the packet then arrives, the explanation is more than a guess. If it does not, the next fault
shows, and its fix is tried on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.predict import predict
from podwire.trace.remedy import NotUnderstood, with_command
from podwire.trace.schema import Disposition
from podwire.trace.world import World

if TYPE_CHECKING:
    from podwire.model.kernelstate import KernelState
    from podwire.trace.flow import Flow
    from podwire.trace.schema import Fault, Trace

MAX_FAULTS = 4
"""Fixes that are tried one on top of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked: the same is asked again of the mended states."""

    states: tuple[KernelState, ...]
    source: str
    destination: str
    flow: Flow

    def after(self, fault: Fault, trace: Trace) -> Question | None:
        """The same question once the fault's fix was run; None when that cannot be told."""
        if fault.fix is None or fault.fix.command is None:
            return None
        spaces = World(self.states).spaces.values()
        inodes = [each.inode for each in spaces if each.title == fault.where.netns]
        if not inodes:
            return None
        # Two clusters on one host can have namespaces of the same name: the one passed is meant.
        passed = {hop.inode for path in trace.paths for hop in path.hops}
        inode = next((each for each in inodes if each in passed), inodes[0])
        try:
            return replace(self, states=with_command(self.states, inode, fault.fix.command))
        except NotUnderstood:
            return None

    def predict(self) -> Trace:
        """The model's answer."""
        return predict(self.states, self.source, self.destination, self.flow)


def prove(trace: Trace, question: Question) -> Trace:
    """The trace with its fixes checked, and the faults that show only behind the first."""
    errors = [fault for fault in trace.faults if fault.severity == "error"]
    notes = tuple(_prove_note(each, trace, question) for each in trace.faults if each not in errors)
    if not errors:
        return replace(trace, faults=notes)
    chain, good = _mend(errors[0], trace, question)
    if good:
        chain = [_verified(each) for each in chain]
    known = {(each.id, each.where) for each in chain}
    others = [each for each in errors[1:] if (each.id, each.where) not in known]
    return replace(trace, faults=(*chain, *others, *notes))


def _mend(first: Fault, trace: Trace, question: Question) -> tuple[list[Fault], bool]:
    """The faults behind each other, and whether all is well when all are mended."""
    chain = [first]
    asked = question.after(first, trace)
    while asked is not None:
        again = asked.predict()
        if again.disposition is Disposition.DELIVERED_AND_ANSWERED:
            return chain, True
        known = {(each.id, each.where) for each in chain}
        found = next((each for each in again.faults if each.severity == "error"), None)
        if found is None or (found.id, found.where) in known or len(chain) == MAX_FAULTS:
            return chain, False
        chain.append(replace(found, after=chain[-1].id))
        asked = asked.after(found, again)
    return chain, False


def _verified(fault: Fault) -> Fault:
    assert fault.fix is not None
    return replace(fault, fix=replace(fault.fix, verified_by="counterproof"))


def _prove_note(fault: Fault, trace: Trace, question: Question) -> Fault:
    asked = question.after(fault, trace)
    if asked is None:
        return fault
    again = asked.predict()
    gone = all((each.id, each.where) != (fault.id, fault.where) for each in again.faults)
    good = again.disposition is Disposition.DELIVERED_AND_ANSWERED
    return _verified(fault) if gone and good else fault
