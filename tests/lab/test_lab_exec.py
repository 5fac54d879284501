"""Commands in pods and on nodes: nothing of them is lost on the way in or out."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.conftest import Lab, pods_manifest, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def lab(new_lab: Callable[..., Lab]) -> Lab:
    lab = new_lab("--nodes", "1")
    lab.apply(pods_manifest(["vms100"], 1, namespace="default"))
    return lab


def command(lab: Lab, *words: str) -> list[str]:
    return [sys.executable, "-m", "podwire", "lab", words[0], "--name", lab.name, *words[1:]]


@pytest.mark.parametrize("where", [("exec", "p0-vms100"), ("node", "vms100")])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["/etc"], 126),
    ],
)
def test_exit_codes(lab: Lab, where: tuple[str, str], words: list[str], code: int) -> None:
    assert lab.try_run(*where, "--", *words).returncode == code


def test_own_failures_are_125(lab: Lab) -> None:
    assert lab.try_run("exec", "nobody", "--", "true").returncode == 125
    assert lab.try_run("node", "vms999", "--", "true").returncode == 125
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "podwire",
            "lab",
            "exec",
            "--name",
            "no-such-lab",
            "x",
            "--",
            "true",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert "does not run" in done.stderr


def test_streams_and_environment_pass(lab: Lab) -> None:
    done = subprocess.run(
        command(lab, "exec", "p0-vms100", "--", "sh", "-c", 'cat; echo "$WORD" >&2; hostname'),
        input="in\0put",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WORD": "a b"},
    )
    assert (done.stdout, done.stderr) == ("in\0putp0-vms100\n", "a b\n")


def test_a_pod_sees_its_own_devices_only(lab: Lab) -> None:
    assert lab.inside("p0-vms100", "ls /sys/class/net").split() == ["eth0", "lo"]
    assert lab.inside("p0-vms100", "ls /run/netns").split() == []
    assert "ens32" in lab.on("vms100", "ls /sys/class/net").split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_pass(lab: Lab, number: int) -> None:
    script = f"trap 'echo caught; exit 3' {number}; echo ready; while :; do sleep 0.05; done"
    # What runs in the background (nohup, a CI service) ignores SIGINT, and its children inherit
    # that: a shell cannot even trap it then.
    plain = ["env", "--default-signal", *command(lab, "node", "vms100", "--", "sh", "-c", script)]
    with subprocess.Popen(plain, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.stdout.readline() == "caught\n"
            assert process.wait(10) == 3
        finally:
            process.kill()


def test_the_command_ends_with_its_caller(lab: Lab) -> None:
    with subprocess.Popen(
        command(lab, "node", "vms100", "--", "sh", "-c", "echo $$; exec sleep 1000"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        process.kill()
    wait_until(
        lambda: lab.try_run("node", "vms100", "--", "test", "-d", f"/proc/{pid}").returncode == 1,
        "the command ends",
    )


def test_a_terminal_passes(lab: Lab) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = command(lab, "node", "vms100", "--", "sh", "-c", "tty && read x && echo got $x")
        os.execv(words[0], words)
    with os.fdopen(terminal, "r+b", buffering=0) as stream:
        assert b"/dev/pts" in stream.read(100)
        stream.write(b"word\n")
        seen = b""
        while b"got word" not in seen:
            seen += stream.read(100)
        # Before the terminal is hung up, which would end whoever still has it.
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
