"""A pod that runs and whose endpoint somebody deleted is told, and nothing is written back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from podwire.agent.endpoints import LocalEndpoint, LocalEndpoints
from podwire.agent.unlisted import Unlisted
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.model import codec
from podwire.model.endpoint import AttachmentKey
from tests.fakes.ipam_world import pod_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = AttachmentKey(network="net", container_id="web", interface="eth0")
ENDPOINT = pod_endpoint("web", "10.0.0.1", "a")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """A node with one pod, known to the datastore."""
    store = SQLiteStore(tmp_path / "store.db")
    store.create(codec.key_of(ENDPOINT), codec.encode(ENDPOINT))
    endpoints = LocalEndpoints()
    endpoints.put(LocalEndpoint(key=KEY, endpoint=ENDPOINT))
    spool = SimpleNamespace(keys=list)
    yield SimpleNamespace(node="a", store=store, endpoints=endpoints, spool=spool, owed=[])
    store.close()


def test_a_deleted_endpoint_of_a_pod_that_runs_is_told(world: Any) -> None:
    busy: list[AttachmentKey] = []
    unlisted = Unlisted(SimpleNamespace(world=world, busy=lambda: busy))  # type: ignore[arg-type]
    unlisted.look()
    assert unlisted.concerns() == ()
    world.store.delete(codec.key_of(ENDPOINT))
    busy.append(KEY)  # its DEL is under way
    unlisted.look()
    assert unlisted.concerns() == ()
    busy.clear()
    unlisted.look()
    (concern,) = unlisted.concerns()
    assert concern.startswith("pod demo/web runs, and its WorkloadEndpoint was deleted")
    assert world.store.get(codec.key_of(ENDPOINT)) is None
    world.endpoints.remove(KEY)
    assert unlisted.concerns() == ()
