"""Whatever is written in whatever order: a store holds it, and its watch retells it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.boundary import Verb, Write
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import AlreadyExists, Conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Store

KEYS = st.sampled_from(["/a/1", "/a/2", "/a/10", "/b/1"])
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
VALUES = st.dictionaries(st.text(max_size=2), st.integers(-(2**63), 2**64 - 1), max_size=2)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "update old", "delete", "delete old", "delete any"]),
        KEYS,
        VALUES,
    ),
    max_size=6,
)


def in_memory(_: Path) -> Store:
    return SingleObjectStore(batches=True)


def in_a_file(directory: Path) -> Store:
    return SQLiteStore(directory / "datastore.db")


class Model:
    """What must come of it."""

    def __init__(self) -> None:
        self.now: dict[str, tuple[object, str]] = {}
        self.old: dict[str, str] = {}

    def write(self, verb: str, key: str, value: dict[str, int]) -> Write:
        there = self.now.get(key)
        revision = "never" if there is None else there[1]
        if verb.endswith("old"):
            revision = self.old.get(key, "never")
        if verb == "create":
            return Write(verb=Verb.CREATE, key=key, value=value)
        if verb.startswith("update"):
            return Write(verb=Verb.UPDATE, key=key, value=value, revision=revision)
        any_one = verb == "delete any"
        return Write(verb=Verb.DELETE, key=key, revision=None if any_one else revision)

    def error_of(self, writes: list[Write]) -> type[Exception] | None:
        """The error of the first write whose condition fails, each seeing those before it."""
        revisions = {key: revision for key, (_, revision) in self.now.items()}
        for write in writes:
            found = revisions.get(write.key)
            if write.verb is Verb.CREATE and found is not None:
                return AlreadyExists
            asks = write.verb is Verb.UPDATE or write.revision is not None
            if write.verb is not Verb.CREATE and asks and found != write.revision:
                return Conflict
            if write.verb is Verb.DELETE:
                revisions.pop(write.key, None)
            else:
                revisions[write.key] = "written in this batch"
        return None


@pytest.mark.parametrize("make", [in_memory, in_a_file])
@given(batches=st.lists(STEPS, max_size=5))
def test_a_store_holds_what_was_written_and_its_watch_retells_it(
    make: Callable[[Path], Store], batches: list[list[tuple[str, str, dict[str, int]]]]
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        store, model = make(Path(directory)), Model()
        watch = store.watch("/a/", store.list("/a/").revision)
        expected: list[tuple[str, object]] = []
        for steps in batches:
            writes = [model.write(*step) for step in steps]
            error = model.error_of(writes)
            before = store.list("/")
            if error is not None:
                with pytest.raises(error):
                    store.batch(writes)
                assert store.list("/") == before
                continue
            for write, entry in zip(writes, store.batch(writes), strict=True):
                was = model.now.pop(write.key, None)
                if was is not None:
                    model.old[write.key] = was[1]
                if entry is not None:
                    model.now[write.key] = (write.value, entry.revision)
                if write.key.startswith("/a/") and (entry is not None or was is not None):
                    expected.append((write.key, write.value))
        listing = store.list("/")
        assert {e.key: (e.value, e.revision) for e in listing.entries} == model.now
        assert [e.key for e in listing.entries] == sorted(model.now)
        told: list[tuple[str, object]] = []
        while changes := watch.wait(0):
            told += [(c.key, None if c.entry is None else c.entry.value) for c in changes]
        assert told == expected
        watch.close()
        store.close()
