"""What several tests share: Calico's programs, and an etcd at which they and we work."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.etcd.store import EtcdStore
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_server import EtcdServer
from tests.peers import calico_module
from tests.peers.beside_calico import Both, TwoCommandLines
from tests.peers.every_kind import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def free_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="session")
def calico_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calico")
    calico_module.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def program(calico_folder: Path) -> Path:
    return calico_module.build_client(calico_folder)


@pytest.fixture(scope="session")
def calicoctl(calico_folder: Path) -> Path:
    return calico_module.build_calicoctl(calico_folder)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    words = ("--unsafe-no-fsync",)
    server = EtcdServer(tmp_path, client_url=free_url(), peer_url=free_url(), words=words).start()
    server.wait_ready()
    yield server
    server.kill()


@pytest.fixture
def store(etcd: EtcdServer) -> Iterator[EtcdStore]:
    made = EtcdStore(EtcdConfig(endpoints=(etcd.endpoint,)))
    yield made
    made.close()


@pytest.fixture
def both(etcd: EtcdServer, store: EtcdStore, program: Path) -> Both:
    return Both(store, etcd.endpoint, program)


@pytest.fixture
def two(etcd: EtcdServer, store: EtcdStore, calicoctl: Path) -> TwoCommandLines:
    return TwoCommandLines(store, etcd.endpoint, calicoctl)


@pytest.fixture
def filled(two: TwoCommandLines) -> TwoCommandLines:
    fill(two.store, two.podwire)
    return two
