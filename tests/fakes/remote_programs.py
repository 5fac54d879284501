"""Stand-ins for ssh and kubectl that run on this host what they are told to run elsewhere.

They keep the contract of the argument list: which words are options, where the command begins,
and that ssh hands one line to a shell while kubectl hands words to a program. Every call is noted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOTE = """#!/bin/sh
{ printf '%s' "${0##*/}"; for word; do printf '\\037%s' "$word"; done; printf '\\036'; } >> "$LOG"
"""
SSH = """
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
case $host in
    dead) echo "ssh: connect to host dead port 22: No route to host" >&2; exit 255 ;;
    silent) sleep 600 ;;
esac
exec sh -c "$*"
"""
KUBECTL = """
verb=$1
case $verb$* in
    delete*undeletable*) echo "Error from server (Forbidden): pods is forbidden" >&2; exit 1 ;;
    delete*) exit 0 ;;
    exec*silent*) sleep 600 ;;
esac
case $* in *forbidden*) echo "error: pods is forbidden" >&2; exit 1 ;; esac
if [ "$verb" = debug ]; then
    echo "Creating debugging pod node-debugger-${2#node/}-x7w2c with container debugger on node."
    case $2 in *silent*) : > "$LOG.asleep"; sleep 600 ;; esac
fi
while [ "$1" != -- ]; do shift; done
shift
[ "$1" = chroot ] && shift 2
exec "$@"
"""


@dataclass(frozen=True)
class Programs:
    """Where the calls are noted."""

    log: Path

    def calls(self) -> list[list[str]]:
        """Program name and arguments of every call so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [call.split("\037") for call in text.split("\036") if call]

    def asleep(self) -> bool:
        """Whether a debugging pod was made that never answers."""
        return self.log.with_name(f"{self.log.name}.asleep").exists()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put both on PATH for this test."""
    folder.mkdir()
    for name, text in {"ssh": SSH, "kubectl": KUBECTL}.items():
        (folder / name).write_text(NOTE + text)
        (folder / name).chmod(0o755)
    programs = Programs(folder / "log")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(programs.log))
    return programs
