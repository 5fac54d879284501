"""Following a prefix: nothing is missed, and nothing is listed twice without need."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from podwire.agent.observe import Away, Changed, Inbox, Listed, StoreObserver
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import BadInput, DatastoreUnavailable, PodwireError, Restored
from tests.fakes.awaiting import wait_until
from tests.fakes.ipam_world import WatchedStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podwire.agent.observe import Message
    from podwire.boundary import Change, Revision, Watch


class BreakableWatch:
    """A watch that ends as a lost connection does."""

    def __init__(self, inner: Watch) -> None:
        self._inner = inner
        self.broken = threading.Event()

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        while not self.broken.is_set():
            if changes := self._inner.wait(0.005):
                return changes
        raise DatastoreUnavailable("the connection was lost")

    @property
    def position(self) -> Revision:
        return self._inner.position

    def close(self) -> None:
        self.broken.set()
        self._inner.close()


class BreakableStore(WatchedStore):
    """A store that can be cut off, with all its watches."""

    def __init__(self, inner: SingleObjectStore) -> None:
        super().__init__(inner)
        self.is_away = False
        self.refusal: PodwireError = DatastoreUnavailable("cut off")
        self.is_restored = False
        self.tries = 0
        self.before = self._refuse
        self.watches: list[BreakableWatch] = []

    def _refuse(self) -> None:
        if self.is_away:
            self.tries += 1
            raise self.refusal

    def watch(self, prefix: str, revision: Revision) -> BreakableWatch:
        self._refuse()
        if self.is_restored:
            self.is_restored = False
            raise Restored("revisions of before mean nothing")
        self.watches.append(BreakableWatch(self.inner.watch(prefix, revision)))
        return self.watches[-1]

    def cut(self) -> None:
        self.is_away = True
        for watch in self.watches:
            watch.broken.set()


class Heard:
    """What an observer has said so far."""

    def __init__(self) -> None:
        self.inner = SingleObjectStore()
        self.inner.create("/a/1", {})
        self.store = BreakableStore(self.inner)
        self.inbox = Inbox()
        self.messages: list[Message] = []
        self.restores: list[float] = []
        self.observer = StoreObserver(
            self.store, "/a/", self.inbox, lambda low, _high: low / 10, self.restores.append
        )

    def wait_for(self, *kinds: type[Message]) -> None:
        """Until the latest messages are of these kinds."""

        def came() -> bool:
            self.messages += self.inbox.take()
            return tuple(map(type, self.messages))[-len(kinds) :] == kinds

        wait_until(came)

    def told(self) -> list[str]:
        changed = [each for each in self.messages if isinstance(each, Changed)]
        return [change.key for each in changed for change in each.changes]


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    made.observer.start()
    made.wait_for(Listed, Changed)
    yield made
    made.observer.stop()


@pytest.mark.parametrize("refusal", [DatastoreUnavailable("cut off"), BadInput("no such file")])
def test_a_lost_connection_is_said_and_nothing_is_listed_again(
    heard: Heard, refusal: PodwireError
) -> None:
    heard.store.refusal = refusal
    heard.store.cut()
    heard.wait_for(Away)
    heard.inner.create("/a/2", {})
    heard.store.is_away = False
    wait_until(lambda: len(heard.store.watches) == 2)
    heard.wait_for(Changed, Changed)  # back again, and what was written meanwhile
    assert heard.told() == ["/a/2"]
    assert (heard.observer.losses, heard.observer.relists) == (1, 0)


def test_it_says_that_the_store_is_back_though_nothing_changed(heard: Heard) -> None:
    heard.store.cut()
    heard.wait_for(Away)
    assert heard.observer.away_at is not None
    heard.store.is_away = False
    heard.wait_for(Changed)
    assert heard.told() == []
    assert heard.observer.relists == 0


def test_it_goes_on_behind_the_last_change_it_told_of(heard: Heard) -> None:
    heard.inner.create("/a/2", {})
    heard.wait_for(Changed)
    heard.store.cut()
    heard.wait_for(Away)
    heard.store.is_away = False
    heard.wait_for(Changed)
    heard.inner.create("/a/3", {})
    heard.wait_for(Changed, Changed)
    assert heard.told() == ["/a/2", "/a/3"]


def test_it_lists_again_when_what_it_missed_is_not_kept(heard: Heard) -> None:
    heard.store.cut()
    heard.wait_for(Away)
    heard.inner.delete("/a/1")
    heard.inner.create("/a/2", {})
    heard.inner.compact()
    heard.store.is_away = False
    heard.wait_for(Listed, Changed)
    (again,) = [each for each in heard.messages if isinstance(each, Listed)][1:]
    assert [entry.key for entry in again.entries] == ["/a/2"]
    assert heard.observer.relists == 1


def test_a_restored_store_is_told_of_first_and_listed_as_such(heard: Heard) -> None:
    heard.store.cut()
    heard.wait_for(Away)
    heard.store.is_restored = True
    heard.store.is_away = False
    heard.wait_for(Listed, Changed)
    assert [each.is_restored for each in heard.messages if isinstance(each, Listed)] == [
        False,
        True,
    ]
    (away_s,) = heard.restores
    assert away_s > 0
    assert (heard.observer.restores, heard.observer.relists) == (1, 0)
    heard.inner.compact()
    heard.store.cut()
    heard.wait_for(Away)
    heard.store.is_away = False
    heard.wait_for(Changed)  # from the position of the new listing
