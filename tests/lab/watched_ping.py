"""Runs `tests.lab.steady_pinger` beside a block of a test, and tells what it lost meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def watched_ping(
    sources: Mapping[str, str], targets: Mapping[str, str], *inside: str
) -> Iterator[dict[str, Any]]:
    """Every source pings every target all the while; after the block `lost` and `rounds`.

    `inside`: what stands before the command where it is to run elsewhere.
    """
    told: dict[str, Any] = {}
    with subprocess.Popen(
        [*inside, sys.executable, "-m", "tests.lab.steady_pinger"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as pinger:
        assert pinger.stdin is not None
        assert pinger.stdout is not None
        pinger.stdin.write(json.dumps({"sources": dict(sources), "targets": dict(targets)}) + "\n")
        pinger.stdin.flush()
        try:
            assert pinger.stdout.readline() == "ready\n"
            yield told
        finally:
            pinger.stdin.close()
            told |= json.loads(pinger.stdout.read() or "{}")
