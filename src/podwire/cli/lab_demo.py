"""`podwire lab demo`: a lab, two pods, and everything that carries a packet between them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click

from podwire.cli.lab_up import AUTO
from podwire.drivers.bird.program import find_program
from podwire.errors import BadInput, Rejected
from podwire.lab.tour import Guest, Stop, compute_tour
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation

LAB = "demo"
MANIFEST = Path("examples") / "demo-deployment.yaml"
PROGRAM = [sys.executable, "-P", "-m", "podwire", "lab"]


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the lab running, to look around yourself.")
@click.option(
    "--encapsulation",
    type=click.Choice([AUTO, *(one.value for one in Encapsulation)]),
    default=AUTO,
    show_default=True,
)
@click.option("--nodes", default=6, show_default=True, metavar="N", help="How many nodes.")
@click.option(
    "--routing",
    type=click.Choice([AUTO, *(one.value for one in Routing)]),
    default=AUTO,
    show_default=True,
    help="Who writes the routes to other nodes' blocks; auto: BIRD where there is one.",
)
def demo_command(*, keep: bool, encapsulation: str, nodes: int, routing: str) -> None:
    """Show two pods on different nodes reach each other, and why they do.

    \b
      podwire lab demo
    """  # noqa: D301  # click wants the character
    if nodes < 2:
        raise BadInput("a demo needs two nodes", fix="ask for --nodes 2 or more")
    manifest = _manifest()
    up = ["up", "--nodes", str(nodes), "--encapsulation", encapsulation]
    up += ["--routing", _routing(routing)]
    _show(
        Stop(
            title="Several nodes on this machine",
            why="Each is a network namespace with the agent in it; a switch connects them.",
            commands=(tuple(up), ("status",)),
            essential=True,
        )
    )
    try:
        _show(
            Stop(
                title="A Deployment of two pods that want to be apart",
                why="As for kubectl; each pod gets its network from the CNI plugin podwire-cni.",
                commands=(("apply", "-f", str(manifest)),),
                essential=True,
            )
        )
        source, destination = _guests()
        status = json.loads(_ask("status", "-o", "json"))
        used = Encapsulation(status["encapsulation"])
        for stop in compute_tour(source, destination, used, Routing(status["routing"])):
            _show(stop)
    except BaseException:
        _end(keep=keep)
        raise
    _end(keep=keep)
    if keep:
        _advise(source, destination)


def _show(stop: Stop) -> None:
    click.secho(f"\n== {stop.title}", bold=True)
    click.echo(f"   {stop.why}")
    for command in stop.commands:
        click.secho(f"\n$ podwire lab {shlex.join(_named(command))}", fg="cyan")
        code = subprocess.run([*PROGRAM, *_named(command)], check=False).returncode
        if code != 0 and stop.essential:
            raise Rejected(
                f"the demo ends here: `{command[0]}` failed with code {code}",
                fix="its message is above",
            )


def _named(command: tuple[str, ...]) -> list[str]:
    return [command[0], "--name", LAB, *command[1:]]


def _ask(*command: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *_named(command)], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _guests() -> tuple[Guest, Guest]:
    pods = json.loads(_ask("pods", "-n", "demo", "-o", "json"))
    guests = [
        Guest(
            title=f"{pod['namespace']}/{pod['name']}",
            node=pod["node"],
            ip=pod["ip"],
            host_interface=pod["hostInterface"],
        )
        for pod in sorted(pods, key=lambda pod: str(pod["node"]))
    ]
    return guests[0], guests[1]


def _routing(wanted: str) -> str:
    if wanted != AUTO:
        return wanted
    return (Routing.AGENT if find_program() is None else Routing.BIRD).value


def _manifest() -> Path:
    if MANIFEST.is_file():
        return MANIFEST
    path = Path(__file__).parents[3] / MANIFEST
    if not path.is_file():
        raise BadInput(f"{MANIFEST} is not here", fix="run the demo in a checkout of Podwire")
    return path


def _end(*, keep: bool) -> None:
    if not keep:
        subprocess.run([*PROGRAM, "down", "--name", LAB], check=False, stdout=subprocess.DEVNULL)
        click.echo("\nThe lab is gone again. `podwire lab demo --keep` leaves it for you.")


def _advise(source: Guest, destination: Guest) -> None:
    click.secho("\n== The lab is yours now", bold=True)
    for line in (
        f"podwire lab exec --name {LAB} {source.title}              # a shell in a pod",
        f"podwire lab node --name {LAB} {source.node} -- ip -d link",
        f"podwire lab scale --name {LAB} -n demo deployment/demo-deployment --replicas 12",
        f"podwire lab hold --name {LAB} {source.node}                    # nothing is repaired",
        f"podwire lab node --name {LAB} {source.node} -- ip route flush proto 80",
        f"podwire lab trace --name {LAB} {source.title} {destination.title}",
        f"podwire lab release --name {LAB} {source.node}                 # all is repaired",
        f"podwire lab down --name {LAB}",
    ):
        click.echo(f"  {line}")
