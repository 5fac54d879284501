"""A write that returned is on disk: the syncs of the SQLite store's log, counted."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.durability import Durability, SyncFailed
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import DatastoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Syncs:
    """Counts calls of fdatasync; `act` runs inside each, before the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.act: Callable[[], None] = lambda: None
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.count += 1
        self.act()
        self._real(descriptor)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "datastore.db")
    yield store
    store.close()


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_every_write_waits_for_its_sync(store: SQLiteStore, syncs: Syncs) -> None:
    for number in range(3):
        store.create(f"/{number}", {})
        assert syncs.count == number + 1


def test_a_refused_write_syncs_nothing(store: SQLiteStore, syncs: Syncs) -> None:
    store.create("/a", {})
    with pytest.raises(Exception, match="exists"):
        store.create("/a", {})
    assert syncs.count == 1


def test_writes_made_together_are_seen_at_once_and_synced_once(
    store: SQLiteStore, syncs: Syncs
) -> None:
    other = SQLiteStore(store.path)
    with store.together():
        for key in ("/a", "/b", "/c"):
            with store.together():
                store.create(key, {})
            assert other.get(key) is not None
        assert syncs.count == 0
    assert syncs.count == 1
    with store.together():
        assert store.get("/a") is not None
    assert syncs.count == 1
    other.close()


def test_what_was_written_before_an_exception_is_synced(store: SQLiteStore, syncs: Syncs) -> None:
    def act() -> None:
        with store.together():
            store.create("/a", {})
            raise KeyError

    with pytest.raises(KeyError):
        act()
    assert syncs.count == 1


def test_a_disk_that_refuses_is_reported_and_later_writes_go_on(
    store: SQLiteStore, syncs: Syncs
) -> None:
    syncs.act = fail
    with pytest.raises(DatastoreUnavailable, match="Input/output error"):
        store.create("/a", {})
    with pytest.raises(DatastoreUnavailable), store.together():
        store.create("/b", {})
    syncs.act = lambda: None
    store.create("/c", {})
    assert len(store.list("/").entries) == 3


def test_the_log_may_have_gone_with_the_last_connection(store: SQLiteStore, syncs: Syncs) -> None:
    with store.together():
        store.create("/a", {})
        store.close()  # SQLite syncs the database itself
    assert syncs.count == 0


def test_one_sync_serves_everybody_who_waits(tmp_path: Path, syncs: Syncs) -> None:
    log = tmp_path / "log"
    log.touch()
    durability = Durability(log)
    first, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        first.set()
        assert go_on.wait(30)

    syncs.act = hold
    threads = [threading.Thread(target=durability.committed) for _ in range(9)]
    threads[0].start()
    assert first.wait(30)
    for thread in threads[1:]:
        thread.start()
    while durability.waiting < len(threads):
        assert any(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join()
    assert syncs.count == 2  # the first one's own, and one for all who came meanwhile


def test_a_failed_sync_is_told_to_all_it_was_for(tmp_path: Path, syncs: Syncs) -> None:
    log = tmp_path / "log"
    log.touch()
    durability = Durability(log)
    failures: list[Exception] = []
    first, go_on = threading.Event(), threading.Event()

    def hold_then_fail() -> None:
        if syncs.count == 1:
            first.set()
            assert go_on.wait(30)
        elif syncs.count == 2:
            fail()

    def commit() -> None:
        try:
            durability.committed()
        except SyncFailed as error:
            failures.append(error)

    syncs.act = hold_then_fail
    threads = [threading.Thread(target=commit) for _ in range(5)]
    threads[0].start()
    assert first.wait(30)
    for thread in threads[1:]:
        thread.start()
    while durability.waiting < len(threads):
        assert any(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(failures) == 4
    durability.committed()  # a later commit has a sync of its own
