"""When a lab is ready: every agent answers, and every node knows the way to every other's pods."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podwire.drivers.store import open_store
from podwire.errors import Compacted, Rejected
from podwire.lab.state import DATASTORE, NodePaths
from podwire.lab.workloads import lab_state
from podwire.model import keys
from podwire.model.block import AffinityState
from podwire.model.codec import decode_affinity
from podwire.model.config import DatastoreConfig
from podwire.model.node import Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.boundary import Store
    from podwire.lab.topology import Topology

LOOK_AGAIN_S = 0.25
"""An agent's process may end without a word in the datastore."""
PATIENCE_S = 30.0
PATIENCE_PER_NODE_S = 2.0
FAILED_STARTS = 3
LAST_LINES = 5
NEIGHBOURS = 1024
"""ARP entries the kernel keeps unless somebody has raised gc_thresh3."""


def wait_ready(topology: Topology, answers: Callable[[str], bool]) -> None:
    """Wait until pods can be made that reach each other. `answers`: is an agent ready there?

    Raises:
        Rejected: an agent keeps ending, or it takes too long; shows what the agent printed.
    """
    deadline = time.monotonic() + PATIENCE_S + PATIENCE_PER_NODE_S * topology.size
    store = open_store(DatastoreConfig(path=str(DATASTORE)))
    watch = store.watch(keys.APPLIED, store.list(keys.APPLIED).revision)
    waiting = [node.name for node in topology.nodes]
    try:
        while True:
            if not _ignorant(store, waiting):
                waiting = [one for one in waiting if not answers(str(NodePaths(one).socket))]
                if not waiting:
                    return
            late = time.monotonic() > deadline
            if late:
                check_neighbours(topology)
            _check_agents(waiting, late=late)
            try:
                watch.wait(LOOK_AGAIN_S)
            except Compacted:
                watch.close()
                watch = store.watch(keys.APPLIED, store.list(keys.APPLIED).revision)
    finally:
        watch.close()
        store.close()


def _ignorant(store: Store, nodes: Iterable[str]) -> list[str]:
    """Nodes that do not yet reach every block of the others, or have none of their own."""
    holders: dict[str, str] = {}
    for entry in store.list(keys.AFFINITIES).entries:
        affinity = decode_affinity(entry.key, entry.value)
        if affinity.state is AffinityState.CONFIRMED:
            holders[str(affinity.block)] = affinity.node
    lines = {
        keys.parse_applied_key(entry.key): set(entry.value.get("blocks", ()))
        for entry in store.list(keys.APPLIED).entries
    }
    owners = set(holders.values())
    return [
        node
        for node in nodes
        if node not in owners
        or node not in lines
        or not {block for block, holder in holders.items() if holder != node} <= lines[node]
    ]


def check_neighbours(topology: Topology) -> None:
    """Tell a lab that is late why, where a mesh makes too many nodes each other's neighbours.

    Source: net/ipv4/arp.c, arp_tbl: one table for all network namespaces; its limits are sysctls of
    the machine itself.

    Raises:
        Rejected: the kernel has no room for so many.
    """
    pairs = topology.size * (topology.size - 1)
    if topology.routing is Routing.BIRD and not topology.reflectors and pairs >= NEIGHBOURS:
        raise Rejected(
            f"the lab is not ready in time: a mesh of {topology.size} nodes needs {pairs} ARP"
            f" entries, and Linux keeps {NEIGHBOURS} for all namespaces together",
            fix="add --reflectors 2, ask for fewer --nodes, or on the machine"
            f" sysctl net.ipv4.neigh.default.gc_thresh3={2 * pairs}",
        )


def _check_agents(nodes: Iterable[str], *, late: bool) -> None:
    agents = lab_state().agents
    for node in nodes:
        if late or agents[node].restarts >= FAILED_STARTS:
            what = "is not ready in time" if late else "ends again and again"
            raise Rejected(f"the agent of {node} {what}:\n{_tail(node)}")


def _tail(node: str) -> str:
    try:
        lines = NodePaths(node).log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (it printed nothing)"
