"""BIRD with 1,000 peers and 5,000 blocks: what a change costs, and memory, beside the agent alone.

home [172.20.0.1]: the node that is measured      home-wire [172.20.4.1]: node-0, announces all
The other 999 nodes of the datastore are not there: their sessions wait.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from bench import birds, cluster
from bench.measure import Comparison, interleave
from bench.memory import memory
from bench.routes import count, flush, settled, wait
from bench.world import UNDERLAY, Agent, Host, run
from podwire.agent.bird import IDLE
from podwire.desired.bgpcompute import compute_bird
from podwire.desired.bgptext import render
from podwire.drivers.bird.program import check_config, require_bird
from podwire.drivers.netlink.session import Session
from podwire.drivers.store import ensure_cluster, open_store
from podwire.errors import KernelError
from podwire.model.block import Affinity
from podwire.model.codec import encode, key_of
from podwire.model.config import DatastoreConfig
from podwire.model.node import Node, Routing
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podwire.model.resource import Stored

BLOCKS = 5_000
FEW = 10
HOME = Node(metadata=Metadata(name="bench"), address=IPv4Interface(UNDERLAY))
NEW_NODE = Node(metadata=Metadata(name="node-new"), address=IPv4Interface("172.20.9.9/16"))
NEW_SESSION = "peer_172_20_9_9"
NEW_BLOCK = cluster.BLOCKS + 1
CHANGES = 3
"""Of each kind in each round."""


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """Milliseconds of one change; megabytes."""
    with Host("home") as home:
        run("ip", "-n", "home-wire", "address", "add", "172.20.4.1/16", "dev", "wire")
        return [
            *_telling(folder, home, rounds),
            _one_block(folder, home, rounds),
            *_whole(folder, home, max(2, rounds // 3)),
        ]


def _values(nodes: int, blocks: int) -> list[Stored]:
    kept = list(cluster.stored())
    return [*kept[:nodes], *kept[cluster.NODES : cluster.NODES + blocks]]


def source(blocks: int, *more: str, learn: bool = True) -> str:
    """What node-0's BIRD is told: it has all the blocks, in its file."""
    routes = [f"  route {cluster.block(number)} blackhole;" for number in range(blocks)]
    kernel = "protocol kernel { learn; scan time 60; ipv4 { import all; export none; }; }"
    return "\n".join(
        [
            "log stderr { warning, error, fatal };\nrouter id 172.20.4.1;",
            "protocol device { }\nprotocol static blocks {\n  ipv4;",
            *routes,
            *(f"  route {each} blackhole;" for each in more),
            "}",
            kernel if learn else "",
            "protocol bgp home {",
            "  local 172.20.4.1 as 64512; neighbor 172.20.0.1 as 64512; multihop;",
            "  connect delay time 1; connect retry time 1; error wait time 1, 2;",
            "  ipv4 { import none; next hop self; export where dest = RTD_BLACKHOLE; };",
            "}\n",
        ]
    )


# --- telling BIRD -------------------------------------------------------------------------------


def _telling(folder: Path, home: Host, rounds: int) -> list[Comparison]:
    """One peer more or less, from the value to BIRD's word that it goes by it; and its parts."""
    whole = Comparison(title="BIRD is told of one peer more or less", unit="ms")
    parts = []
    for peers, blocks in ((1000, BLOCKS), (1000, 0), (FEW, 0)):
        flush_bird(home)
        name = f"{peers:,} peers, {blocks:,} blocks"
        part = Comparison(title=f"of it, {name}", unit="ms")
        with _pair(folder, home, peers, blocks) as socket:
            for turn in range(rounds * CHANGES):
                snapshot = _snapshot(peers, blocks, more=turn % 2 == 0)
                took = _tell(part, socket, folder, snapshot)
                whole.add(name, took * 1e3)
        parts.append(part)
    return [whole, *parts]


def _snapshot(peers: int, blocks: int, *, more: bool = False) -> Snapshot:
    values = _values(peers, blocks)
    nodes = [HOME, *(each for each in values if isinstance(each, Node)), *([NEW_NODE] * more)]
    return Snapshot(
        in_sync=True,
        pools={"bench": cluster.pool()},
        nodes={each.name: each for each in nodes},
    )


def _text(snapshot: Snapshot) -> str:
    config = compute_bird(snapshot, "bench")
    assert config is not None
    return render(config, {})


@contextmanager
def _pair(folder: Path, home: Host, peers: int, blocks: int) -> Iterator[Path]:
    """Both BIRDs, once home's kernel has all blocks."""
    there = folder / "source.conf", folder / "source.ctl"
    here = folder / "home.conf", folder / "home.ctl"
    with (
        birds.bird("home-wire", *there, source(blocks)),
        birds.bird("home", *here, _text(_snapshot(peers, blocks))),
    ):
        wait(lambda: count(home) > blocks, f"{blocks} routes of BIRD")
        yield here[1]


def _tell(comparison: Comparison, socket: Path, folder: Path, snapshot: Snapshot) -> float:
    """Seconds in all."""
    began = time.perf_counter()
    text = _text(snapshot)
    rendered = time.perf_counter()
    path = folder / "home.conf"
    path.write_text(text)
    check_config(require_bird(), path)
    checked = time.perf_counter()
    birds.configure(socket)
    ended = time.perf_counter()
    for part, seconds in (
        ("value computed and rendered", rendered - began),
        ("bird -p, a process for its version and one for the file", checked - rendered),
        ("configure", ended - checked),
    ):
        comparison.add(part, seconds * 1e3)
    return ended - began


# --- one block ----------------------------------------------------------------------------------


def _one_block(folder: Path, home: Host, rounds: int) -> Comparison:
    """One block more at node-0 beside 5,000, until home's kernel has its route."""
    title = f"one block more beside {BLOCKS:,}, to the peer's kernel"
    comparison = Comparison(title=title, unit="ms")
    block = cluster.block(NEW_BLOCK)
    there = folder / "source.ctl"

    def learnt(*, add: bool) -> None:
        verb = "add" if add else "del"
        run("ip", "-n", "home-wire", "route", verb, "blackhole", str(block), "proto", "80")

    def rewritten(*, add: bool) -> None:
        (folder / "source.conf").write_text(source(BLOCKS, *([str(block)] if add else [])))
        birds.configure(there)

    def turn(subject: str, act: Callable[..., None]) -> None:
        began = time.perf_counter()
        act(add=True)
        wait(lambda: is_routed(home), "the block's route", pause_s=0.0003)
        comparison.add(subject, (time.perf_counter() - began) * 1e3)
        act(add=False)
        wait(lambda: not is_routed(home), "the block's route to go", pause_s=0.0003)

    flush_bird(home)
    with _pair(folder, home, FEW, BLOCKS):
        subjects = {
            "written into the file, BIRD reads it again": partial(
                turn, "written into the file, BIRD reads it again", rewritten
            ),
            "blackhole in the kernel, BIRD learns it": partial(
                turn, "blackhole in the kernel, BIRD learns it", learnt
            ),
        }
        interleave(rounds * CHANGES, subjects)
    return comparison


# --- agent and BIRD -----------------------------------------------------------------------------


def _whole(folder: Path, home: Host, rounds: int) -> list[Comparison]:
    """The agent with BIRD, and the agent that writes the routes itself."""
    size = f"{cluster.NODES:,} nodes, {BLOCKS:,} blocks"
    change = Comparison(title=f"a node more beside {size}, from its write", unit="ms")
    sizes = {
        big: Comparison(
            title=f"memory when idle (PSS), {size if big else 'empty cluster'}", unit="MB"
        )
        for big in (True, False)
    }
    for turn in range(rounds):
        for big in (False, True):
            for routing in (Routing.BIRD, Routing.AGENT):
                place = folder / f"{routing.value}-{big}-{turn}"
                place.mkdir()
                with _node(home, place, routing, big=big) as (agent, pids):
                    if big:
                        _change(change, agent, home, routing)
                    each = {name: memory(pid)["PSS"] / 1e3 for name, pid in pids.items()}
                    if routing is Routing.BIRD:
                        sizes[big].add("agent and BIRD", sum(each.values()))
                        sizes[big].add("of that: BIRD", each["bird"])
                    else:
                        sizes[big].add("agent that writes the routes", each["agent"])
    return [change, *sizes.values()]


@contextmanager
def _node(
    home: Host, place: Path, routing: Routing, *, big: bool
) -> Iterator[tuple[Agent, dict[str, int]]]:
    """Agent and BIRD that have come to rest; with routing agent there is no BIRD."""
    flush(home)
    flush_bird(home)
    blocks = BLOCKS if big else 0
    agent = Agent(home, place)
    store = open_store(DatastoreConfig(path=str(agent.datastore)))
    ensure_cluster(store, routing=routing)
    store.close()
    cluster.write(agent.datastore, cluster.pool(), *_values(cluster.NODES if big else 0, blocks))
    there = place / "source.conf", place / "source.ctl"
    if routing is Routing.AGENT:
        with agent.running() as pid:
            wait(lambda: count(home) > blocks, "the agent's routes")
            settled(pid)
            yield agent, {"agent": pid}
        return
    with (
        birds.bird("home-wire", *there, source(blocks)),
        birds.bird("home", agent.bird_config, agent.bird_socket, IDLE) as own,
        agent.running() as pid,
    ):
        wait(lambda: count(home) > blocks, "BIRD's routes")
        settled(pid)
        settled(own)
        yield agent, {"agent": pid, "bird": own}


def _change(comparison: Comparison, agent: Agent, home: Host, routing: Routing) -> None:
    """A node with a block comes: BIRD has a session for it, or the kernel a route to its block."""
    store = open_store(DatastoreConfig(path=str(agent.datastore)))
    values = NEW_NODE, Affinity(node=NEW_NODE.name, block=cluster.block(NEW_BLOCK))
    for _ in range(CHANGES):
        began = time.perf_counter()
        for value in values:
            store.create(key_of(value), encode(value))
        if routing is Routing.BIRD:
            wait(lambda: birds.knows(agent.bird_socket, NEW_SESSION), "a session", 0.002)
            comparison.add("until BIRD has its session", (time.perf_counter() - began) * 1e3)
        else:
            wait(lambda: is_routed(home), "a route", 0.002)
            comparison.add("until the agent's route is there", (time.perf_counter() - began) * 1e3)
        for value in reversed(values):
            entry = store.get(key_of(value))
            assert entry is not None
            store.delete(entry.key, entry.revision)
        if routing is Routing.BIRD:
            wait(lambda: not birds.knows(agent.bird_socket, NEW_SESSION), "no session", 0.002)
        else:
            wait(lambda: not is_routed(home), "no route", 0.002)
    store.close()


def is_routed(home: Host) -> bool:
    """Whether home has a route to the new block."""
    network = cluster.block(NEW_BLOCK)
    try:
        with Session.open(home.descriptor) as session:
            return session.lookup(network[1], entry=True).key.destination == network
    except KernelError:
        return False


def flush_bird(home: Host) -> None:
    """BIRD's routes outlive it (`persist`)."""
    home.ip("route", "flush", "proto", "bird")
