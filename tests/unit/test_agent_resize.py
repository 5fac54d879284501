"""In which steps a live pod's cable gets another MTU."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.agent.resize import End, strokes

sizes = st.integers(576, 9000)


@given(sizes, sizes)
def test_the_host_takes_what_the_pod_sends_and_is_ready_last(before: int, wanted: int) -> None:
    ends = {End.HOST: before, End.POD: before}
    steps = strokes(before, wanted)
    for number, (end, mtu) in enumerate(steps, start=1):
        ends[end] = mtu
        assert ends[End.HOST] >= ends[End.POD]
        assert (ends[End.HOST] == wanted) == (number == len(steps)) or before == wanted
    assert ends == {End.HOST: wanted, End.POD: wanted}


@given(sizes, sizes, st.integers(0, 3))
def test_what_was_begun_and_left_is_finished_by_the_next(
    before: int, wanted: int, done: int
) -> None:
    ends = {End.HOST: before, End.POD: before}
    for end, mtu in strokes(before, wanted)[:done]:
        ends[end] = mtu
    if ends[End.HOST] != wanted:  # all that the agent looks at
        for end, mtu in strokes(ends[End.HOST], wanted):
            ends[end] = mtu
    if before != wanted:
        assert ends == {End.HOST: wanted, End.POD: wanted}
