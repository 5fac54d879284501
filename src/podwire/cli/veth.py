"""`podwire veth`: both ends of every veth pair of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podwire.cli.tables import columns, output
from podwire.drivers.vethtable import VethEnd, VethPair, veth_table
from podwire.errors import BadInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.model.resource import JSON

OUT_OF_SIGHT = "out of sight"


@click.group(invoke_without_command=True)
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
@click.pass_context
def veth(ctx: click.Context, format: str | None) -> None:
    """The veth pairs of this host, both ends. Alone: list.

    \b
      podwire veth list
      podwire veth peer cali7a4b00317e6
    """  # noqa: D301  # click wants the character
    if ctx.invoked_subcommand is None:
        show_list(format)


@veth.command("list")
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
def list_(format: str | None) -> None:
    """List the pairs of all namespaces in sight.

    \b
      podwire veth list -o wide
    """  # noqa: D301  # click wants the character
    show_list(format)


@veth.command("peer")
@click.argument("interface")
@click.option("--netns", help="Namespace of INTERFACE, by title as in the list; default: this one.")
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
def peer(interface: str, netns: str | None, format: str | None) -> None:
    """Show the other end of the veth INTERFACE.

    \b
      podwire veth peer cali7a4b00317e6
    """  # noqa: D301  # click wants the character
    table = veth_table()
    _tell_unseen(table.unseen)
    for pair in table.pairs:
        for end, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if end is None or end.link.name != interface or not _is_at(end, netns):
                continue
            if other is None:
                raise NotFound(
                    f"the other end of {interface} (index {end.link.peer_index}) is in a network "
                    "namespace that this process cannot see",
                    fix="run as root of the host",
                )
            if format in {"json", "yaml"}:
                click.echo(output(_end(other), format), nl=False)
            else:
                row = (*_cells(other), pair.owner)
                click.echo(columns((*_END_HEADER, "POD OR CONTAINER"), [row]), nl=False)
            return
    where = "this namespace" if netns is None else netns
    raise BadInput(f"{interface} is no veth device of {where}", fix="podwire veth list")


def show_list(format: str | None) -> None:
    """Print all pairs, and to standard error what stayed hidden."""
    table = veth_table()
    if format in {"json", "yaml"}:
        click.echo(output([_pair(pair) for pair in table.pairs], format), nl=False)
    elif table.pairs:
        wide = format == "wide"
        header = (
            *_header(wide=wide),
            *(f"PEER {word}" for word in _header(wide=wide)),
            "POD OR CONTAINER",
        )
        rows = [_row(pair, wide=wide) for pair in table.pairs]
        click.echo(columns(header, rows), nl=False)
    else:
        click.echo("no veth pair in sight", err=True)
    _tell_unseen(table.unseen)


def _tell_unseen(unseen: Iterable[str]) -> None:
    for sentence in unseen:
        click.echo(f"not seen: {sentence}", err=True)


def _is_at(end: VethEnd, netns: str | None) -> bool:
    if netns is None:
        return end.namespace.own
    return netns in {end.namespace.title, *end.namespace.names, str(end.namespace.inode)}


_END_HEADER = ("INTERFACE", "INDEX", "NAMESPACE", "ADDRESS", "MAC", "STATE")


def _header(*, wide: bool) -> tuple[str, ...]:
    return _END_HEADER if wide else _END_HEADER[:4]


def _row(pair: VethPair, *, wide: bool) -> tuple[object, ...]:
    width = len(_header(wide=wide))
    if pair.second is None:
        number = pair.first.link.peer_netnsid
        hidden = (None, pair.first.link.peer_index, f"{OUT_OF_SIGHT} (link-netnsid {number})")
        second: tuple[object, ...] = (*hidden, *(None,) * (width - len(hidden)))
    else:
        second = _cells(pair.second)[:width]
    return (*_cells(pair.first)[:width], *second, pair.owner)


def _cells(end: VethEnd) -> tuple[object, ...]:
    link = end.link
    addresses = ",".join(str(one) for one in end.addresses if not one.ip.is_link_local)
    state = "up" if link.up and link.carrier else "no carrier" if link.up else "down"
    return link.name, link.index, end.namespace.title, addresses, link.mac, state


def _pair(pair: VethPair) -> JSON:
    second = None if pair.second is None else _end(pair.second)
    return {"ends": [_end(pair.first), second], "owner": pair.owner}


def _end(end: VethEnd) -> JSON:
    link, namespace = end.link, end.namespace
    return {
        "interface": link.name,
        "index": link.index,
        "peerIndex": link.peer_index,
        "linkNetnsid": link.peer_netnsid,
        "mac": link.mac,
        "mtu": link.mtu,
        "up": link.up,
        "carrier": link.carrier,
        "alias": link.alias,
        "addresses": [str(one) for one in end.addresses],
        "pod": end.pod,
        "namespace": {
            "title": namespace.title,
            "inode": namespace.inode,
            "path": namespace.path,
            "names": list(namespace.names),
            "mounts": list(namespace.mounts),
            "processes": [{"pid": one.pid, "command": one.command} for one in namespace.processes],
            "container": namespace.container,
            "own": namespace.own,
        },
    }
