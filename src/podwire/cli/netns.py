"""`podwire netns`: network namespaces by hand, as `ip netns`, and what keeps each alive."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from podwire.cli.main import complain
from podwire.cli.tables import columns, output
from podwire.drivers import namespaces
from podwire.drivers.namespace_table import NetworkNamespace, look
from podwire.drivers.vethtable import enter
from podwire.errors import BadInput, PodwireError

if TYPE_CHECKING:
    from podwire.model.resource import JSON

OWN_FAILURE = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


@click.group(invoke_without_command=True)
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
@click.pass_context
def netns(ctx: click.Context, format: str | None) -> None:
    """Network namespaces: list, add, delete, exec. Alone: list.

    \b
      podwire netns list
      podwire netns exec blue ip address
    """  # noqa: D301  # click wants the character
    if ctx.invoked_subcommand is None:
        show(format)


@netns.command("list")
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
def list_(format: str | None) -> None:
    """List every network namespace in sight: its interfaces and what keeps it alive.

    \b
      podwire netns list
    """  # noqa: D301  # click wants the character
    show(format)


@netns.command("add")
@click.argument("name")
def add(name: str) -> None:
    """Make an empty namespace under /run/netns; it has only a loopback device, and that is down.

    \b
      podwire netns add blue
    """  # noqa: D301  # click wants the character
    namespaces.create_named(name)


@netns.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Take a name away; the namespace lives on while a process or descriptor holds it.

    \b
      podwire netns delete blue
    """  # noqa: D301  # click wants the character
    namespaces.delete_named(name)


@netns.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("namespace")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_(namespace: str, command: tuple[str, ...]) -> None:
    """Run a command in NAMESPACE: a name, a path with a slash, or pid:NUMBER.

    Streams, environment and exit code are the command's own; 125 when it could not be started,
    127 when it is not there.

    \b
      podwire netns exec blue ip address
    """  # noqa: D301  # click wants the character
    try:
        _become(namespace, command[1:] if command[0] == "--" else command)
    except PodwireError as error:
        complain(error)
        sys.exit(OWN_FAILURE)


def namespace_path(text: str) -> Path:
    """The path of a namespace given as name, path or pid:NUMBER.

    Raises:
        BadInput: none of these.
    """
    if text.startswith("pid:"):
        if not text[4:].isdecimal():
            raise BadInput(f"{text!r} names no process", fix="write it like pid:1234")
        return Path(f"/proc/{text[4:]}/ns/net")
    return Path(text) if "/" in text else namespaces.named_path(text)


def show(format: str | None) -> None:
    """Print the namespaces in sight, and to standard error what stayed hidden."""
    sight = look()
    interfaces = {one.inode: _interfaces(one) for one in sight.namespaces}
    if format in {"json", "yaml"}:
        shown = [_shown(one, interfaces[one.inode]) for one in sight.namespaces]
        click.echo(output(shown, format), nl=False)
    else:
        rows = [_row(one, interfaces[one.inode], wide=format == "wide") for one in sight.namespaces]
        click.echo(columns(("NAMESPACE", "INODE", "INTERFACES", "KEPT ALIVE BY"), rows), nl=False)
    for sentence in sight.unseen:
        click.echo(f"not seen: {sentence}", err=True)


def _interfaces(namespace: NetworkNamespace) -> list[str] | None:
    """Names of its links; None when it may not be entered or ended meanwhile."""
    try:
        with enter(namespace) as session:
            return [link.name for link in session.links().values()]
    except (PodwireError, OSError):
        return None


def _row(
    namespace: NetworkNamespace, interfaces: list[str] | None, *, wide: bool
) -> tuple[object, ...]:
    title = namespace.title
    if namespace.own and title != "this one":
        title += " (this one)"
    names = "may not be entered" if interfaces is None else _few(interfaces, wide=wide)
    return title, namespace.inode, names, _few(_keepers(namespace), wide=wide, most=4)


def _keepers(namespace: NetworkNamespace) -> list[str]:
    """What keeps it alive, names first; processes of one command are counted together."""
    keepers = ["the host itself"] if namespace.initial else []
    keepers += [f"name {name}" for name in namespace.names]
    keepers += [f"mount {place}" for place in namespace.mounts]
    by_command: dict[str, list[int]] = {}
    for process in namespace.processes:
        by_command.setdefault(process.command, []).append(process.pid)
    for command, pids in by_command.items():
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        keepers.append(f"{command} (pid {pids[0]}{more})")
    held = dict.fromkeys((one.command, one.pid) for one in namespace.descriptors)
    keepers += [f"open file of {command} (pid {pid})" for command, pid in held]
    return keepers


def _few(words: list[str], *, wide: bool, most: int = 8) -> str:
    if wide or len(words) <= most:
        return ", ".join(words)
    return ", ".join(words[:most]) + f" and {len(words) - most} more"


def _shown(namespace: NetworkNamespace, interfaces: list[str] | None) -> JSON:
    return {
        "name": namespace.names[0] if namespace.names else None,
        "names": list(namespace.names),
        "title": namespace.title,
        "inode": namespace.inode,
        "path": namespace.path,
        "container": namespace.container,
        "own": namespace.own,
        "initial": namespace.initial,
        "mounts": list(namespace.mounts),
        "processes": [{"pid": one.pid, "command": one.command} for one in namespace.processes],
        "descriptors": [
            {"pid": one.pid, "fd": one.number, "command": one.command}
            for one in namespace.descriptors
        ],
        "interfaces": None if interfaces is None else list(interfaces),
    }


def _become(namespace: str, command: tuple[str, ...]) -> NoReturn:
    """Enter the namespace and become the command."""
    with namespaces.opened(namespace_path(namespace)) as descriptor:
        namespaces.setns(descriptor)
    _show_devices_here()
    program = command[0] if "/" in command[0] else shutil.which(command[0])
    if program is None:
        click.echo(f"error: {command[0]}: command not found", err=True)
        sys.exit(NOT_FOUND)
    try:
        os.execv(program, command)  # noqa: S606  # that is what exec is for
    except OSError as error:
        click.echo(f"error: {command[0]}: {error.strerror}", err=True)
        sys.exit(NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE)


def _show_devices_here() -> None:
    """Give the command a /sys of this namespace, as `ip netns exec` does.

    /sys/class/net shows the namespace in which sysfs was mounted. Where mounting is denied the
    command sees the old one, which harms nobody who does not look there.
    """
    with suppress(PodwireError):
        namespaces.unshare(namespaces.CLONE_NEWNS)
        namespaces.mount("none", "/", flags=namespaces.MS_SLAVE | namespaces.MS_REC)
        namespaces.mount("sysfs", "/sys", "sysfs")
