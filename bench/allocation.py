"""IPAM allocations per second with 1 and 8 writers (processes, each its own node) on one file."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from bench import cluster
from bench.measure import Comparison, interleave
from bench.world import ROOT
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import open_store
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model.config import DatastoreConfig

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = (1, 8)
EACH = 150
"""Allocations of one writer in one round."""


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """All allocations of a round, divided by the time until the last writer is done."""
    rate = Comparison(title="IPAM allocations, all writers together", unit="1/s")
    one = Comparison(title="IPAM, one allocation (median of its writer)", unit="ms")

    def turn(writers: int) -> None:
        path = folder / f"datastore-{time.monotonic_ns()}.db"
        cluster.write(path, cluster.pool())
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.allocation", str(path), f"node-{number}"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(writers)
        ]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready
        began = time.perf_counter()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        medians = [float(process.communicate()[0]) for process in started]
        rate.add(f"{writers} writers", writers * EACH / (time.perf_counter() - began))
        for median in medians:
            one.add(f"{writers} writers", median * 1000)

    interleave(rounds, {str(count): partial(turn, count) for count in WRITERS})
    return [rate, one]


def write(path: str, node: str) -> None:
    """One writer: say ready, wait for the word, allocate, print the median of the times."""
    store = open_store(DatastoreConfig(path=path))
    ipam = IPAM(store, node, SystemClock(), SystemDice())
    ipam.claim_ahead()
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    for number in range(EACH):
        began = time.perf_counter()
        ipam.assign(AssignRequest(handle=f"bench.{node}-{number}", attributes={"node": node}))
        times.append(time.perf_counter() - began)
    store.close()
    print(sorted(times)[len(times) // 2])


if __name__ == "__main__":
    write(*sys.argv[1:])
