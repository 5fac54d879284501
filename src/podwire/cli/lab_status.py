"""`podwire lab status`: nodes, blocks and agents of a lab."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.lab_inside import name_option
from podwire.cli.tables import columns, output
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import observe
from podwire.drivers.store import open_store
from podwire.errors import PodwireError
from podwire.lab.entry import run_inside
from podwire.lab.registry import get_keeper
from podwire.lab.state import DATASTORE, NodePaths
from podwire.lab.workloads import lab_state
from podwire.model import keys
from podwire.model.block import AffinityState
from podwire.model.codec import decode_affinity, decode_cluster, decode_node
from podwire.model.config import DatastoreConfig

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.lab.records import DaemonState, LabState
    from podwire.lab.topology import LabNode
    from podwire.lab.world import Keeper
    from podwire.model.node import Node


@click.command("status")
@name_option
@click.option("-o", "--output", "format", type=click.Choice(["json", "yaml"]))
def status_command(name: str, format: str | None) -> None:
    """Nodes, blocks and agents of a lab.

    \b
      podwire lab status
    """  # noqa: D301  # click wants the character
    keeper = get_keeper(name)
    pids = outer_pids(keeper)

    def inside() -> int:
        status = _status(lab_state(), pids)
        if format is not None:
            click.echo(output(status, format), nl=False)
        else:
            click.echo(_text(status), nl=False)
        return 0

    sys.exit(run_inside(keeper, inside))


def outer_pids(keeper: Keeper) -> dict[int, int]:
    """Process ids as we see them, by those the lab's own processes see."""
    found: dict[int, int] = {}
    own = os.stat(f"/proc/{keeper.pid}/ns/pid").st_ino  # noqa: PTH116  # a link to no file
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # Processes end while we look, and others are none of our business.
        with suppress(OSError):
            if (entry / "ns" / "pid").stat().st_ino != own:
                continue
            status = (entry / "status").read_text()
            numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
            found[int(numbers[-1])] = int(numbers[0])
    return found


def agent_status(socket: str) -> dict[str, Any]:
    """What an agent says of itself; empty when it does not answer."""
    from podwire.agent.control import ask

    try:
        return ask(socket, {"control": "status"})
    except PodwireError:
        return {}


def _status(state: LabState, pids: dict[int, int]) -> dict[str, Any]:
    topology, birds = state.topology, state.birds
    store = open_store(DatastoreConfig(path=str(DATASTORE)))
    blocks = _blocks(store)
    nodes = {
        node.name: node
        for node in (decode_node(one.key, one.value) for one in store.list(keys.NODES).entries)
    }
    cluster = store.get(keys.cluster_key())
    routing = decode_cluster(cluster.key, cluster.value).routing if cluster else "agent"
    store.close()
    return {
        "name": topology.name,
        "encapsulation": topology.encapsulation.value,
        "mode": topology.mode.value.lower(),
        "routing": str(routing),
        **({} if topology.tor is None else {"tor": topology.tor.value}),
        "datastore": str(DATASTORE),
        "nodes": [
            {
                **_node(node, nodes.get(node.name), blocks.get(node.name, [])),
                "agent": _agent(node, state.agents[node.name], pids),
                **({"bird": _bird(node, bird, pids)} if (bird := birds.get(node.name)) else {}),
                **_paths(NodePaths(node.name)),
            }
            for node in topology.nodes
        ],
    }


def _blocks(store: Store) -> dict[str, list[str]]:
    blocks: dict[str, list[str]] = {}
    for entry in store.list(keys.AFFINITIES).entries:
        affinity = decode_affinity(entry.key, entry.value)
        if affinity.state is AffinityState.CONFIRMED:
            blocks.setdefault(affinity.node, []).append(str(affinity.block))
    return blocks


def _node(node: LabNode, known: Node | None, blocks: list[str]) -> dict[str, Any]:
    tunnel = None if known is None else known.ipip_tunnel or known.vxlan_tunnel
    return {
        "name": node.name,
        "address": str(node.address.ip),
        "tunnelAddress": None if tunnel is None else str(tunnel),
        "blocks": blocks,
    }


def _agent(node: LabNode, agent: DaemonState, pids: dict[int, int]) -> dict[str, Any]:
    socket = str(NodePaths(node.name).socket)
    said = agent_status(socket) if agent.pid is not None else {}
    return {
        "pid": None if agent.pid is None else pids.get(agent.pid),
        "ready": bool(said.get("ready")),
        "held": bool(said.get("held")),
        "socket": socket,
    }


def _bird(node: LabNode, bird: DaemonState, pids: dict[int, int]) -> dict[str, Any]:
    """BIRD's process, and how many of its sessions are established."""
    socket = str(NodePaths(node.name).bird_socket)
    found: dict[str, Any] = {
        "pid": None if bird.pid is None else pids.get(bird.pid),
        "wanted": bird.wanted,
        "socket": socket,
        "sessions": 0,
        "established": 0,
    }
    try:
        with Control.open(socket) as control:
            sessions = observe(control).sessions.values()
    except PodwireError as error:
        return {**found, "reason": str(error)}
    up = sum(one.established for one in sessions)
    return {**found, "sessions": len(sessions), "established": up}


def _paths(paths: NodePaths) -> dict[str, Any]:
    return {
        "cniConfig": str(paths.cni_config),
        "cniBinDir": str(paths.cni_programs),
        "healthSocket": str(paths.health_socket),
        "config": str(paths.config),
        "spool": str(paths.spool),
    }


def _text(status: dict[str, Any]) -> str:
    head = (
        f"lab {status['name']}: encapsulation {status['encapsulation']}, mode {status['mode']}, "
        f"routing {status['routing']}\n\n"
    )
    with_bird = any("bird" in node for node in status["nodes"])
    rows = [
        [
            node["name"],
            node["address"],
            ",".join(node["blocks"]),
            node["tunnelAddress"],
            _word(node["agent"]),
            node["agent"]["pid"],
            *([_sessions(node.get("bird"))] if with_bird else []),
        ]
        for node in status["nodes"]
    ]
    header = ["NODE", "ADDRESS", "BLOCKS", "TUNNEL", "AGENT", "PID"]
    return head + columns([*header, *(["BIRD"] if with_bird else [])], rows)


def _sessions(bird: dict[str, Any] | None) -> str | None:
    if bird is None:
        return None
    if "reason" in bird:
        return ("waiting" if bird["wanted"] else "stopped") if bird["pid"] is None else "silent"
    return f"{bird['established']} of {bird['sessions']} up"


def _word(agent: dict[str, Any]) -> str:
    if agent["pid"] is None:
        return "stopped"
    if agent["held"]:
        return "held"
    return "ready" if agent["ready"] else "starting"
