"""plan, DeltaTracker and backoff: state in, state out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import LinkNotReady
from podwire.reconcile.backoff import LONGEST_DELAY_S, Failures, delay_s
from podwire.reconcile.delta import DeltaTracker
from podwire.reconcile.plan import Plan, plan

if TYPE_CHECKING:
    from podwire.reconcile.backoff import Draw


@dataclass(frozen=True)
class Mark:
    """A value with its owner."""

    owner: str
    content: int = 0


def ours(_key: int, value: Mark) -> bool:
    return value.owner == "us"


keys = st.integers(0, 7)
wanted = st.dictionaries(keys, st.builds(Mark, st.just("us"), st.integers(0, 2)))
present = st.dictionaries(keys, st.builds(Mark, st.sampled_from(["us", "them"]), st.integers(0, 2)))


def applied(changes: Plan[int, Mark], actual: dict[int, Mark]) -> dict[int, Mark]:
    after = {key: value for key, value in actual.items() if key not in changes.deletes}
    return after | dict(changes.writes)


@given(wanted, present)
def test_a_plan_applied_to_actual_gives_desired(
    desired: dict[int, Mark], actual: dict[int, Mark]
) -> None:
    changes = plan(desired, actual, ours)
    after = applied(changes, actual)
    foreign = {key: value for key, value in actual.items() if value.owner == "them"}
    assert after == desired | foreign
    assert changes.conflicts.keys() == desired.keys() & foreign.keys()


@given(wanted, present)
def test_only_what_is_ours_is_deleted_or_replaced(
    desired: dict[int, Mark], actual: dict[int, Mark]
) -> None:
    changes = plan(desired, actual, ours)
    assert all(value.owner == "us" for value in changes.deletes.values())
    assert all(actual[key].owner == "us" for key in changes.writes if key in actual)


@given(present)
def test_the_plan_of_equal_states_is_empty(state: dict[int, Mark]) -> None:
    changes = plan(state, state, ours)
    assert changes.is_empty
    assert not changes.conflicts


@given(wanted, present)
def test_a_second_plan_has_nothing_left_to_do(
    desired: dict[int, Mark], actual: dict[int, Mark]
) -> None:
    assert plan(desired, applied(plan(desired, actual, ours), actual), ours).is_empty


def as_good(wanted: Mark, foreign: Mark) -> bool:
    return wanted.content == foreign.content


@given(wanted, present)
def test_what_serves_as_well_is_no_conflict_and_is_not_touched(
    desired: dict[int, Mark], actual: dict[int, Mark]
) -> None:
    strict, lenient = plan(desired, actual, ours), plan(desired, actual, ours, as_good)
    assert (lenient.writes, lenient.deletes) == (strict.writes, strict.deletes)
    assert lenient.conflicts == {
        key: value for key, value in strict.conflicts.items() if not as_good(desired[key], value)
    }


moves = st.lists(
    st.one_of(
        st.tuples(st.just("want"), keys, st.builds(Mark, st.just("us"), st.integers(0, 2))),
        st.tuples(st.just("unwant"), keys, st.just(Mark("us"))),
        st.tuples(st.just("saw"), keys, st.builds(Mark, st.sampled_from(["us", "them"]))),
        st.tuples(st.just("gone"), keys, st.just(Mark("us"))),
    )
)


@given(moves)
def test_the_tracker_always_knows_the_plan(steps: list[tuple[str, int, Mark]]) -> None:
    tracker: DeltaTracker[int, Mark] = DeltaTracker(ours, as_good)
    for verb, key, value in steps:
        match verb:
            case "want":
                tracker.want(key, value)
            case "unwant":
                tracker.unwant(key)
            case "saw":
                tracker.saw(key, value)
            case _:
                tracker.gone(key)
        assert tracker.pending == plan(tracker.desired, tracker.actual, ours, as_good)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["want", "unwant", "saw", "gone"]),
            keys,
            st.builds(Mark, st.sampled_from(["us", "them"]), st.integers(0, 2)),
        ),
        max_size=30,
    )
)
def test_drift_is_what_was_right_and_changed_by_itself(
    steps: list[tuple[str, int, Mark]],
) -> None:
    tracker: DeltaTracker[int, Mark] = DeltaTracker(ours)
    was_right: dict[int, Mark] = {}
    for verb, key, value in steps:
        match verb:
            case "want":
                tracker.want(key, value)
            case "unwant":
                tracker.unwant(key)
            case "saw":
                tracker.saw(key, value)
            case _:
                tracker.gone(key)
        desired, actual = tracker.desired, tracker.actual
        # Right since it was last wanted otherwise, at some moment.
        was_right = {k: v for k, v in was_right.items() if desired.get(k) == v}
        was_right |= {k: v for k, v in desired.items() if actual.get(k) == v}
        assert tracker.drifted == {k for k, v in was_right.items() if actual.get(k) != v}


@given(wanted, present, present)
def test_a_resync_forgets_what_memory_had_wrong(
    desired: dict[int, Mark], believed: dict[int, Mark], true: dict[int, Mark]
) -> None:
    tracker: DeltaTracker[int, Mark] = DeltaTracker(ours)
    for key, value in desired.items():
        tracker.want(key, value)
    tracker.resync(believed.items())
    news = tracker.resync(true.items())
    assert tracker.actual == true
    assert tracker.pending == plan(desired, true, ours)
    assert (news == 0) == (believed == true)


def test_an_event_during_an_audit_is_not_undone_by_its_end() -> None:
    tracker: DeltaTracker[int, Mark] = DeltaTracker(ours)
    tracker.saw(1, Mark("us"))
    tracker.begin_audit()
    tracker.saw(2, Mark("us"))
    tracker.gone(1)
    tracker.saw(1, Mark("us", 2))
    assert tracker.end_audit() == 0
    assert tracker.actual == {1: Mark("us", 2), 2: Mark("us")}


def loaded_dice(low: float, high: float) -> float:
    return high


@given(st.integers(1, 10_000))
def test_delays_grow_up_to_the_longest(attempt: int) -> None:
    first, second = delay_s(attempt, loaded_dice), delay_s(attempt + 1, loaded_dice)
    assert 0 < first <= second <= LONGEST_DELAY_S


def comes_back(outage_s: float, draw: Draw) -> float:
    """Seconds after the end of an outage at which one who tries again and again gets through."""
    now = 0.0
    for attempt in count(1):
        now += delay_s(attempt, draw)
        if now >= outage_s:
            break
    return now - outage_s


@pytest.mark.parametrize(("outage_s", "most"), [(5, 70), (30, 30), (300, 30)])
def test_a_thousand_that_failed_together_come_back_apart(outage_s: float, most: int) -> None:
    draw = Random(outage_s).uniform
    back = Counter(int(comes_back(outage_s, draw) * 10) for _ in range(1000))
    assert max(back.values()) <= most  # in a tenth of a second
    assert max(back) <= LONGEST_DELAY_S * 10


def test_one_failing_object_waits_alone() -> None:
    failures: Failures[str] = Failures(loaded_dice)
    assert failures.failed("a", LinkNotReady("a is down"), now=100.0)
    assert not failures.failed("a", LinkNotReady("a is down"), now=100.0)
    assert not failures.may_try("a", now=100.0)
    assert failures.may_try("b", now=100.0)
    assert failures.next_try() == 100.2
    failures.try_at_once()
    assert failures.may_try("a", now=100.0)
    failures.succeeded("a")
    assert failures.next_try() is None
