"""`podwire lab exec|node`: run a command in a pod or on a node."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from podwire.cli.lab_inside import name_option
from podwire.cli.main import complain
from podwire.errors import BadInput, PodwireError
from podwire.lab.entry import OWN_FAILURE, enter_place, execute, run_inside
from podwire.lab.registry import get_keeper
from podwire.lab.sandbox import environment_of
from podwire.lab.state import NodePaths
from podwire.lab.topology import UNDERLAY
from podwire.lab.workloads import lab_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from podwire.lab.records import PodRecord

_LIKE_SHELL = {"ignore_unknown_options": True}


@click.command("exec", context_settings=_LIKE_SHELL)
@name_option
@click.option("-n", "--namespace", metavar="NS", help="Namespace of the pod (or write NS/NAME).")
@click.argument("pod", metavar="POD")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec_command(name: str, namespace: str | None, pod: str, command: tuple[str, ...]) -> None:
    """Run a command in a pod: podwire lab exec demo/web -- ip route.

    Standard input, environment, streams, terminal, signals and exit code are passed through; 125
    means that the lab itself failed. Without a command a shell is run.
    """

    def inside() -> int:
        record = get_pod(pod, namespace)
        enter_place(record.netns, record.name, keep_names=False)
        return _execute(command, environment_of(record.node, record.name))

    _passed_through(name, inside)


@click.command("node", context_settings=_LIKE_SHELL)
@name_option
@click.argument("node", metavar="NODE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def node_command(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node: podwire lab node vms103 -- ip route.

    `underlay` is the switch and gateway between the nodes.

    Standard input, environment, streams, terminal, signals and exit code are passed through; 125
    means that the lab itself failed. Without a command a shell is run.
    """

    def inside() -> int:
        # The switch between the nodes is no node, but people want to look at it, too.
        place = node if node == UNDERLAY else lab_state().topology.node(node).name
        enter_place(NodePaths(place).netns, place, keep_names=True)
        return _execute(command, environment_of(place, place))

    _passed_through(name, inside)


def get_pod(pod: str, namespace: str | None) -> PodRecord:
    """The pod called NAME or NS/NAME. Used inside the lab.

    Raises:
        BadInput: there is none, or it has no sandbox yet; names those there are.
    """
    given, _, name = pod.rpartition("/")
    wanted = f"{given or namespace or 'default'}/{name}"
    pods = [one.record for one in lab_state().pods]
    for record in pods:
        if record.title == wanted:
            if record.ip is None:
                raise BadInput(
                    f"pod {wanted} has no network yet: {record.reason or 'it is being made'}",
                    fix="podwire lab pods -A",
                )
            return record
    near = [record.title for record in pods if record.name == name] or [one.title for one in pods]
    raise BadInput(
        f"pod {wanted} does not exist",
        fix=f"there is {', '.join(near[:5])}" if near else "podwire lab apply -f FILE",
    )


def _passed_through(name: str, inside: Callable[[], int]) -> NoReturn:
    """Run inside the lab; failures of ours end with 125, so that they are not the command's."""

    def careful() -> int:
        try:
            return inside()
        except PodwireError as error:
            complain(error)
            return OWN_FAILURE

    try:
        code = run_inside(get_keeper(name), careful)
    except PodwireError as error:
        complain(error)
        code = OWN_FAILURE
    sys.exit(code)


def _execute(command: tuple[str, ...], environment: dict[str, str]) -> int:
    argv = list(command) or [_shell()]
    path = environment["PATH"]
    os.environ["PATH"] = path  # where the program itself is looked for
    return execute(argv, {**os.environ, **environment})


def _shell() -> str:
    shell = os.environ.get("SHELL", "")
    return shell if os.access(shell, os.X_OK) else "/bin/sh"
