"""The store in memory keeps the contract, and dies where it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.single_object import Crash, SingleObjectStore
from podwire.errors import DatastoreUnavailable
from tests.fakes.store_contract import StoreContract

if TYPE_CHECKING:
    from podwire.boundary import Store


class TestSingleObjectStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return SingleObjectStore()

    def forget_history(self, store: Store) -> None:
        assert isinstance(store, SingleObjectStore)
        store.compact()


class TestInMemoryWithBatches(TestSingleObjectStore):
    @pytest.fixture
    def store(self) -> Store:
        return SingleObjectStore(batches=True)


def test_it_dies_after_the_writes_it_was_granted() -> None:
    store = SingleObjectStore()
    store.fail_after(1)
    store.create("/a", {})
    for _ in range(2):
        with pytest.raises(Crash):
            store.create("/b", {})
    store.recover()
    assert store.get("/b") is None
    store.create("/b", {})


def test_an_answer_can_get_lost_after_the_write() -> None:
    store = SingleObjectStore()
    store.fail_after(0, DatastoreUnavailable("gone"), answer_lost=True)
    for key in ("/a", "/b"):
        with pytest.raises(DatastoreUnavailable):
            store.create(key, {})
    store.recover()
    assert store.get("/a") is not None
    assert store.get("/b") is None
