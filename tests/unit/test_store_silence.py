"""Who asks a datastore that does not answer, and when; time is counted by hand."""

from __future__ import annotations

import pytest

from podwire.drivers.store.etcd.silence import LONG_S, PAUSE_S, Silence
from podwire.errors import DatastoreUnavailable

CALL_S = 5.0


class Asking:
    """Calls that are made at moments of our choice."""

    def __init__(self) -> None:
        self.now = 100.0
        self.silence = Silence(CALL_S, lambda: self.now)

    def is_let_through(self) -> bool:
        try:
            self.silence.respect()
        except DatastoreUnavailable:
            return False
        return True

    def wait_in_vain(self, seconds: float = CALL_S) -> None:
        since = self.now
        self.now += seconds
        self.silence.unanswered(since, DatastoreUnavailable("nobody there"))


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_after_one_call_in_vain_the_others_are_told_at_once(asking: Asking) -> None:
    assert asking.is_let_through()
    asking.wait_in_vain()
    assert not asking.is_let_through()
    with pytest.raises(DatastoreUnavailable, match="nobody there"):
        asking.silence.respect()


def test_after_the_pause_one_asks_for_all(asking: Asking) -> None:
    asking.wait_in_vain()
    asking.now += PAUSE_S
    assert [asking.is_let_through() for _ in range(3)] == [True, False, False]
    asking.silence.answered()
    assert [asking.is_let_through() for _ in range(3)] == [True, True, True]


def test_the_one_who_asks_in_vain_begins_the_next_pause(asking: Asking) -> None:
    asking.wait_in_vain()
    asking.now += PAUSE_S
    assert asking.is_let_through()
    asking.wait_in_vain()
    assert not asking.is_let_through()
    asking.now += PAUSE_S
    assert asking.is_let_through()


def test_the_one_who_asks_and_never_returns_is_followed_by_another(asking: Asking) -> None:
    asking.wait_in_vain()
    asking.now += PAUSE_S
    assert asking.is_let_through()
    asking.now += CALL_S
    assert asking.is_let_through()


def test_a_call_that_asked_for_too_much_silences_nobody(asking: Asking) -> None:
    since = asking.now
    asking.now += 1
    asking.silence.answered()  # somebody else's, meanwhile
    asking.now += 1
    asking.silence.unanswered(since, DatastoreUnavailable("nobody there"))
    assert asking.is_let_through()


def test_who_is_turned_away_at_once_silences_nobody_and_ends_a_silence(asking: Asking) -> None:
    asking.wait_in_vain(LONG_S / 10)
    assert asking.is_let_through()
    asking.wait_in_vain()
    asking.now += PAUSE_S
    assert asking.is_let_through()
    asking.wait_in_vain(LONG_S / 10)  # it is back, and refuses connections
    assert asking.is_let_through()
    assert asking.is_let_through()
