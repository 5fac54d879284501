"""10,000 block routes: from nothing, beside `ip -batch`, and the cost of one change among them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import cluster
from bench.measure import Comparison, cpu_s, interleave
from bench.world import Agent, Host
from podwire.drivers.namespaces import call_in
from podwire.drivers.netlink.session import Session
from podwire.drivers.store import open_store
from podwire.errors import KernelError
from podwire.model.config import DatastoreConfig
from podwire.model.route import PROTOCOL_PODWIRE

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = 10
"""Changes of one block in each round."""
PATIENCE_S = 120
QUIET_S = 0.3


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """Wall time until the kernel holds every route, and CPU time of the agent."""
    wall = Comparison(title="10,000 routes from nothing, until the kernel has them", unit="s")
    cpu = Comparison(title="10,000 routes from nothing, CPU of the agent", unit="s")
    change = Comparison(title="one change among 10,000 routes, CPU of the agent", unit="ms")
    delay = Comparison(title="one change among 10,000 routes, write to route", unit="ms")
    with Host("big") as big, Host("small") as small, Host("peer") as peer:
        places = {host.name: folder / host.name for host in (big, small, peer)}
        for place in places.values():
            place.mkdir()
        agent, idle = Agent(big, places["big"]), Agent(small, places["small"])
        cluster.write(agent.datastore, cluster.pool(), *cluster.stored())
        cluster.write(idle.datastore, cluster.pool())

        def full() -> None:
            flush(big)
            began = time.perf_counter()
            with agent.running() as pid:
                wait(lambda: count(big) > cluster.BLOCKS, "10,000 routes")
                wall.add("agent, start to all routes", time.perf_counter() - began)
                cpu.add("agent, start to all routes", settled(pid))
                for _ in range(CHANGES):
                    one_change(agent, big, pid, (change, delay))

        def restart() -> None:
            # The routes of the turn before are still there: nothing has to be written.
            if count(big) > cluster.BLOCKS:
                with agent.running() as pid:
                    cpu.add("agent, restart beside them", settled(pid))

        def empty() -> None:
            began = time.perf_counter()
            with idle.running() as pid:
                wall.add("agent, empty cluster, until ready", time.perf_counter() - began)
                cpu.add("agent, empty cluster, until ready", settled(pid))

        def batch() -> None:
            flush(peer)
            began = time.perf_counter()
            peer.ip("-batch", "-", text=commands())
            wall.add("ip -batch", time.perf_counter() - began)

        interleave(
            max(2, rounds // 2),
            {"full": full, "restart": restart, "empty": empty, "batch": batch},
        )
    return [wall, cpu, change, delay]


def one_change(
    agent: Agent, host: Host, pid: int, comparisons: tuple[Comparison, Comparison]
) -> None:
    """One block comes or goes; the next one is not begun before the agent is quiet again."""
    change, delay = comparisons
    before = settled(pid)
    store = open_store(DatastoreConfig(path=str(agent.datastore)))
    began = time.perf_counter()
    there = cluster.toggle(store, cluster.BLOCKS + 1)
    wait(lambda: is_routed(host) == there, "one route", pause_s=0.0005)
    word = "block added" if there else "block removed"
    delay.add(word, (time.perf_counter() - began) * 1000)
    store.close()
    change.add(word, (settled(pid) - before) * 1000)


def is_routed(host: Host) -> bool:
    network = cluster.block(cluster.BLOCKS + 1)
    try:
        with Session.open(host.descriptor) as session:
            return session.lookup(network[1], entry=True).key.destination == network
    except KernelError:
        return False


def count(host: Host) -> int:
    """How many routes the main table has."""
    table = call_in(host.descriptor, Path("/proc/thread-self/net/route").read_bytes)
    return table.count(b"\n") - 1


def commands() -> str:
    lines = (
        f"route replace {cluster.block(number)} via 172.20.{4 + number % cluster.NODES // 250}."
        f"{1 + number % 250} dev ens32 proto {PROTOCOL_PODWIRE}"
        for number in range(cluster.BLOCKS)
    )
    return "\n".join(lines) + "\n"


def flush(host: Host) -> None:
    host.ip("route", "flush", "proto", str(PROTOCOL_PODWIRE))


def wait(condition: Callable[[], bool], what: str, pause_s: float = 0.02) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(pause_s)


def settled(pid: int) -> float:
    """CPU seconds used, once the process has been quiet for a while."""
    used = cpu_s(pid)
    while True:
        time.sleep(QUIET_S)
        now = cpu_s(pid)
        if now - used < 0.001:
            return now
        used = now
