"""`podwire netns`: by hand, on any host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podwire.drivers import namespaces


def podwire(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "podwire", "netns", *arguments],
        check=False, capture_output=True, text=True, **options,
    )  # fmt: skip


def test_add_list_and_delete() -> None:
    assert podwire("add", "blue").returncode == 0
    shown = json.loads(podwire("list", "-o", "json").stdout)
    [blue] = [one for one in shown if one["name"] == "blue"]
    assert blue["interfaces"][0] == "lo"
    assert blue["inode"] == namespaces.named()["blue"]
    assert blue["processes"] == []
    [own] = [one for one in shown if one["own"]]
    assert os.getpid() in [process["pid"] for process in own["processes"]]
    assert "name blue" in podwire().stdout
    taken = podwire("add", "blue")
    assert (taken.returncode, "exists" in taken.stderr) == (1, True)
    assert podwire("delete", "blue").returncode == 0
    assert namespaces.named() == {}
    assert "does not exist" in podwire("delete", "blue").stderr
    assert podwire("add", "a/b").returncode == 64


def test_exec_passes_everything_through() -> None:
    namespaces.create_named("blue")
    subprocess.run(["ip", "-n", "blue", "link", "add", "br7", "type", "bridge"], check=True)
    done = podwire(
        "exec", "blue", "--", "sh", "-c",
        "cat; echo $GREETING; echo bad >&2; ls -d /sys/class/net/br7; exit 7",
        input="in\n", env={**os.environ, "GREETING": "hello"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        7,
        "in\nhello\n/sys/class/net/br7\n",
        "bad\n",
    )
    here = podwire("exec", "blue", "readlink", "/proc/self/ns/net")
    assert here.stdout == f"net:[{namespaces.named()['blue']}]\n"


def test_exec_takes_a_path_and_a_process() -> None:
    for where in ("/proc/self/ns/net", f"pid:{os.getpid()}"):
        done = podwire("exec", where, "readlink", "/proc/self/ns/net")
        assert done.stdout == f"{Path('/proc/self/ns/net').readlink()}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nope", "true"), 125, "/run/netns/nope"),
        (("nope", "true"), 125, "fix: podwire netns list shows those there are"),
        (("/etc/passwd", "true"), 125, "is not a network namespace"),
        (("pid:x", "true"), 125, "names no process"),
        (("blue", "no-such-program"), 127, "not found"),
        (("blue", "/etc/passwd"), 126, "Permission denied"),
        (("blue",), 64, "COMMAND"),
    ],
)
def test_exec_says_why_nothing_was_run(arguments: tuple[str, ...], code: int, words: str) -> None:
    namespaces.create_named("blue")
    done = podwire("exec", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
