"""etcd keeps the contract of a store, in both generations that are in use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import DatastoreUnavailable
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_server import PROGRAMS, EtcdServer
from tests.fakes.store_contract import StoreContract
from tests.kernel.awaiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.boundary import Store

pytestmark = pytest.mark.peer


def answers(store: EtcdStore) -> bool:
    try:
        store.version()
    except DatastoreUnavailable:
        return False
    return True


def empty(store: EtcdStore) -> None:
    for entry in store.list("").entries:
        store.delete(entry.key)


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    program = PROGRAMS[request.param]
    if not program.exists():
        pytest.skip(f"no etcd of {request.param}: run scripts/setup test")
    # A socket's path may have 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="podwire-etcd-") as folder:
        server = EtcdServer(program, Path(folder)).start()
        store = EtcdStore(EtcdConfig(endpoints=(server.endpoint,)))
        try:
            wait_until(lambda: answers(store))
        finally:
            store.close()
        yield server
        server.kill()


class TestEtcdStore(StoreContract):
    @pytest.fixture
    def store(self, server: EtcdServer) -> Iterator[Store]:
        config = EtcdConfig(endpoints=(server.endpoint,))
        store = EtcdStore(config)
        empty(store)
        self.others: list[EtcdStore] = []
        self.config = config
        yield store
        for each in (store, *self.others):
            each.close()

    def beside(self, store: Store) -> Store:
        self.others.append(EtcdStore(self.config))
        return self.others[-1]

    def forget_history(self, store: Store) -> None:
        assert isinstance(store, EtcdStore)
        store.compact()
