"""The SQLite store keeps the contract, alone and between processes that are killed."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import Compacted, DatastoreUnavailable, PodwireError
from podwire.model import codec, keys
from podwire.model.block import IPAMConfig
from tests.fakes.store_contract import PATIENCE_S, StoreContract, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from podwire.boundary import Store

ROOT = Path(__file__).parents[2]
FEW_STEPS, MANY_STEPS = 20, 2000
"""Every writer makes few steps before all of them together make many."""


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SQLiteStore(tmp_path / "datastore.db")
        self.opened: list[Store] = [store]
        yield store
        for each in self.opened:
            each.close()

    def beside(self, store: Store) -> Store:
        assert isinstance(store, SQLiteStore)
        other = SQLiteStore(store.path)
        self.opened.append(other)
        return other

    def forget_history(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        forgetful = SQLiteStore(store.path, kept_revisions=1)
        forgetful.create("/unrelated", {})
        forgetful.close()


def test_history_is_pruned_and_the_newest_part_kept(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "datastore.db", kept_revisions=300)
    start = store.list("").revision
    for number in range(700):
        store.delete(f"/{number}")
        store.create(f"/{number}", {})
    newest = int(store.list("").revision)
    with pytest.raises(Compacted):
        store.watch("", start)
    watch = store.watch("", str(newest - 300))
    assert len(take(watch, 300)) == 300
    watch.close()
    store.close()


def worker(path: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.store_worker", str(path), name], cwd=ROOT
    )


def test_four_processes_share_it_fairly_and_one_may_be_killed(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    store = SQLiteStore(path)
    store.create("/counter", {"n": 0})
    watch = store.watch("/mark/", store.list("/").revision)
    workers = {name: worker(path, name) for name in ("one", "two", "three", "four")}
    try:
        counted: list[int] = []
        steps: Counter[str] = Counter()

        def follow() -> None:
            for change in watch.wait(PATIENCE_S):
                assert change.entry is not None
                counted.append(change.entry.value["n"])
                steps[change.key.split("/")[2]] += 1

        while len(steps) < 4:  # until all have started
            follow()
        for rounds in range(5):
            victim = workers.pop("four" if rounds == 0 else f"again{rounds}")
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            workers[f"again{rounds + 1}"] = worker(path, f"again{rounds + 1}")
            while not steps[f"again{rounds + 1}"]:
                follow()
        before = Counter(steps)
        # In steps, not seconds: however slow the machine, nobody is left behind for long.
        while min((steps - before)[name] for name in workers) < FEW_STEPS:
            follow()
            assert (steps - before).total() < MANY_STEPS, steps - before
        store.create("/stop", {})
        assert [process.wait(PATIENCE_S) for process in workers.values()] == [0] * 4
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    while changes := watch.wait(0):
        counted += [change.entry.value["n"] for change in changes if change.entry is not None]
    watch.close()
    entry = store.get("/counter")
    assert entry is not None
    assert entry.value["n"] == len(store.list("/mark/").entries)
    assert counted == list(range(1, entry.value["n"] + 1))  # in order, each once
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def found_clusters(directory: str, together: Barrier, found: Queue[tuple[int, str]]) -> None:
    faulthandler.dump_traceback_later(2 * PATIENCE_S, exit=True)  # whoever hangs says where
    for number in range(5):
        together.wait()
        store = SQLiteStore(f"{directory}/{number}.db")
        try:
            found.put((number, ensure_cluster(store).guid))
        except PodwireError as error:
            found.put((number, str(error)))
        store.close()


def test_several_processes_may_make_the_same_datastore_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together: Barrier = context.Barrier(4)
    found: Queue[tuple[int, str]] = context.Queue()
    founders = [
        context.Process(target=found_clusters, args=(str(tmp_path), together, found), daemon=True)
        for _ in range(4)
    ]
    for founder in founders:
        founder.start()
    clusters = {found.get(timeout=2 * PATIENCE_S) for _ in range(20)}
    for founder in founders:
        founder.join(2 * PATIENCE_S)
    assert [founder.exitcode for founder in founders] == [0] * 4
    assert sorted(number for number, _ in clusters) == list(range(5)), clusters


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "datastore.db")
    store.create("/a", {})
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()


def test_looking_makes_no_datastore(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "datastore.db", create=False)
    attempts: list[Callable[[], object]] = [lambda: store.get("/a"), lambda: store.delete("/a")]
    for attempt in attempts:
        with pytest.raises(DatastoreUnavailable, match=r"there is no datastore .*datastore\.db"):
            attempt()
    assert list(tmp_path.iterdir()) == []
    store.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "gone" / "datastore.db")
    attempts: list[Callable[[], object]] = [lambda: store.list("/"), lambda: store.create("/a", {})]
    for attempt in attempts:
        with pytest.raises(DatastoreUnavailable, match=r"directory .*/gone does not exist") as bad:
            attempt()
        assert f"mkdir -p {tmp_path / 'gone'}" in (bad.value.fix or "")
    store.close()


def test_a_directory_is_no_datastore(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    with pytest.raises(DatastoreUnavailable, match=str(tmp_path)):
        store.get("/a")
    store.close()


def test_a_stranger_s_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    path.write_text("dear diary, " * 1000)
    store = SQLiteStore(path)
    attempts: list[Callable[[], object]] = [lambda: store.get("/a"), lambda: store.create("/a", {})]
    for attempt in attempts:
        with pytest.raises(DatastoreUnavailable, match="is not an SQLite database"):
            attempt()
    assert path.read_text() == "dear diary, " * 1000
    store.close()


def test_another_program_s_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    store = SQLiteStore(path)
    with pytest.raises(DatastoreUnavailable, match="database of another program"):
        store.create("/a", {})
    store.close()
    assert path.read_bytes() == before


def test_a_newer_format_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    store = SQLiteStore(path)
    store.create("/a", {})
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=7")
    connection.close()
    with pytest.raises(DatastoreUnavailable, match="has format 7"):
        SQLiteStore(path).get("/a")


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    store = SQLiteStore(path)
    for number in range(500):
        store.create(f"/{number}", {"filler": "x" * 100})
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DatastoreUnavailable, match=r"datastore\.db is damaged"):
        SQLiteStore(path).list("/")


def test_a_file_removed_in_use_takes_no_more_writes(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    store = SQLiteStore(path)
    store.create("/a", {})
    path.unlink()
    with pytest.raises(DatastoreUnavailable, match="removed or replaced"):
        store.create("/b", {})
    assert not path.exists()
    store.close()


def test_a_writer_that_never_ends_is_named(tmp_path: Path) -> None:
    path = tmp_path / "datastore.db"
    patient = SQLiteStore(path, timeout_s=0.2)
    patient.create("/a", {"n": 1})
    other = SQLiteStore(path)
    with other._file.writing():
        for _ in range(2):
            with pytest.raises(DatastoreUnavailable, match=r"waited 0\.2 s for other writers"):
                patient.create("/b", {})
        assert patient.get("/a") is not None  # readers do not wait
    patient.create("/b", {})
    for store in (patient, other):
        store.close()


def test_a_deleted_lock_file_loses_no_write(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "datastore.db")
    watch = store.watch("/", store.list("/").revision)
    store.create("/a", {})
    take(watch, 1)
    (tmp_path / "datastore.db-lock").unlink()
    store.create("/b", {})
    assert [change.key for change in take(watch, 1)] == ["/b"]
    watch.close()
    store.close()


@pytest.mark.parametrize("batches", [False, True])
def test_a_new_cluster_starts_strict_and_is_made_once(batches: bool) -> None:
    store = SingleObjectStore(batches=batches)
    made = ensure_cluster(store)
    assert ensure_cluster(store) == made
    assert store.writes == 2
    entry = store.get(keys.IPAM_CONFIG_KEY)
    assert entry is not None
    assert codec.decode(entry.key, entry.value) == IPAMConfig()
    assert made.ready


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every directory")
def test_a_directory_closed_to_us_is_no_stack_trace(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    store = SQLiteStore(closed / "datastore.db")
    attempts: list[Callable[[], object]] = [lambda: store.get("/a"), lambda: store.create("/a", {})]
    for attempt in attempts:
        with pytest.raises(DatastoreUnavailable, match=r"datastore\.db"):
            attempt()
