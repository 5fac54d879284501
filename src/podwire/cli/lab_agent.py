"""`podwire lab hold|release|agent stop|start`: a node's agent, kept still or away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from podwire.cli.lab_inside import do_inside, name_option
from podwire.cli.lab_status import agent_status
from podwire.errors import Rejected
from podwire.lab import control
from podwire.lab.state import CONTROL, NodePaths
from podwire.lab.workloads import lab_state

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 20.0
STEP_S = 0.05


@click.command("hold")
@name_option
@click.argument("node", required=False)
@click.option("--all", "every", is_flag=True, help="All nodes.")
@click.option("--for", "seconds", metavar="SECONDS", type=float, help="Released by itself then.")
def hold_command(*, name: str, node: str | None, every: bool, seconds: float | None) -> None:
    """Stop all changes by a node's agent, withdrawing nothing: what works goes on working.

    \b
      podwire lab hold vms103
    """  # noqa: D301  # click wants the character
    request: dict[str, object] = {"control": "hold"}
    if seconds is not None:
        request["seconds"] = seconds
    _ask_agents(name, node, every=every, request=request, word="held")


@click.command("release")
@name_option
@click.argument("node", required=False)
@click.option("--all", "every", is_flag=True, help="All nodes.")
def release_command(*, name: str, node: str | None, every: bool) -> None:
    """Let held agents go on: that of one node, or all.

    \b
      podwire lab release vms103
    """  # noqa: D301  # click wants the character
    _ask_agents(
        name, node, every=every or node is None, request={"control": "release"}, word="released"
    )


@click.group("agent")
def agent_command() -> None:
    """Stop or start a node's agent process.

    \b
      podwire lab agent stop vms103
    """  # noqa: D301  # click wants the character


@agent_command.command("stop")
@name_option
@click.argument("node")
def stop_command(name: str, node: str) -> None:
    """End a node's agent and keep it away; the pods go on.

    \b
      podwire lab agent stop vms103
    """  # noqa: D301  # click wants the character
    _run_agent(name, node, run=False)


@agent_command.command("start")
@name_option
@click.argument("node")
def start_command(name: str, node: str) -> None:
    """Start a node's agent again; returns when it is ready.

    \b
      podwire lab agent start vms103
    """  # noqa: D301  # click wants the character
    _run_agent(name, node, run=True)


@click.group("bird")
def bird_command() -> None:
    """Stop or start a node's BIRD process.

    \b
      podwire lab bird stop vms103
    """  # noqa: D301  # click wants the character


@bird_command.command("stop")
@name_option
@click.argument("node")
def stop_bird_command(name: str, node: str) -> None:
    """End a node's BIRD and keep it away; it says goodbye, so its peers forget its routes.

    \b
      podwire lab bird stop vms103
    """  # noqa: D301  # click wants the character
    _run_bird(name, node, run=False)


@bird_command.command("start")
@name_option
@click.argument("node", required=False)
@click.option("--all", "every", is_flag=True, help="All nodes.")
def start_bird_command(*, name: str, node: str | None, every: bool) -> None:
    """Start a node's BIRD; it waits until the agent has a configuration for it.

    \b
      podwire lab bird start vms103
    """  # noqa: D301  # click wants the character
    if (node is None) != every:
        raise click.UsageError("name one node, or say --all")
    _run_bird(name, node, run=True)


def _run_bird(name: str, node: str | None, *, run: bool) -> None:
    def inside() -> int:
        state = lab_state()
        names = [node] if node else [one.name for one in state.topology.nodes]
        for one in names:
            control.ask(CONTROL, {"do": "bird", "node": one, "run": run})
            if not run:
                _wait(lambda: lab_state().birds[one].pid is None, f"BIRD of {one} to end")  # noqa: B023
            click.echo(f"BIRD of {one} {'started' if run else 'stopped'}")
        return 0

    do_inside(name, inside)


def _ask_agents(
    name: str, node: str | None, *, every: bool, request: dict[str, object], word: str
) -> None:
    if (node is None) != every:
        raise click.UsageError("name one node, or say --all")

    def inside() -> int:
        from podwire.agent.control import ask

        topology = lab_state().topology
        names = [topology.node(node).name] if node else [one.name for one in topology.nodes]
        for one in names:
            ask(str(NodePaths(one).socket), request)
            click.echo(f"{one} {word}")
        return 0

    do_inside(name, inside)


def _run_agent(name: str, node: str, *, run: bool) -> None:
    def inside() -> int:
        control.ask(CONTROL, {"do": "agent", "node": node, "run": run})
        if run:
            socket = str(NodePaths(node).socket)
            _wait(lambda: bool(agent_status(socket).get("ready")), f"agent of {node} to be ready")
        else:
            _wait(lambda: lab_state().agents[node].pid is None, f"agent of {node} to end")
        click.echo(f"agent of {node} {'started' if run else 'stopped'}")
        return 0

    do_inside(name, inside)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise Rejected(f"waited {PATIENCE_S:.0f} s in vain for the {what}")
        time.sleep(STEP_S)
