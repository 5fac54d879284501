"""Real shells complete our commands: keys in, what stands on the line out."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.peer

PATIENCE_S = 30.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|[\r\x07\x00]")
POOL = """
{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: pods},
 spec: {cidr: 10.244.0.0/16}}
"""
DEBS = Path(__file__).resolve().parents[2] / ".cache" / "debs"
LINES = [
    ("podwire ge", "podwire get"),
    ("podwire get ipp", "podwire get ippool"),
    ("podwire get ippool ", "podwire get ippool pods"),
    ("podwire get --skip", "podwire get --skip-empty"),
    ("podwire lab fault inject strict", "podwire lab fault inject strict-rpf"),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a shell that finds podwire, and a datastore with one pool."""
    path = tmp_path / "datastore.db"
    with command_line(path) as podwire:
        podwire.done("apply", "-f", "-", text=POOL)
    programs = str(Path(sys.executable).parent)
    return {
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "TERM": "vt100",
        "LANG": "C.UTF-8",
        "PODWIRE_DATASTORE": str(path),
    }


class Terminal:
    """A shell at the other end of a terminal."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, environment)
        self.seen = ""

    def type(self, keys: str) -> None:
        self.seen = ""
        os.write(self.end, keys.encode())

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in ESCAPES.sub("", self.seen):
            ready, _, _ = select.select([self.end], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} does not appear; the terminal shows {self.seen!r}"
            self.seen += os.read(self.end, 4096).decode(errors="replace")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def shell(name: str) -> str:
    """Path of the shell's program."""
    ours = Path(sys.executable).parent / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def zsh_start() -> str:
    """Where an unpacked zsh finds its modules and functions."""
    modules = next((DEBS / "zsh").glob("usr/lib/*/zsh/*"), None)
    functions = DEBS / "zsh-common/usr/share/zsh/functions"
    if modules is None or not functions.exists():
        return ""
    return f"module_path=({modules}); fpath=({functions}/**/*(/)); "


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_key_completes_the_line(
    name: str, environment: dict[str, str], terminals: list[Terminal]
) -> None:
    bare = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}[name]
    start = f"{zsh_start()}autoload -Uz compinit; compinit -u -D; " if name == "zsh" else ""
    terminal = Terminal([shell(name), *bare, "-i"], environment)
    terminals.append(terminal)
    # Written in two halves: the line that is typed is shown, too.
    terminal.type(f"{start}source <(podwire completion {name}); echo rea''dy\n")
    terminal.wait_for("ready")
    for typed, completed in LINES:
        terminal.type(f"{typed}\t")
        terminal.wait_for(f"{completed} ")
        terminal.type("\x15")  # Control-U: away with the line
    terminal.type("podwire get ippool --datastore /nowhere/db \techo sil''ent\n")
    terminal.wait_for("podwire get ippool --datastore /nowhere/db echo sil''ent")
    assert "error" not in terminal.seen.partition("echo sil")[0]


def test_fish_is_told_the_same(environment: dict[str, str]) -> None:
    fish = shell("fish")
    for typed, completed in LINES:
        if typed.endswith("--skip"):
            continue  # click's script for fish offers no options
        command = f"podwire completion fish | source; complete -C '{typed}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert completed.rpartition(" ")[2] in done.stdout.split(), done
