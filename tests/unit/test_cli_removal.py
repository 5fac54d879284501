"""What is not deleted, and how it is left when a deletion is cut off."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from podwire.cli import removal
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import Conflict, DatastoreUnavailable
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.command_line import command_line
from tests.fakes.ipam_world import pod_endpoint, pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Store
    from tests.fakes.command_line import CommandLine

POOL = pool("pods", "10.0.0.0/24")


@pytest.fixture
def podwire(tmp_path: Path) -> Iterator[CommandLine]:
    """A pool with an empty block, and a node with a pod."""
    with command_line(tmp_path / "datastore.db") as line:
        line.put(POOL)
        line.put(Node(metadata=Metadata(name="a"), address=ip_interface("192.0.2.1/24")))
        IPAM(line.store, "a", SystemClock(), SystemDice(), node_labels={}).claim_ahead()
        line.put(pod_endpoint("web", "10.0.0.1", "a"))
        yield line


class Pause(SystemClock):
    """What happens while agents are given time to hear that the pool is disabled."""

    def __init__(self, happens: BaseException | None = None) -> None:
        self._happens = happens

    def sleep(self, seconds: float) -> None:
        if seconds == removal.SETTLE_S and self._happens is not None:
            raise self._happens


class Failing:
    """A store whose deletes of a pool end with an error, and its updates if wished."""

    def __init__(self, store: Store, error: BaseException, *, updates: bool) -> None:
        self._store = store
        self._error = error
        self._updates = updates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def update(self, key: str, value: Any, revision: str) -> Any:
        """Carried out, and then cut off."""
        written = self._store.update(key, value, revision)
        if key.startswith(keys.POOLS) and self._updates:
            self._updates = False
            raise self._error
        return written

    def delete(self, key: str, revision: str | None = None) -> None:
        """Not carried out."""
        if key.startswith(keys.POOLS):
            raise self._error
        self._store.delete(key, revision)


INTERRUPT, AWAY, MOVED = KeyboardInterrupt(), DatastoreUnavailable("away"), Conflict("moved")


@pytest.mark.parametrize(
    ("place", "error"),
    [
        *(("disabling", INTERRUPT), ("disabling", AWAY)),
        *(("pause", INTERRUPT), ("pause", AWAY)),
        *(("deleting", INTERRUPT), ("deleting", AWAY), ("deleting", MOVED)),
    ],
)
def test_a_pool_is_enabled_again_whatever_ends_its_deletion(
    podwire: CommandLine, place: str, error: BaseException
) -> None:
    store = Failing(podwire.store, error, updates=place == "disabling")
    clock = Pause(error if place == "pause" else None)
    with pytest.raises(type(error)):
        removal.remove_pool(store, keys.pool_key("pods"), clock)
    assert not podwire.read(keys.pool_key("pods")).disabled
    removal.remove_pool(podwire.store, keys.pool_key("pods"), Pause())
    assert podwire.store.get(keys.pool_key("pods")) is None


def test_a_pool_that_stays_disabled_is_said_with_the_way_out(
    podwire: CommandLine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = DatastoreUnavailable("away")
    monkeypatch.setattr(SQLiteStore, "delete", lambda *_: _raise(away))
    pause = Pause()

    def cut_off(_: float) -> None:
        monkeypatch.setattr(SQLiteStore, "update", lambda *_: _raise(away))
        raise KeyboardInterrupt

    monkeypatch.setattr(pause, "sleep", cut_off)
    with pytest.raises(KeyboardInterrupt):
        removal.remove_pool(podwire.store, keys.pool_key("pods"), pause)
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert "IPPool pods may have been left disabled" in said
    assert podwire.read(keys.pool_key("pods")).disabled
    command = said.partition("fix: podwire ")[2].replace("'", "").split(maxsplit=4)
    podwire.done(*(word.strip() for word in command))
    assert not podwire.read(keys.pool_key("pods")).disabled


def test_a_pool_somebody_else_changed_is_left_as_they_want_it(
    podwire: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause()
    key = keys.pool_key("pods")

    def change(_: float) -> None:
        entry = podwire.store.get(key)
        assert entry is not None
        theirs = replace(codec.decode_pool(key, entry.value), disabled=True, nat_outgoing=True)
        podwire.store.update(key, codec.encode(theirs), entry.revision)
        raise KeyboardInterrupt

    monkeypatch.setattr(pause, "sleep", change)
    with pytest.raises(KeyboardInterrupt):
        removal.remove_pool(podwire.store, key, pause)
    stays = podwire.read(key)
    assert (stays.disabled, stays.nat_outgoing) == (True, True)


def _raise(error: BaseException) -> None:
    raise error


# --- endpoints ------------------------------------------------------------------------------------


def test_the_endpoint_of_a_pod_is_deleted_only_by_force(podwire: CommandLine) -> None:
    name = pod_endpoint("web", "10.0.0.1", "a").metadata.name
    words = ("delete", "wep", name, "-n", "demo")
    for more in ((), ("--dry-run",)):
        said = podwire(*words, *more)
        assert (said.code, "it is of pod demo/web on node a" in said.err) == (1, True)
        assert "--force" in said.err
    podwire.done(*words, "--force")
    assert podwire.store.list(keys.ENDPOINTS).entries == ()


def test_the_endpoint_of_a_machine_that_is_gone_is_deleted(podwire: CommandLine) -> None:
    name = pod_endpoint("web", "10.0.0.1", "a").metadata.name
    podwire.store.delete(keys.node_key("a"))
    podwire.done("delete", "wep", name, "-n", "demo")


def test_where_agents_report_a_silent_one_has_no_say(
    podwire: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteStore, "can_expire", True)
    name = pod_endpoint("web", "10.0.0.1", "a").metadata.name
    report = {"time": datetime.now(UTC).isoformat(), "uptime": 5.0, "first_update": True}
    podwire.store.create(keys.node_status_key("a"), report)
    assert podwire("delete", "wep", name, "-n", "demo").code == 1
    podwire.store.delete(keys.node_status_key("a"))
    podwire.done("delete", "wep", name, "-n", "demo")
