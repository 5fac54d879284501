"""Faults of rule sets: dropped, refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.faults import mending

if TYPE_CHECKING:
    from podwire.trace.case import Case
    from podwire.trace.schema import Fault


def rule(case: Case) -> Fault:
    """A firewall rule."""
    fix = mending.let_pass(case)
    if case.cause.code == "rule-reject":
        sentence = f"refused, not lost: {case.cause.text}"
        return case.fault("policy.rejected", 24, sentence, fix=fix)
    by_policy = "(policy)" in case.cause.text
    number = 22 if by_policy else 23
    return case.fault("policy.denied", number, f"dropped: {case.cause.text}", fix=fix)
