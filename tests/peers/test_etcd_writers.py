"""Two people who write to one etcd at once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.etcd.store import EtcdStore
from podwire.model.config import EtcdConfig
from tests.fakes.etcd_server import PROGRAMS, EtcdServer
from tests.fakes.writers import check_that_all_are_written, check_that_one_wins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.peer


@pytest.fixture
def stores() -> Iterator[Sequence[EtcdStore]]:
    if not PROGRAMS["debian"].exists():
        pytest.skip("no etcd: run scripts/setup test")
    with tempfile.TemporaryDirectory(prefix="podwire-etcd-") as folder:
        server = EtcdServer(Path(folder), PROGRAMS["debian"], words=("--unsafe-no-fsync",)).start()
        try:
            server.wait_ready()
            opened = [EtcdStore(EtcdConfig(endpoints=(server.endpoint,))) for _ in range(3)]
            yield opened
            for each in opened:
                each.close()
        finally:
            server.kill()


def test_of_writers_that_collide_one_is_written(stores: Sequence[EtcdStore]) -> None:
    check_that_one_wins(stores)


def test_writers_that_do_not_collide_are_all_written(stores: Sequence[EtcdStore]) -> None:
    check_that_all_are_written(stores)
