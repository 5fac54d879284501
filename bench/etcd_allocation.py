"""IPAM allocations per second with 1, 2, 5 and 10 agents (processes) on one etcd.

Beside it the same ten on one SQLite file, and ten programs that keep all addresses of the cluster
in one object and compare-and-swap that: what blocks are there to spare.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.fakes.etcd_server import EtcdServer

from bench import cluster
from bench.measure import Comparison, interleave
from bench.world import ROOT
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster, open_store
from podwire.errors import Conflict
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model.codec import encode, key_of
from podwire.model.config import DatastoreConfig, EtcdConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podwire.boundary import Store

AGENTS = (1, 2, 5, 10)
EACH = 60
"""Allocations of one agent in one round."""
ONE_KEY = "/bench/addresses"


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """All allocations of a round, divided by the time until the last agent is done."""
    rate = Comparison(title="IPAM allocations on etcd, all agents together", unit="1/s")

    def turn(title: str, agents: int, how: str) -> None:
        place = folder / f"{how}-{time.monotonic_ns()}"
        if how == "sqlite":
            place.mkdir()
            cluster.write(place / "datastore.db", cluster.pool())
            rate.add(title, together(agents, "blocks", str(place / "datastore.db")))
            return
        server = EtcdServer(place).start().wait_ready()
        try:
            store = open_at(server.endpoint)
            ensure_cluster(store)
            store.create(key_of(cluster.pool()), encode(cluster.pool()))
            store.create(ONE_KEY, {"taken": []})
            store.close()
            rate.add(title, together(agents, how, server.endpoint))
        finally:
            server.kill()

    subjects = {f"{count} agent{'s' if count > 1 else ''}": (count, "blocks") for count in AGENTS}
    subjects["10 agents on one SQLite file"] = (10, "sqlite")
    subjects["10 programs on one object"] = (10, "object")
    interleave(rounds, {title: partial(turn, title, *each) for title, each in subjects.items()})
    return [rate]


def together(agents: int, how: str, place: str) -> float:
    """Have so many begin at once; allocations per second."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.etcd_allocation", place, f"node-{number}", how],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(agents)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    began = time.monotonic()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [float(process.communicate()[0]) for process in started]
    return agents * EACH / (max(ends) - began)


def open_at(place: str) -> Store:
    """A file, or an endpoint."""
    if place.startswith("/"):
        return open_store(DatastoreConfig(path=place))
    return open_store(DatastoreConfig(type="etcd", etcd=EtcdConfig(endpoints=(place,))))


def take_from_blocks(store: Store, node: str) -> Callable[[int], object]:
    """As an agent does."""
    ipam = IPAM(store, node, SystemClock(), SystemDice())
    ipam.claim_ahead()
    owner = {"node": node}
    return lambda n: ipam.assign(AssignRequest(handle=f"bench.{node}-{n}", attributes=owner))


def take_from_one(store: Store, node: str) -> Callable[[int], object]:
    """As who knows of nothing but compare-and-swap."""

    def take(number: int) -> None:
        while True:
            entry = store.get(ONE_KEY)
            assert entry is not None
            taken = [*entry.value["taken"], f"{node}-{number}"]
            try:
                store.update(ONE_KEY, {"taken": taken}, entry.revision)
            except Conflict:
                continue
            return

    return take


def run(place: str, node: str, how: str) -> None:
    """One agent: say ready, wait for the word, allocate, print when it was done."""
    store = open_at(place)
    take = (take_from_one if how == "object" else take_from_blocks)(store, node)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(EACH):
        take(number)
    print(time.monotonic())
    store.close()


if __name__ == "__main__":
    run(*sys.argv[1:])
