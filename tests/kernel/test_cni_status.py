"""STATUS is 0 when an ADD would work now and 50 when it would not, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.store import sqlitefile
from podwire.drivers.store.sqlite import SQLiteStore
from tests.kernel.cni_node import CNINode, ip, make_pod, start_agent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.cni_node import Outcome


def status(node: CNINode, **fields: Any) -> Outcome:
    return node.call(
        "STATUS", node.config("1.1.0", **fields), CONTAINERID=None, NETNS=None, IFNAME=None
    )


def expect_not_ready(node: CNINode, *words: str) -> None:
    """STATUS says why, and the next ADD fails for the same reason."""
    told = status(node)
    assert told.code == 50, told.stdout
    assert all(word in told.told["msg"] for word in words), told.stdout
    assert told.told["details"]
    refused = node.add("c1")
    assert refused.exit == 1
    assert all(word in refused.told["msg"] for word in words), refused.stdout
    assert node.delete("c1").exit == 0


def expect_ready(node: CNINode) -> None:
    assert status(node).exit == 0, status(node).stdout
    assert node.add("c1").exit == 0
    assert node.delete("c1").exit == 0


@contextmanager
def running(folder: Path, store: Any = None, spool: Path | None = None) -> Iterator[CNINode]:
    folder.mkdir(exist_ok=True)
    node = CNINode(folder, store=store)
    node.socket = folder.parent / "status.sock"  # not on a disk that is filled
    node.spool = spool or folder.parent / "spool"
    node.add_node()
    node.add_pool("10.1.0.0/30", block_size=30)
    for name in ("c1", "c2", "c3", "c4", "c5"):
        make_pod(name)
    node.start()
    yield node
    node.stop()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A file system with nothing left."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    yield
    filler.unlink()


def small_disk(folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    return folder


def test_a_look_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "n") as node:
        before = (node.store.list("/"), ip("link"), list(node.spool.iterdir()), fds())
        assert [status(node).exit for _ in range(3)] == [0, 0, 0]
        assert before == (node.store.list("/"), ip("link"), list(node.spool.iterdir()), fds())
        assert node.leftovers() == {}


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_full_disk_of_the_datastore(tmp_path: Path) -> None:
    disk = small_disk(tmp_path / "disk")
    with running(disk) as node:
        with full(disk):
            expect_not_ready(node, "no space left")
        node.attachments.drain()
        expect_ready(node)


def test_a_full_disk_of_the_spool(tmp_path: Path) -> None:
    disk = small_disk(tmp_path / "disk")
    with running(tmp_path / "n", spool=disk) as node:
        with full(disk):
            told = status(node)
            assert (told.code, "spoolDir" in told.told["msg"]) == (50, True), told.stdout
        expect_ready(node)


def test_a_datastore_that_another_program_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "db"
    monkeypatch.setattr(sqlitefile, "BUSY_TIMEOUT_S", 0.2)
    with running(tmp_path / "n", SQLiteStore(path, timeout_s=0.2)) as node:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            expect_not_ready(node, "is locked")
            other.execute("ROLLBACK")
        node.attachments.drain()
        expect_ready(node)


def test_a_last_address(tmp_path: Path) -> None:
    with running(tmp_path / "n") as node:
        for name in ("c2", "c3", "c4", "c5"):
            assert status(node).exit == 0
            assert node.add(name).exit == 0
        expect_not_ready(node, "is left for node")
        node.delete("c5")
        expect_ready(node)


def test_the_pools_the_network_names(tmp_path: Path) -> None:
    with running(tmp_path / "n") as node:
        node.add_pool("10.2.0.0/31", block_size=31, automatic=False)
        node.add_pool("10.3.0.0/31", block_size=31, disabled=True)
        assert status(node, ipam={"ipv4_pools": ["10.2.0.0/31"]}).exit == 0
        for pool, word in (("10.3.0.0/31", "is disabled"), ("none", "does not exist")):
            told = status(node, ipam={"ipv4_pools": [pool]})
            assert (told.code, word in told.told["msg"]) == (50, True), told.stdout
        assert status(node, ipam={"type": "host-local"}).code == 7


def test_a_kernel_that_makes_no_veth(tmp_path: Path) -> None:
    node = CNINode(tmp_path)
    node.add_node()
    node.add_pool()
    make_pod("c1")
    with start_agent(tmp_path, "setpriv", "--bounding-set=-net_admin") as agent:
        told, refused = status(node), node.add("c1")
        agent.send_signal(signal.SIGTERM)
    assert (told.code, refused.code) == (50, 5), (told.stdout, refused.stdout)
    assert "create veth" in told.told["msg"]


@pytest.mark.parametrize("kind", ["away", "held"])
def test_an_agent_that_does_not_work(tmp_path: Path, kind: str) -> None:
    with running(tmp_path / "n") as node:
        if kind == "held":
            node.is_held = True
            expect_not_ready(node, "held")
            node.is_held = False
            node.attachments.drain()
        else:
            node.server.stop()
            expect_not_ready(node, "agent")
            node.stop = lambda: None  # type: ignore[method-assign]
