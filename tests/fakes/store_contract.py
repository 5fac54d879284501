"""What every Store must do; run for SQLite, for the store in memory, and for what follows."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from podwire.boundary import ABSENT, Verb, Write
from podwire.drivers.store.jsontext import Opaque
from podwire.errors import (
    AlreadyExists,
    BadInput,
    Compacted,
    Conflict,
    DatastoreUnavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Change, Store, Watch

PATIENCE_S = 30.0
"""How long to wait for what must come; a test that passes never waits so long."""


def take(watch: Watch, count: int) -> list[Change]:
    """The next `count` changes, or fewer when nothing more comes for a long time."""
    changes: list[Change] = []
    while len(changes) < count:
        more = watch.wait(PATIENCE_S)
        if not more:
            break
        changes += more
    return changes


def shown(changes: Sequence[Change]) -> list[tuple[str, object]]:
    return [(c.key, None if c.entry is None else c.entry.value) for c in changes]


class StoreContract(ABC):
    """Subclasses give the store and say how its history is forgotten."""

    @pytest.fixture
    @abstractmethod
    def store(self) -> Store: ...

    def beside(self, store: Store) -> Store:
        """The same datastore through another connection, where there is such a thing."""
        return store

    @abstractmethod
    def forget_history(self, store: Store) -> None:
        """Make the datastore compact all changes up to now."""

    def test_what_was_created_is_read_back_with_its_revision(self, store: Store) -> None:
        made = store.create("/a/1", {"x": [1, None, "ü", {"y": True}]})
        assert made.key == "/a/1"
        assert store.get("/a/1") == made

    def test_a_look_whether_it_takes_writes_leaves_nothing(self, store: Store) -> None:
        store.create("/a/1", {})
        before = store.list("/")
        watch = store.watch("/", before.revision)
        store.check_writable()
        store.check_writable()
        assert store.list("/") == before
        store.create("/a/2", {})
        assert shown(take(watch, 1)) == [("/a/2", {})]
        watch.close()

    def test_an_absent_key_is_none(self, store: Store) -> None:
        assert store.get("/a/1") is None

    def test_integers_beyond_2_to_the_53_are_exact(self, store: Store) -> None:
        store.create("/n", {"n": 1766400000000000001})
        entry = store.get("/n")
        assert entry is not None
        assert entry.value["n"] == 1766400000000000001

    @pytest.mark.parametrize("text", ["", " ", "[1]", "null", "half {"])
    def test_a_value_that_is_no_object_harms_only_itself(self, store: Store, text: str) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        made = store.create("/a/1", Opaque("/a/1", text))
        store.create("/a/2", {"n": 2})
        assert [entry.value for entry in store.list("/a/").entries] == [made.value, {"n": 2}]
        assert shown(take(watch, 2)) == [("/a/1", made.value), ("/a/2", {"n": 2})]
        watch.close()
        entry = store.get("/a/1")
        assert entry == made
        assert isinstance(entry.value, Opaque)
        assert entry.value.text == text
        if text.strip():
            with pytest.raises(BadInput, match="/a/1: the stored value is no JSON object"):
                entry.value.get("state")
        else:
            assert entry.value.get("state") is None
        assert store.update("/a/1", {"n": 1}, entry.revision) == store.get("/a/1")

    def test_create_refuses_a_key_that_is_taken(self, store: Store) -> None:
        made = store.create("/a", {"by": "first"})
        with pytest.raises(AlreadyExists):
            self.beside(store).create("/a", {"by": "second"})
        assert store.get("/a") == made

    def test_update_needs_the_revision_that_was_read(self, store: Store) -> None:
        old = store.create("/a", {"n": 1})
        new = store.update("/a", {"n": 2}, old.revision)
        assert new.revision != old.revision
        with pytest.raises(Conflict):
            store.update("/a", {"n": 3}, old.revision)
        assert store.get("/a") == new

    def test_update_of_an_absent_key_is_a_conflict(self, store: Store) -> None:
        old = store.create("/a", {})
        store.delete("/a")
        with pytest.raises(Conflict):
            store.update("/a", {}, old.revision)
        assert store.get("/a") is None

    def test_an_object_made_again_has_another_revision(self, store: Store) -> None:
        first = store.create("/a", {})
        store.delete("/a")
        assert store.create("/a", {}).revision != first.revision

    def test_delete_of_the_absent_is_success_unless_a_revision_was_given(
        self, store: Store
    ) -> None:
        store.delete("/a")
        revision = store.create("/a", {}).revision
        store.delete("/a", revision)
        assert store.get("/a") is None
        with pytest.raises(Conflict):
            store.delete("/a", revision)

    def test_delete_with_an_old_revision_keeps_the_object(self, store: Store) -> None:
        old = store.create("/a", {"n": 1})
        new = store.update("/a", {"n": 2}, old.revision)
        with pytest.raises(Conflict):
            store.delete("/a", old.revision)
        assert store.get("/a") == new

    def test_list_gives_what_is_below_the_prefix_in_key_order(self, store: Store) -> None:
        for key in ("/a/2", "/b/1", "/a/10", "/a", "/a/1", "/a0"):
            store.create(key, {"key": key})
        assert [entry.key for entry in store.list("/a/").entries] == ["/a/1", "/a/10", "/a/2"]
        assert len(store.list("").entries) == 6

    def test_a_watch_from_a_listing_misses_nothing(self, store: Store) -> None:
        first = store.create("/a/1", {"n": 1})
        store.create("/a/2", {"n": 1})
        listing = store.list("/a/")
        second = store.update("/a/1", {"n": 2}, first.revision)
        store.delete("/a/2")
        store.update("/a/1", {"n": 3}, second.revision)
        watch = store.watch("/a/", listing.revision)
        assert shown(take(watch, 3)) == [("/a/1", {"n": 2}), ("/a/2", None), ("/a/1", {"n": 3})]
        watch.close()

    def test_a_watch_gives_each_change_once_and_only_below_its_prefix(self, store: Store) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        beside = self.beside(store)
        beside.create("/b/1", {})
        made = beside.create("/a/1", {"n": 1})
        changes = take(watch, 1)
        assert [change.entry for change in changes] == [made]
        assert changes[0].revision == made.revision
        beside.create("/b/2", {})
        assert list(watch.wait(0)) == []
        beside.delete("/a/1")
        assert shown(take(watch, 1)) == [("/a/1", None)]
        watch.close()

    def test_a_watch_goes_on_from_the_last_change_seen(self, store: Store) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        store.create("/a/1", {})
        (seen,) = take(watch, 1)
        watch.close()
        store.create("/a/2", {})
        watch = store.watch("/a/", seen.revision)
        assert shown(take(watch, 1)) == [("/a/2", {})]
        watch.close()

    def test_the_position_of_a_watch_moves_with_what_it_has_told(self, store: Store) -> None:
        start = store.list("/a/").revision
        watch = store.watch("/a/", start)
        assert watch.position == start
        store.create("/a/1", {})
        (seen,) = take(watch, 1)
        assert watch.position == seen.revision
        store.create("/a/2", {})
        watch.close()
        again = store.watch("/a/", watch.position)
        assert shown(take(again, 1)) == [("/a/2", {})]
        again.close()

    def test_a_write_wakes_a_watch_that_waits(self, store: Store) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        seen: list[Change] = []
        thread = threading.Thread(target=lambda: seen.extend(watch.wait(PATIENCE_S)))
        thread.start()
        self.beside(store).create("/a/1", {})
        thread.join(PATIENCE_S)
        assert shown(seen) == [("/a/1", {})]
        watch.close()

    def test_closing_a_watch_wakes_the_thread_that_waits(self, store: Store) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        thread = threading.Thread(target=watch.wait)
        thread.start()
        watch.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert list(watch.wait()) == []

    def test_a_watch_that_lags_behind_compaction_misses_nothing_unsaid(self, store: Store) -> None:
        behind = store.watch("/a/", store.list("/a/").revision)
        store.create("/a/1", {"n": 1})
        store.delete("/a/1")
        self.forget_history(store)
        try:
            seen = shown(take(behind, 2))
        except Compacted:
            seen = []
        assert seen in ([], [("/a/1", {"n": 1}), ("/a/1", None)])
        behind.close()

    def test_after_compaction_a_watch_must_list_again(self, store: Store) -> None:
        before = store.list("/a/").revision
        store.create("/a/1", {"n": 1})
        store.delete("/a/1")
        store.create("/a/2", {"n": 2})
        self.forget_history(store)
        with pytest.raises(Compacted):
            store.watch("/a/", before)
        listing = store.list("/a/")
        assert [entry.key for entry in listing.entries] == ["/a/2"]
        watch = store.watch("/a/", listing.revision)
        store.create("/a/3", {})
        assert shown(take(watch, 1)) == [("/a/3", {})]
        watch.close()

    @pytest.mark.parametrize("revision", ["never given out", "999999999", ""])
    def test_a_watch_from_a_strange_revision_must_list_again(
        self, store: Store, revision: str
    ) -> None:
        with pytest.raises(Compacted):
            store.watch("/a/", revision)

    def test_no_increment_is_lost_between_threads(self, store: Store) -> None:
        store.create("/n", {"n": 0})

        def add(times: int, through: Store) -> None:
            while times:
                entry = through.get("/n")
                assert entry is not None
                try:
                    through.update("/n", {"n": entry.value["n"] + 1}, entry.revision)
                except Conflict:
                    continue
                times -= 1

        threads = [threading.Thread(target=add, args=(20, self.beside(store))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entry = store.get("/n")
        assert entry is not None
        assert entry.value == {"n": 80}

    def test_a_batch_writes_everything(self, store: Store) -> None:
        old = store.create("/a", {"n": 1})
        store.create("/b", {})
        writes = [
            Write(verb=Verb.UPDATE, key="/a", value={"n": 2}, revision=old.revision),
            Write(verb=Verb.DELETE, key="/b"),
            Write(verb=Verb.CREATE, key="/c", value={"n": 3}),
        ]
        if not store.can_batch:
            with pytest.raises(Unsupported):
                store.batch(writes)
            return
        watch = store.watch("/", store.list("/").revision)
        entries = store.batch(writes)
        assert list(entries) == [store.get("/a"), None, store.get("/c")]
        assert shown(take(watch, 3)) == [("/a", {"n": 2}), ("/b", None), ("/c", {"n": 3})]
        watch.close()

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Write(verb=Verb.CREATE, key="/taken", value={}), AlreadyExists),
            (Write(verb=Verb.UPDATE, key="/taken", value={}, revision="1234"), Conflict),
            (Write(verb=Verb.DELETE, key="/absent", revision="1234"), Conflict),
        ],
    )
    def test_a_batch_whose_condition_fails_writes_nothing(
        self, store: Store, bad: Write, error: type[Exception]
    ) -> None:
        if not store.can_batch:
            return
        taken = store.create("/taken", {"by": "first"})
        before = store.list("/")
        with pytest.raises(error):
            store.batch([Write(verb=Verb.CREATE, key="/new", value={}), bad])
        assert store.get("/new") is None
        assert store.get("/taken") == taken
        assert store.list("/") == before

    def test_a_value_that_is_kept_goes_with_its_writer(self, store: Store) -> None:
        if not store.can_expire:
            with pytest.raises(Unsupported):
                store.keep("/a/status", {}, 60, {})
            store.let_go("/a/status")
            return
        store.create("/a/last", {"by": "an earlier run"})
        watch = store.watch("/a/", store.list("/a/").revision)
        store.keep("/a/status", {"n": 1}, 60, {"/a/last": {"n": 1}})
        store.keep("/a/status", {"n": 2}, 60, {"/a/last": {"n": 2}})
        store.let_go("/a/status")
        assert shown(take(watch, 5)) == [
            ("/a/status", {"n": 1}),
            ("/a/last", {"n": 1}),
            ("/a/status", {"n": 2}),
            ("/a/last", {"n": 2}),
            ("/a/status", None),
        ]
        watch.close()
        store.let_go("/a/status")

    def test_a_value_is_kept_only_in_the_place_of_what_was_seen(self, store: Store) -> None:
        if not store.can_expire:
            return
        store.keep("/a/status", {"n": 1}, 60, {}, ABSENT)
        seen = store.list("/a/").entries
        for stale in (ABSENT, "1"):
            with pytest.raises(Conflict):
                store.keep("/a/status", {"n": 2}, 60, {"/a/last": {"n": 2}}, stale)
        assert store.list("/a/").entries == seen
        store.keep("/a/status", {"n": 3}, 60, {}, seen[0].revision)
        entry = store.get("/a/status")
        assert entry is not None
        assert entry.value == {"n": 3}

    def test_a_value_that_nobody_renews_vanishes_and_can_be_kept_again(self, store: Store) -> None:
        if not store.can_expire:
            return
        store.keep("/a/status", {"n": 1}, 1, {})
        watch = store.watch("/a/", store.list("/a/").revision)
        assert shown(take(watch, 1)) == [("/a/status", None)]
        watch.close()
        store.keep("/a/status", {"n": 2}, 60, {})
        entry = store.get("/a/status")
        assert entry is not None
        assert entry.value == {"n": 2}

    def test_a_closed_store_says_so(self, store: Store) -> None:
        watch = store.watch("/a/", store.list("/a/").revision)
        store.close()
        with pytest.raises(DatastoreUnavailable):
            store.get("/a")
        with pytest.raises(DatastoreUnavailable):
            watch.wait(PATIENCE_S)
