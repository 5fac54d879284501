"""Two people who write at once: what was checked still holds when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store.sqlite import SQLiteStore
from tests.fakes.command_line import command_line
from tests.fakes.writers import check_that_all_are_written, check_that_one_wins, endpoint, node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Sequence[SQLiteStore]]:
    opened = [SQLiteStore(tmp_path / "datastore.db") for _ in range(3)]
    yield opened
    for each in opened:
        each.close()


def test_of_writers_that_collide_one_is_written(stores: Sequence[SQLiteStore]) -> None:
    check_that_one_wins(stores)


def test_writers_that_do_not_collide_are_all_written(stores: Sequence[SQLiteStore]) -> None:
    check_that_all_are_written(stores)


def test_an_address_is_one_endpoint_s(tmp_path: Path) -> None:
    with command_line(tmp_path / "datastore.db") as podwire:
        for text in (endpoint("e1", "10.0.0.1"), endpoint("e2", "10.0.0.2")):
            podwire.done("apply", "-f", "-", text=text)
        taken = '{"spec": {"ipNetworks": ["10.0.0.1/32"]}}'
        said = podwire("patch", "wep", "e2", "-p", taken)
        assert "10.0.0.1 is the address of WorkloadEndpoint default/e1 already" in said.err
        podwire.done("patch", "wep", "e1", "-p", taken)
        podwire.done("label", "wep", "e2", "app=web")


def test_what_takes_nothing_from_others_leaves_the_guard_alone(tmp_path: Path) -> None:
    with command_line(tmp_path / "datastore.db") as podwire:
        podwire.done("apply", "-f", "-", text=node("a", "192.0.2.1/24"))
        before = podwire.store.list("/podwire/v1/guards/")
        podwire.done("label", "node", "a", "rack=7")
        assert podwire.store.list("/podwire/v1/guards/").entries == before.entries != ()
