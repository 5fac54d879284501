"""Killed at moments that nobody chose, a trace leaves the network as it was, and no process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.collect_marks import Marks, changed, marks
from tests.fakes.awaiting import wait_until
from tests.kernel.test_capture_observe import packet_sockets
from tests.kernel.trace_network import NODES, PODS, build, run

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = (*NODES, *PODS, "underlay")
KILLS = 10
KILLED = 128 + signal.SIGKILL
"""What timeout(1) ends with when it had to kill."""
MARKER = "PODWIRE_TEST_KILLED"
"""A variable that all descendants of a trace have, by which those left are known."""


def trace(folder: Path, deep: bool, seconds: float | None = None) -> int:
    """Run a trace, killed by SIGKILL after that time; its own children are not."""
    options = ["--tcp", "7007", *(["--deep"] if deep else [])]
    command = [sys.executable, "-m", "podwire", "trace", "demo/web-0", "demo/db-0", *options]
    killer = [] if seconds is None else ["timeout", "--foreground", "-s", "KILL", f"{seconds:.3f}"]
    done = subprocess.run(
        [*killer, *command],
        cwd=folder,
        env={**os.environ, MARKER: str(folder)},
        capture_output=True,
        check=False,
    )
    return done.returncode


def still_running(folder: Path) -> list[str]:
    marker = f"{MARKER}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().decode().replace("\0", " "))
            except OSError:  # it has just ended, or is somebody else's
                continue
    return found


def marked(descriptors: Mapping[str, int]) -> dict[str, Marks]:
    """All that lasts; a rule set's number of changes goes on, and its tables are looked at."""
    return {name: replace(marks(each), nft=None) for name, each in descriptors.items()}


def test_a_killed_trace_leaves_nothing(tmp_path: Path) -> None:
    build("vxlan")
    for name in NAMES:
        run(f"ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    wait_until(lambda: "state UP" in run("ip -n underlay link show br0"))
    with ExitStack() as opened:
        descriptors = {
            name: opened.enter_context(namespaces.opened(f"/run/netns/{name}")) for name in NAMES
        }
        start = time.monotonic()
        trace(tmp_path, deep=True)
        whole = time.monotonic() - start
        before = marked(descriptors)
        codes = []
        for number in range(KILLS):
            # The first third is Python coming up.
            moment = random.uniform(0.3, 1.0) * whole
            code = trace(tmp_path, deep=number % 2 == 0, seconds=moment)
            codes.append(code)
            said = f"killed after {moment:.3f} s of {whole:.3f} s, exit code {code}"
            wait_until(lambda: still_running(tmp_path) == [])
            after = marked(descriptors)
            for name, each in descriptors.items():
                assert changed(before[name], after[name]) == (), f"{name}, {said}"
                assert packet_sockets(each) == 0, f"{name}, {said}"
                assert run(f"ip netns exec {name} nft list tables") == "", f"{name}, {said}"
        assert KILLED in codes, codes
