"""Every transport runs the same words, tells code and output apart, and comes back in time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.transport import (
    SSH,
    Finished,
    KubectlDebug,
    KubectlExec,
    Local,
    LocalNamespace,
    in_parallel,
    parse_transport,
)
from podwire.errors import BadInput, Transient, Unsupported
from tests.fakes.awaiting import wait_until
from tests.fakes.remote_programs import Programs, install

if TYPE_CHECKING:
    from podwire.drivers.transport import Transport

KUBECTL = KubectlExec(pod="calico-node-x", namespace="kube-system", container="calico-node")
WAYS: list[Transport] = [
    Local(),
    SSH("vms103"),
    KUBECTL,
]
WORDS = ["", "a b", "'", '"', "$HOME", "`id`", "*", "a\nb", "\\", "-n", "--", ";", "ü", "!x", "#"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return install(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize("way", [*WAYS, KubectlDebug(node="w1")], ids=lambda way: way.title)
def test_words_arrive_as_they_are(programs: Programs, way: Transport) -> None:
    done = way.run(["sh", "-c", 'for each; do printf "%s|" "$each"; done', "sh", *WORDS])
    assert done.code == 0, done.stderr
    assert done.stdout.endswith("|".join(WORDS) + "|")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_code_streams_and_input_are_passed(programs: Programs, way: Transport) -> None:
    done = way.run(["sh", "-s", "there"], stdin="cat <<E\nhallo $1\nE\necho no >&2\nexit 7\n")
    assert done == Finished(code=7, stdout="hallo there\n", stderr="no\n")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_a_program_that_stays_is_ended(programs: Programs, way: Transport) -> None:
    with pytest.raises(Transient, match=r"within 0\.3 s"):
        way.run(["sh", "-c", "trap '' TERM; sleep 600 & wait"], timeout_s=0.3)


def test_input_nobody_reads_harms_nothing() -> None:
    assert Local().run(["true"], stdin="x" * 1_000_000).code == 0


def test_ssh_asks_no_question_and_takes_no_option_from_a_name(programs: Programs) -> None:
    SSH("vms103").run(["ip", "-j", "link"])
    [call] = programs.calls()
    assert call[0] == "ssh"
    assert "BatchMode=yes" in call
    assert call[call.index("--") + 1 :] == ["vms103", "ip -j link"]
    for text in ("ssh:-oProxyCommand=id", "exec:-n/x", "debug:--all"):
        with pytest.raises(BadInput):
            parse_transport(text)


def test_kubectl_is_told_where(programs: Programs) -> None:
    KUBECTL.run(["ip", "link"], stdin="")
    [call] = programs.calls()
    assert call == ["kubectl", "exec", "calico-node-x", "-n", "kube-system", "-c", "calico-node",
                    "-i", "--", "ip", "link"]  # fmt: skip


def test_a_debugging_pod_is_deleted_and_no_other(programs: Programs) -> None:
    words = ["echo", "Creating debugging pod etcd-0 with container x on node w1."]
    KubectlDebug(node="w1").run(words)
    made, gone = programs.calls()
    assert made[1:3] == ["debug", "node/w1"]
    assert made[-5:] == ["--", "chroot", "/host", *words]
    assert gone[1:4] == ["delete", "pod", "node-debugger-w1-x7w2c"]


def test_a_debugging_pod_is_deleted_when_its_node_does_not_answer(programs: Programs) -> None:
    """Its image cannot be pulled, or its node hangs: kubectl would wait for ever."""
    with pytest.raises(Transient, match=r"within 0\.5 s"):
        KubectlDebug(node="silent").run(["true"], timeout_s=0.5)
    made, gone = programs.calls()
    assert made[1:3] == ["debug", "node/silent"]
    assert gone[1:4] == ["delete", "pod", "node-debugger-silent-x7w2c"]


def sleeps(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_debugging_pod_is_deleted_when_the_user_interrupts(programs: Programs) -> None:
    run = "from podwire.drivers import transport as t; t.KubectlDebug(node='silent').run(['true'])"
    user = subprocess.Popen([sys.executable, "-c", run], stderr=subprocess.DEVNULL)
    wait_until(programs.asleep)
    wait_until(lambda: sleeps(user.pid))  # for the answer, not on its way there
    user.send_signal(signal.SIGINT)
    assert user.wait() != 0
    assert programs.calls()[1][1:4] == ["delete", "pod", "node-debugger-silent-x7w2c"]


def test_a_debugging_pod_that_stays_is_told(programs: Programs) -> None:
    done = KubectlDebug(node="undeletable").run(["true"])
    assert done.code == 0
    assert done.left is not None
    assert "pods is forbidden" in done.left
    assert "kubectl delete pod node-debugger-undeletable-x7w2c" in done.left


def test_a_program_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="ssh"):
        SSH("vms103").run(["true"])


def test_a_namespace_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        LocalNamespace(str(tmp_path / "nowhere")).run(["true"])


@pytest.mark.parametrize(
    "text",
    [
        "local",
        "netns:/run/netns/a",
        "ssh:root@vms103",
        "exec:kube-system/c/d",
        "exec:a/b",
        "debug:w1",
    ],
)
def test_what_is_written_is_what_is_meant(text: str) -> None:
    assert parse_transport(text).title == text


def test_names_and_pids_are_paths() -> None:
    assert parse_transport("netns:blue") == LocalNamespace("/run/netns/blue")
    assert parse_transport("pid:7") == LocalNamespace("/proc/7/ns/net")


@pytest.mark.parametrize(
    "text",
    ["", "ssh", "ssh:", "ssh:a b", "exec:pod", "exec:a/b/c/d", "pid:x", "http://x", "local:x"],
)
def test_what_is_no_way_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no way to a node"):
        parse_transport(text)


def test_many_are_asked_at_once_and_one_failure_is_one_result() -> None:
    together = threading.Barrier(3, timeout=30)

    def good() -> int:
        return together.wait()

    def bad() -> int:
        together.wait()
        raise Transient("no answer within 1 s")

    found = in_parallel({"a": good, "b": bad, "c": good})
    assert isinstance(found["b"], Transient)
    assert isinstance(found["a"], int)
    assert isinstance(found["c"], int)
    assert list(found) == ["a", "b", "c"]
    assert in_parallel({}) == {}
