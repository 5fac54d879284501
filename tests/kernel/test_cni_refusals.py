"""Bad input and bad times: the right code, a message that helps, and nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from podwire.agent import sandbox
from podwire.drivers import namespaces, sysctl
from podwire.drivers.netlink.session import Session
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.errors import DatastoreUnavailable, KernelError
from podwire.model.cni import GREETING, Call, encode_call, frame
from tests.fakes.cni_programs import programs
from tests.kernel.cni_node import CNINode, ip, links_inside, make_pod, make_uplink, of, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = programs()
LONG = "x" * 300


@pytest.fixture(params=["python", "c"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CNINode]:
    if request.param not in PROGRAMS:
        pytest.skip("needs a C compiler (cc)")
    made = CNINode(tmp_path, PROGRAMS[request.param])
    made.add_pool()
    made.add_node()
    make_pod("c1")
    made.start()
    yield made
    made.stop()


def expect_nothing(node: CNINode) -> None:
    assert node.leftovers() == {}
    assert set(links_inside("c1")) == {"lo"}
    assert ip("route", pod="c1") == ""


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_broken_json(node: CNINode, command: str) -> None:
    for stdin in (b"", b"{", b'{"cniVersion"', b"[]", json.dumps(node.config()).encode()[:-1]):
        outcome = node.call(command, stdin)
        assert outcome.code == 6, outcome.stdout
        assert outcome.told["details"]
    expect_nothing(node)


def test_broken_json_behind_a_readable_socket_path(node: CNINode) -> None:
    good = json.dumps(node.config())[:-1]
    for tail in (', "x": nonsense}', ', "x" 1}', ",}", ', "x": "\x01"}'):
        outcome = node.call("ADD", (good + tail).encode())
        assert outcome.code == 6, outcome.stdout
    expect_nothing(node)


def test_five_megabytes(node: CNINode) -> None:
    assert node.call("ADD", node.config(x="y" * (5 << 20))).code == 6
    expect_nothing(node)


@pytest.mark.parametrize(
    ("variables", "code", "word"),
    [
        ({"COMMAND": None}, 4, "CNI_COMMAND"),
        ({"COMMAND": "UPDATE"}, 4, "UPDATE"),
        ({"CONTAINERID": None}, 4, "CNI_CONTAINERID"),
        ({"CONTAINERID": "a/b"}, 4, "a/b"),
        ({"CONTAINERID": "../x"}, 4, "../x"),
        ({"CONTAINERID": LONG}, 4, "CNI_CONTAINERID"),
        ({"IFNAME": None}, 4, "CNI_IFNAME"),
        ({"IFNAME": "a/b"}, 4, "a/b"),
        ({"IFNAME": ".."}, 4, "CNI_IFNAME"),
        ({"IFNAME": LONG}, 4, "CNI_IFNAME"),
        ({"NETNS": None}, 4, "CNI_NETNS"),
        ({"NETNS": "/run/netns/none"}, 4, "/run/netns/none"),
        ({"NETNS": "/etc/passwd"}, 4, "/etc/passwd"),
        ({"NETNS": "/"}, 4, "CNI_NETNS"),
        ({"NETNS": "/proc/self/ns/mnt"}, 4, "network namespace"),
        ({"NETNS": "/proc/self/ns/net"}, 4, "own"),
        ({"NETNS": "/dev/null"}, 4, "network namespace"),
        ({"ARGS": "nonsense"}, 4, "CNI_ARGS"),
        ({"ARGS": "X=1"}, 4, "X"),
        ({"ARGS": "K8S_POD_NAMESPACE=a b;K8S_POD_NAME=c"}, 4, "K8S_POD_NAMESPACE"),
        ({"IFNAME": "lo"}, 100, "lo"),
    ],
    ids=str,
)
def test_bad_variables(
    node: CNINode, variables: dict[str, str | None], code: int, word: str
) -> None:
    command = variables.pop("COMMAND", "ADD") or ""
    outcome = node.call(command, **variables)
    assert (outcome.code, word in outcome.told["msg"]) == (code, True), outcome.stdout
    assert outcome.told["details"]
    expect_nothing(node)


def test_a_pipe_as_namespace_does_not_hold_the_call(node: CNINode, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert node.call("ADD", NETNS=str(tmp_path / "pipe")).code == 4


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cniVersion": "2.0.0"}, 1),
        ({"cniVersion": None}, 1),
        ({"name": "a/b"}, 7),
        ({"name": LONG}, 7),
        ({"ipam": {"type": "host-local"}}, 7),
        ({"prevResult": []}, 7),
    ],
    ids=str,
)
def test_bad_configuration(node: CNINode, fields: dict[str, Any], code: int) -> None:
    outcome = node.call("ADD", {**node.config(), **fields})
    assert (outcome.code, bool(outcome.told["details"])) == (code, True)
    expect_nothing(node)


# --- addresses and datastore ----------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[CNINode]:
    """A node without a pool."""
    made = CNINode(tmp_path)
    made.add_node()
    for name in ("c1", "c2", "c3"):
        make_pod(name)
    yield made
    if hasattr(made, "server"):
        made.stop()


def test_no_pool(bare: CNINode) -> None:
    outcome = bare.start().add()
    assert (outcome.code, "IPPool" in outcome.told["msg"]) == (102, True), outcome.stdout
    expect_nothing(bare)


def test_a_full_pool(bare: CNINode) -> None:
    bare.add_pool("10.1.0.0/31", block_size=31)
    bare.start()
    assert [bare.add(name).code for name in ("c1", "c2", "c3")] == [0, 0, 101]
    told = bare.add("c3").told
    assert "10-1-0-0-31" in told["msg"] + told["details"]
    for name in ("c1", "c2", "c3"):
        bare.delete(name)
    expect_nothing(bare)


def test_a_read_only_datastore(bare: CNINode, tmp_path: Path) -> None:
    # Root may write to any file; a mount that forbids it says no to root as well.
    bare.add_pool()
    bare.start()
    kept = bare.add("c2")
    namespaces.mount(str(tmp_path), tmp_path, flags=namespaces.MS_BIND)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
    bare.store.close()
    bare.world = None  # type: ignore[assignment]
    bare.server.stop()
    bare.attachments.stop()
    bare.writeback.stop()
    other = tmp_path.parent / "elsewhere"
    other.mkdir()
    bare.socket, bare.spool = other / "agent.sock", other / "spool"
    bare.store = SQLiteStore(bare.database)
    bare.start()
    refused = bare.add("c1")
    assert refused.code == 11, refused.stdout
    assert bare.call("STATUS", bare.config("1.1.0")).code == 50
    assert bare.allocations() == [kept.address]
    assert len(bare.veths()) == 1
    assert bare.delete("c2").exit == 0
    assert bare.veths() == []
    assert len(list(bare.spool.iterdir())) == 1


def test_a_full_disk(bare: CNINode, tmp_path: Path) -> None:
    bare.store.close()
    folder = tmp_path / "small"
    folder.mkdir()
    # In one step: a user namespace may not change the size of one that is mounted.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    small = CNINode(folder)
    small.add_node()
    small.add_pool()
    small.socket, small.spool = tmp_path / "agent.sock", tmp_path / "spool"
    small.start()
    # The stop at the end is for this node.
    bare.server, bare.attachments = small.server, small.attachments
    bare.writeback = small.writeback
    with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
    outcomes = [small.add("c1") for _ in range(20)]
    while outcomes[-1].code == 0:
        small.delete("c1")
        outcomes.append(small.add("c1"))
    assert outcomes[-1].code == 11, outcomes[-1].stdout
    assert small.veths() == []
    assert set(links_inside("c1")) == {"lo"}


def test_the_agent_is_away(bare: CNINode) -> None:
    bare.add_pool()
    bare.start()
    bare.stop()
    assert bare.add("c1").code == 11
    assert bare.delete("c1").exit == 0
    bare.start()
    wait_for(lambda: not bare.leftovers(), "the spool is drained")


def test_a_delete_spooled_while_away_is_done_at_start(bare: CNINode) -> None:
    bare.add_pool()
    bare.start()
    bare.add("c1", "web-0")
    kept = bare.add("c2", "web-1")
    bare.stop()
    assert bare.delete("c1").exit == 0
    bare.start()
    assert bare.allocations() == [kept.address]
    assert len(bare.veths()) == 1


# --- failures in the middle -----------------------------------------------------------------------


class Failing:
    """Counts the steps of an ADD, and refuses one of them."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.lock = threading.Lock()

    def step(self, error: Exception) -> None:
        with self.lock:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    self.left = None
                    raise error


class FailingStore:
    """A store that refuses one call."""

    def __init__(self, store: Any, failing: Failing) -> None:
        self._store = store
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in {"get", "list", "create", "update", "delete", "batch"}:
            return found

        def call(*args: Any) -> Any:
            self._failing.step(DatastoreUnavailable("the datastore is away"))
            return found(*args)

        return call


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_a_failure_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    failing = Failing()
    store = SQLiteStore(tmp_path / "db") if kind == "batch" else SingleObjectStore()
    node = CNINode(tmp_path, store=FailingStore(store, failing))
    node.add_pool()
    node.add_node()
    make_pod("c1")
    make_pod("c2")
    node.start()

    def guard(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            failing.step(KernelError("the kernel refuses", errno=1, subject=name))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    for owner, name in (
        (Session, "run"),
        (Session, "apply"),
        (Session, "link"),
        (sysctl, "write"),
        (sandbox, "wait_until_running"),
    ):
        guard(owner, name)
    old = node.add("c2", "web-0")
    node.attachments._background.submit(lambda: None).result()
    before = node.leftovers()
    failures = 0
    while True:
        failing.left = failures
        outcome = node.add("c1", "web-0")
        if outcome.exit == 0:  # the step refused was one of the background, or there was none
            break
        assert outcome.code in {5, 11}, outcome.stdout
        # In a datastore without batches an undo may have to wait in the spool.
        node.attachments.drain()
        assert node.leftovers() == before, failures
        assert set(links_inside("c1")) == {"lo"}
        failures += 1
        assert failures < 200
    assert failures > 15
    failing.left = None
    assert outcome.exit == 0
    assert node.delete("c1").exit == 0
    assert node.delete("c2").exit == 0
    assert old.exit == 0
    assert node.leftovers() == {}
    node.stop()


# --- callers that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["at once", "with the answer", "after the answer"])
def test_an_add_whose_caller_leaves_is_undone(node: CNINode, moment: str) -> None:
    variables = {"COMMAND": "ADD", "IFNAME": "eth0", **of("c1")}
    environment = {f"CNI_{name}": value for name, value in variables.items()}
    call = Call(environment=environment, stdin=json.dumps(node.config()).encode())
    with (
        namespaces.opened("/run/netns/c1") as netns,
        socket.socket(socket.AF_UNIX) as caller,
    ):
        caller.connect(str(node.socket))
        assert caller.recv(len(GREETING)) == GREETING
        socket.send_fds(caller, [frame(encode_call(call))], [netns])
        if moment != "at once":
            caller.recv(1 if moment == "with the answer" else 1 << 16)
    wait_for(lambda: not node.leftovers() and not node.attachments.working(), "undone")
    assert node.add().exit == 0


def test_a_stranger_on_the_socket_harms_nobody(node: CNINode) -> None:
    for data in (
        b"",
        b"x",
        b"\xff\xff\xff\xff",
        frame(b""),
        frame(b"x=1"),
        frame(b"{"),
        b"\0" * 64,
    ):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(node.socket))
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):  # it hung up without reading all
                while caller.recv(1 << 16):
                    pass
    assert node.add().exit == 0


def test_the_socket_is_its_owners_alone(node: CNINode) -> None:
    make_uplink()
    assert node.socket.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in node.folder.iterdir() if path.is_socket()] == ["agent.sock"]
