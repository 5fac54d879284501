"""How a lab comes into being: from a topology to running agents, as the keeper does it."""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from podwire.drivers.bird.program import NAME, require_bird, start_words
from podwire.drivers.store import open_store
from podwire.errors import Rejected, Unsupported
from podwire.lab import tor
from podwire.lab.build import Builder, kernel_has_ipip
from podwire.lab.fabric import compute_fabric
from podwire.lab.gateway import explain_gateway, follow_blocks
from podwire.lab.keeper import Keeper, let_go, listen, redirect
from podwire.lab.seed import seed
from podwire.lab.state import (
    DATASTORE,
    PROGRAMS,
    STATE,
    NodePaths,
    agent_config_text,
    cni_config,
)
from podwire.model.config import DatastoreConfig
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.lab.keeper import Programs
    from podwire.lab.topology import Topology
    from podwire.lab.world import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `lab up` asks for."""

    topology: Topology
    automatic: bool
    """Choose between IPIP and VXLAN by what the kernel has."""
    explain: bool
    """Say the commands a person would type."""


def keep_lab(order: Order, programs: Programs, progress: Progress) -> NoReturn:
    """Build the lab and look after it; runs as the first process of its world.

    Raises:
        PodwireError: some part cannot be built; names it.
    """
    STATE.mkdir(mode=0o755)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    redirect(STATE / "keeper.log")
    topology = _settled(order, progress)
    if topology.routing is Routing.BIRD:
        require_bird()
    if topology.tor is not None:
        tor.require_router(topology.tor)
    installing = _install_plugin(topology, programs)
    _build_fabric(topology, progress, explain=order.explain)
    _write_files(topology)
    with_store = open_store(DatastoreConfig(path=str(DATASTORE)))
    seed(with_store, topology)
    with_store.close()
    if os.waitstatus_to_exitcode(os.waitpid(installing, 0)[1]) != 0:
        raise Rejected("the CNI plugin could not be installed", fix="see its message above")
    # What is there now never goes away: no collection should make the agents copy it.
    gc.collect()
    gc.freeze()
    keeper = Keeper(topology, programs)
    door = listen()
    say = progress.say if order.explain else _say_nothing
    _start_nodes(keeper, topology, say)
    _start_router(keeper, topology, say)
    progress.done()
    keeper.run(door)


def _start_nodes(keeper: Keeper, topology: Topology, say: Callable[[str], None]) -> None:
    for node in topology.nodes:
        config = NodePaths(node.name).config
        say(f"ip netns exec {node.name} podwire agent --node {node.name} --config {config} &")
        keeper.start_agent(node.name)
        if topology.routing is Routing.BIRD:
            say(_bird_words(node.name))
            keeper.start_bird(node.name)


def _start_router(keeper: Keeper, topology: Topology, say: Callable[[str], None]) -> None:
    """What leads from subnet to subnet, where it has to know the blocks."""
    if topology.tor is not None:
        for line in tor.explain(topology):
            say(line)
        for name, work in tor.works(topology):
            keeper.start_side_work(name, work)
    elif topology.encapsulation is Encapsulation.NONE:
        for command in explain_gateway(topology):
            say(command)
        keeper.start_side_work("gateway", lambda: follow_blocks(topology))


def _say_nothing(_: str) -> None:
    """Nobody asked for the commands."""


def _bird_words(node: str) -> str:
    paths = NodePaths(node)
    words = start_words(NAME, config=paths.bird_config, socket=paths.bird_socket)
    return f"ip netns exec {node} {' '.join(words)} &"


def _settled(order: Order, progress: Progress) -> Topology:
    """The topology with its encapsulation decided."""
    wanted = order.topology.encapsulation
    if not order.automatic and wanted is not Encapsulation.IPIP:
        return order.topology
    has_ipip = kernel_has_ipip()
    if not order.automatic:
        if not has_ipip:
            raise Unsupported(
                "this kernel has no ipip module", fix="use --encapsulation vxlan, or auto"
            )
        return order.topology
    if has_ipip:
        progress.say("encapsulation: ipip")
        return replace(order.topology, encapsulation=Encapsulation.IPIP)
    progress.say("encapsulation: vxlan (this kernel has no ipip)")
    return replace(order.topology, encapsulation=Encapsulation.VXLAN)


def _build_fabric(topology: Topology, progress: Progress, *, explain: bool) -> None:
    with Builder() as builder:
        for step in compute_fabric(topology):
            if explain:
                progress.say(f"\n# {step.reason}")
            for operation in step.operations:
                if explain:
                    progress.say(operation.describe())
                builder.run(operation)


def _write_files(topology: Topology) -> None:
    for node in topology.nodes:
        paths = NodePaths(node.name)
        paths.cni_config.parent.mkdir(parents=True)
        paths.spool.mkdir(mode=0o700)
        paths.secrets.mkdir(mode=0o700)
        paths.config.write_text(agent_config_text(node.name))
        paths.cni_config.write_text(json.dumps(cni_config(node.name), indent=2) + "\n")
    PROGRAMS.mkdir()
    program = PROGRAMS / "podwire"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m podwire "$@"\n')
    program.chmod(0o755)


def _install_plugin(topology: Topology, programs: Programs) -> int:
    """Install the plugin in a process of its own: a compiler may have to run meanwhile."""
    directory = NodePaths(topology.nodes[0].name).cni_programs
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        let_go()
        directory.mkdir(parents=True)
        programs.install_plugin(directory)
        code = 0
    finally:
        os._exit(code)
