"""IPAM allocations per second with 1 and 8 writers (processes, each its own node) on one file.

On the disk an allocation cannot be quicker than a sync of it, so the yardstick is a program that
only writes and syncs; in memory it shows what our own work costs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench import cluster
from bench.measure import Comparison, interleave
from bench.world import ROOT
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import open_store
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model.config import DatastoreConfig

WRITERS = (1, 8)
EACH = 150
"""Allocations of one writer in one round."""
WRITTEN = 5 * 4120
"""Bytes of log that an allocation takes: about five pages with their headers."""


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """All allocations of a round, divided by the time until the last writer is done."""
    rate = Comparison(title="IPAM allocations, all writers together", unit="1/s")
    one = Comparison(title="IPAM, one allocation (median of its writer)", unit="ms")

    def turn(writers: int, place: Path, title: str) -> None:
        path = place / f"datastore-{time.monotonic_ns()}.db"
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
        began = time.monotonic()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate()[0].split() for process in started]
        rate.add(title, writers * EACH / (max(float(end) for _, end in told) - began))
        for median, _ in told:
            one.add(title, float(median) * 1000)

    def sync() -> None:
        took = syncs(folder / "syncs")
        rate.add("one sync after the other", len(took) / sum(took))
        one.add("one sync after the other", sorted(took)[len(took) // 2] * 1000)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        places = {"on disk": folder, "in memory": Path(memory)}
        turns = {
            title: partial(turn, count, place, title)
            for where, place in places.items()
            for count in WRITERS
            for title in [f"{count} writer{'s' if count > 1 else ''} {where}"]
        }
        interleave(rounds, {**turns, "sync": sync})
    return [rate, one]


def syncs(path: Path) -> list[float]:
    """Seconds of each of some syncs of as much as an allocation writes."""
    took = []
    # A file that grows, as a young write-ahead log does: that costs the file system a transaction
    # each time, which a log that is written again from its beginning no longer does.
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    for number in range(EACH):
        began = time.perf_counter()
        os.pwrite(descriptor, b"x" * WRITTEN, number * WRITTEN)
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - began)
    os.close(descriptor)
    return took


def write(path: str, node: str) -> None:
    """One writer: say ready, wait for the word, allocate, print median and end."""
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
    ended = time.monotonic()
    store.close()
    print(sorted(times)[len(times) // 2], ended)


if __name__ == "__main__":
    write(*sys.argv[1:])
