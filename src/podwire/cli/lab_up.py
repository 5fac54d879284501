"""`podwire lab up|down|list`: making and ending labs."""

from __future__ import annotations

import sys
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NoReturn

import click

from podwire.cli.lab_inside import name_option
from podwire.cli.main import complain
from podwire.cli.tables import columns
from podwire.errors import BadInput, PodwireError
from podwire.lab.entry import run_apart
from podwire.lab.registry import find_keeper, forget, list_labs, reserved
from podwire.lab.router import Make
from podwire.lab.topology import DEFAULT_BLOCK_SIZE, DEFAULT_POOL, Topology, default_mode
from podwire.lab.world import create_world, end_world
from podwire.model.addressing import parse_network
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation, Mode

if TYPE_CHECKING:
    from pathlib import Path

    from podwire.lab.keeper import Programs
    from podwire.lab.start import Order
    from podwire.lab.world import Keeper, Progress

AUTO = "auto"
MODES = {"always": Mode.ALWAYS, "crosssubnet": Mode.CROSS_SUBNET}


routing_option = click.option(
    "--routing",
    type=click.Choice([one.value for one in Routing]),
    default=Routing.AGENT.value,
    show_default=True,
    help="Who writes the routes to other nodes' blocks: the agent, or BIRD, which learns them by"
    " BGP.",
)


@click.command("up")
@name_option
@click.option("--nodes", default=6, show_default=True, metavar="N", help="How many nodes.")
@click.option(
    "--encapsulation",
    type=click.Choice([AUTO, *(one.value for one in Encapsulation)]),
    default=AUTO,
    show_default=True,
    help="How packets cross from node to node; auto: ipip where the kernel has it, else vxlan.",
)
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    help="When to encapsulate; default always, with two subnets crosssubnet.",
)
@click.option(
    "--subnets", default=1, show_default=True, metavar="1|2", help="Nodes alternate between them."
)
@click.option(
    "--pool",
    default=str(DEFAULT_POOL),
    show_default=True,
    metavar="CIDR",
    help="Where pods' addresses come from.",
)
@click.option(
    "--block-size",
    default=DEFAULT_BLOCK_SIZE,
    show_default=True,
    metavar="N",
    help="Prefix length of a node's block.",
)
@routing_option
@click.option(
    "--tor",
    type=click.Choice([one.value for one in Make]),
    help="A real router of this make in front of the nodes, which learns the blocks by BGP.",
)
@click.option(
    "--reflectors",
    default=0,
    metavar="N",
    help="This many nodes reflect routes to the others, instead of a mesh.",
)
@click.option("--explain", is_flag=True, help="Print the commands a person would type.")
def up_command(  # noqa: PLR0913  # one parameter an option
    *,
    name: str,
    nodes: int,
    encapsulation: str,
    mode: str | None,
    subnets: int,
    pool: str,
    block_size: int,
    routing: str,
    tor: str | None,
    reflectors: int,
    explain: bool,
) -> None:
    """Make a lab and start it; returns when pods can be created.

    \b
      podwire lab up --nodes 3 --encapsulation vxlan
    """  # noqa: D301  # click wants the character
    cidr = parse_network(pool, "--pool")
    if not isinstance(cidr, IPv4Network):
        raise BadInput(f"--pool {pool} is no IPv4 network", fix=f"write it like {DEFAULT_POOL}")
    automatic = encapsulation == AUTO
    chosen = Encapsulation.VXLAN if automatic else Encapsulation(encapsulation)
    topology = Topology(
        name=name,
        size=nodes,
        encapsulation=chosen,
        mode=MODES[mode] if mode else default_mode(chosen, subnets),
        subnets=subnets,
        pool=cidr,
        block_size=block_size,
        routing=Routing(routing),
        tor=None if tor is None else Make(tor),
        reflectors=reflectors,
    )
    from podwire.lab.start import Order

    create_lab(Order(topology=topology, automatic=automatic, explain=explain))
    option = "" if name == "lab" else f" --name {name}"
    click.echo(f"lab {name} is up: {nodes} nodes. See `podwire lab status{option}`.")


def create_lab(order: Order) -> None:
    """Make a lab, register it, wait until it is ready; undone when that fails."""
    from podwire.lab.start import keep_lab

    programs = our_programs()

    def keep(progress: Progress) -> NoReturn:
        keep_lab(order, programs, progress)

    with reserved(order.topology.name) as register:
        keeper = create_world(keep, click.echo, register)
    try:
        code = run_apart(keeper, lambda: _wait(order.topology))
    except BaseException:
        _end(order.topology.name, keeper)
        raise
    if code != 0:
        _end(order.topology.name, keeper)
        sys.exit(code)


def our_programs() -> Programs:
    """Agent and plugin, for the lab to run.

    Imported before the lab is made: its agents are forked from here and need not import again.
    """
    from podwire.agent import app
    from podwire.cni.install import install_plugin
    from podwire.drivers.config import load_agent_config
    from podwire.lab.keeper import Programs

    def run_agent(node: str, config: Path) -> int:
        try:
            app.run(load_agent_config(config, node))
        except PodwireError as error:
            complain(error)
            return 1
        return 0

    return Programs(run_agent=run_agent, install_plugin=install_plugin)


def _wait(topology: Topology) -> int:
    from podwire.agent.control import ask
    from podwire.lab.ready import wait_ready

    def answers(socket: str) -> bool:
        try:
            return bool(ask(socket, {"control": "status"}).get("ready"))
        except PodwireError:
            return False

    wait_ready(topology, answers)
    return 0


@click.command("down")
@name_option
def down_command(name: str) -> None:
    """End a lab; nothing of it is left.

    \b
      podwire lab down
    """  # noqa: D301  # click wants the character
    keeper = find_keeper(name)
    if keeper is None:
        click.echo(f"lab {name} does not run")
        return
    _end(name, keeper)
    click.echo(f"lab {name} is down")


def _end(name: str, keeper: Keeper) -> None:
    end_world(keeper)
    forget(name)


@click.command("list")
def list_command() -> None:
    """The labs that run, of this user.

    \b
      podwire lab list
    """  # noqa: D301  # click wants the character
    click.echo(
        columns(["NAME", "PID"], [(name, keeper.pid) for name, keeper in list_labs()]), nl=False
    )
