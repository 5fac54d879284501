"""etcd keeps the contract of a store, in both generations that are in use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.etcd.store import EtcdStore
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_server import PROGRAMS, EtcdServer
from tests.fakes.store_contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.boundary import Store

pytestmark = pytest.mark.peer


@pytest.fixture(scope="class")
def server(request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    program = PROGRAMS[request.cls.source]
    if not program.exists():
        pytest.skip(f"no {program}: run scripts/setup test")
    # A socket's path may have 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="podwire-etcd-") as folder:
        server = EtcdServer(Path(folder), program, words=("--unsafe-no-fsync",)).start()
        try:
            yield server.wait_ready()
        finally:
            server.kill()


class TestEtcdOfDebian(StoreContract):
    source = "debian"

    @pytest.fixture
    def store(self, server: EtcdServer) -> Iterator[Store]:
        self.config = EtcdConfig(endpoints=(server.endpoint,))
        self.others: list[EtcdStore] = []
        store = EtcdStore(self.config)
        for entry in store.list("").entries:
            store.delete(entry.key)
        yield store
        for each in (store, *self.others):
            each.close()

    def beside(self, store: Store) -> Store:
        self.others.append(EtcdStore(self.config))
        return self.others[-1]

    def forget_history(self, store: Store) -> None:
        assert isinstance(store, EtcdStore)
        store.compact()


class TestEtcdOfTheWheel(TestEtcdOfDebian):
    source = "wheel"
