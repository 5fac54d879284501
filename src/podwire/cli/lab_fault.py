"""`podwire lab fault list|inject|heal`: breaks a lab in known ways, and mends it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, TypeVar

import click

from podwire.cli.completing import complete_fault, complete_lab
from podwire.cli.lab_inside import do_inside
from podwire.cli.tables import columns, output
from podwire.errors import AgentUnavailable
from podwire.lab.fault import get_fault
from podwire.lab.fault_catalogue import FAULTS
from podwire.lab.state import NodePaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.lab.fault import Fault
    from podwire.lab.fault_operations import Command
    from podwire.lab.fault_runner import Injected

DEFAULT_LAB = "lab"
T = TypeVar("T")


class LabAgents:
    """The agents of the lab's nodes, by their sockets. Used inside the lab."""

    def held(self, node: str) -> bool:
        """Whether it is held until it is released."""
        said = self._ask(node, "status")
        return bool(said["held"]) and said.get("heldFor") is None

    def hold(self, node: str) -> None:
        """Stop its changes."""
        self._ask(node, "hold")

    def release(self, node: str) -> None:
        """Let it go on."""
        self._ask(node, "release")

    def _ask(self, node: str, verb: str) -> dict[str, Any]:
        from podwire.agent.control import ask

        try:
            return ask(str(NodePaths(node).socket), {"control": verb})
        except AgentUnavailable as error:
            raise AgentUnavailable(
                f"the agent of {node} does not answer: {error.message}",
                fix=f"podwire lab agent start {node}, or agent stop to keep it away",
            ) from None


def _name_option(command: Callable[..., T]) -> Callable[..., T]:
    return click.option(
        "--name",
        metavar="NAME",
        help=f"Which lab.  [default: {DEFAULT_LAB}]",
        default=None,
        shell_complete=complete_lab,
    )(command)


def _output_option(command: Callable[..., T]) -> Callable[..., T]:
    return click.option(
        "-o",
        "--output",
        "format",
        type=click.Choice(["json", "yaml"]),
        help="Print it for programs.",
    )(command)


@click.group("fault")
@_name_option
@click.pass_context
def fault_command(ctx: click.Context, name: str | None) -> None:
    """Break a running lab on purpose, to see what a trace makes of it; then heal it.

    The agents concerned are held meanwhile: they would repair much of it within seconds.

    \b
    podwire lab fault list
    podwire lab fault inject missing-block-route     breaks it, and prints how
    podwire lab trace demo/client demo/server        what is wrong, and where?
    podwire lab fault heal missing-block-route       undoes it, and lets the agents go on
    """  # noqa: D301  # click wants the character
    ctx.obj = name


@fault_command.command("list")
@_name_option
@_output_option
def list_command(name: str | None, format: str | None) -> None:  # noqa: ARG001  # for symmetry
    """What can be broken: name, number, where, and what is wrong then.

    With -o json also the fault that a trace names (id) and its verdict (disposition).

    \b
      podwire lab fault list
    """  # noqa: D301  # click wants the character
    if format is not None:
        click.echo(output([_fields(fault) for fault in FAULTS], format), nl=False)
        return
    rows = [
        (fault.name, "-" if fault.number is None else fault.number, fault.place, fault.description)
        for fault in FAULTS
    ]
    click.echo(columns(["NAME", "NO", "PLACE", "WHAT IS WRONG"], rows), nl=False)


@fault_command.command("inject")
@_name_option
@_output_option
@click.option("--node", metavar="NODE", help="The node to break.")
@click.option(
    "--pod",
    "pods",
    metavar="POD",
    multiple=True,
    help="The pod it is about; twice: source and destination.",
)
@click.argument("fault", metavar="FAULT", shell_complete=complete_fault)
@click.pass_context
def inject_command(  # one parameter an option
    ctx: click.Context,
    *,
    name: str | None,
    format: str | None,
    node: str | None,
    pods: tuple[str, ...],
    fault: str,
) -> None:
    """Break something: podwire lab fault inject strict-rpf.

    Without --node and --pod the first pod is the source, and one on another node the destination.
    The commands that break it are printed as one would type them, then a trace that shows it and
    how to heal it. The nodes' agents stay held until then.
    """
    lab = name or ctx.obj or DEFAULT_LAB
    chosen = get_fault(fault, FAULTS)
    if len(pods) > 2:
        raise click.UsageError("name at most two pods: source and destination")

    def inside() -> int:
        from podwire.lab.fault_ends import Wish
        from podwire.lab.fault_runner import inject

        record = inject(chosen, Wish(node=node, pods=pods), LabAgents())
        commands = [_typed(lab, operation.place, operation.do) for operation in record.operations]
        if format is not None:
            click.echo(output(_done(chosen, record, commands), format), nl=False)
        else:
            click.echo(_told(lab, chosen, record, commands), nl=False)
        return 0

    do_inside(lab, inside)


@fault_command.command("heal")
@_name_option
@_output_option
@click.option("--all", "every", is_flag=True, help="All that is injected, the last one first.")
@click.argument("fault", metavar="FAULT", required=False, shell_complete=complete_fault)
@click.pass_context
def heal_command(
    ctx: click.Context, *, name: str | None, format: str | None, every: bool, fault: str | None
) -> None:
    """Undo what `inject` did, exactly, and let the agents go on.

    \b
      podwire lab fault heal --all
    """  # noqa: D301  # click wants the character
    lab = name or ctx.obj or DEFAULT_LAB
    if (fault is None) != every:
        raise click.UsageError("name one fault, or say --all")
    chosen = [] if fault is None else [get_fault(fault, FAULTS)]

    def inside() -> int:
        from podwire.lab.fault_runner import heal, injected

        names = [one.name for one in chosen] or [one.name for one in reversed(injected())]
        for each in names:
            record = heal(each, LabAgents())
            if format is not None:
                commands = [
                    _typed(lab, operation.place, command)
                    for operation in reversed(record.operations)
                    for command in operation.undo
                ]
                healed = _done(get_fault(each, FAULTS), record, commands)
                click.echo(output(healed, format), nl=False)
            else:
                click.echo(f"{each} healed")
        return 0

    do_inside(lab, inside)


def _fields(fault: Fault) -> dict[str, Any]:
    return {
        "name": fault.name,
        "number": fault.number,
        "id": fault.id,
        "disposition": fault.disposition,
        "trap": fault.is_trap,
        "place": fault.place.value,
        "description": fault.description,
        "encapsulations": sorted(one.value for one in fault.encapsulations),
        "betweenNodes": fault.between_nodes,
        "needs": fault.program,
    }


def _done(fault: Fault, record: Injected, commands: Iterable[str]) -> dict[str, Any]:
    return {
        "name": fault.name,
        "number": fault.number,
        "id": fault.id,
        "disposition": fault.disposition,
        "node": record.node,
        "pod": record.pod,
        "source": record.source,
        "destination": record.destination,
        "held": list(record.nodes),
        "probe": list(record.probe),
        "commands": list(commands),
    }


def _told(lab: str, fault: Fault, record: Injected, commands: Iterable[str]) -> str:
    option = "" if lab == DEFAULT_LAB else f" --name {lab}"
    trace = shlex.join([record.source, record.destination, *record.probe])
    lines = [
        f"{fault.name}: {fault.description}",
        *(f"  $ {command}" for command in commands),
        f"place: {fault.place} ({record.pod} on {record.node}); held: {', '.join(record.nodes)}",
        f"see:   podwire lab trace{option} {trace}",
        f"heal:  podwire lab fault heal{option} {fault.name}",
    ]
    return "\n".join(lines) + "\n"


def _typed(lab: str, place: str, command: Command) -> str:
    """A command as one types it outside of the lab."""
    option = [] if lab == DEFAULT_LAB else ["--name", lab]
    verb = "exec" if "/" in place else "node"
    return shlex.join(["podwire", "lab", verb, *option, place, "--", *command])
