"""`podwire node list|show`: the nodes of the cluster, out of the datastore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podwire.cli.completing import complete_node
from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.node_view import (
    UNKNOWN,
    age,
    amiss,
    as_json,
    details_json,
    duration,
    read_cluster,
    sessions_of,
    view_nodes,
)
from podwire.cli.tables import columns, output
from podwire.drivers.clock import SystemClock
from podwire.errors import NotFound
from podwire.ipam.allocation import live
from podwire.model.nearest import suggestion
from podwire.model.node import Routing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from podwire.cli.node_view import Cluster, NodeView

HEADER = ("NAME", "ADDRESS", "READY", "ROUTING", "AS", "BLOCKS", "PODS", "IN USE", "AGE")
WIDE_HEADER = (*HEADER, "SEEN", "IPV6", "IPIP TUNNEL", "VXLAN TUNNEL", "LABELS")
SHOWN = 20
"""Pods and problems that are spelt out."""


@click.command("list")
@click.option("-o", "--output", "format", type=click.Choice(["wide", "json", "yaml"]))
@datastore_option
@click.pass_context
def list_command(ctx: click.Context, format: str | None) -> None:
    """List the cluster's nodes.

    READY is what the node's agent reports, every 30 s and when it changes; 90 s of silence are
    false. Of Calico's agents it says only that they report. Where agents cannot (SQLite) it is
    unknown: ask podwire agent status there.
    IN USE counts the addresses in the blocks that the node holds.

    \b
      podwire node list -o wide
    """  # noqa: D301  # click wants the character
    cluster = read_cluster(open_datastore(ctx).list("/calico/").entries)
    now = SystemClock().now()
    views = view_nodes(cluster)
    for why in cluster.unreadable:
        click.echo(f"warning: not counted: {why}", err=True)
    if format in {"json", "yaml"}:
        click.echo(output([as_json(view, now) for view in views], format), nl=False)
        return
    wide = format == "wide"
    rows = [_row(view, now)[: len(WIDE_HEADER if wide else HEADER)] for view in views]
    click.echo(columns(WIDE_HEADER if wide else HEADER, rows), nl=False)


@click.command("show")
@click.argument("name", metavar="NODE", shell_complete=complete_node)
@click.option("-o", "--output", "format", type=click.Choice(["json", "yaml"]))
@datastore_option
@click.pass_context
def show_command(ctx: click.Context, name: str, format: str | None) -> None:
    """Show everything about one NODE; ends with 1 when something is amiss.

    \b
      podwire node show vms103
    """  # noqa: D301  # click wants the character
    cluster = read_cluster(open_datastore(ctx).list("/calico/").entries)
    views = {view.node.name: view for view in view_nodes(cluster)}
    view = views.get(name)
    if view is None:
        fix = suggestion(name, views, "see what there is: podwire node list")
        raise NotFound(f"Node {name} does not exist", fix=fix)
    now = SystemClock().now()
    if format is not None:
        click.echo(output(details_json(view, cluster, now), format), nl=False)
    else:
        click.echo("\n".join(_lines(view, cluster, now)))
    ctx.exit(1 if amiss(view, cluster, now) else 0)


def _row(view: NodeView, now: datetime) -> tuple[object, ...]:
    node, status = view.node, view.status
    return (
        node.name,
        node.address,
        view.ready(now),
        view.routing,
        view.as_number,
        len(view.blocks),
        len(view.pods),
        f"{view.in_use}/{view.size}",
        age(node.metadata.created, now),
        UNKNOWN if status is None else f"{duration(now - status.time)} ago",
        node.address6,
        node.ipip_tunnel,
        node.vxlan_tunnel,
        ",".join(f"{key}={value}" for key, value in node.metadata.labels.items()),
    )


def _lines(view: NodeView, cluster: Cluster, now: datetime) -> Iterator[str]:
    for title, value in zip(WIDE_HEADER, _row(view, now), strict=True):
        yield f"{title + ':':<13} {'<none>' if value in {None, ''} else value}"
    yield from _blocks(view)
    yield from _pods(view)
    yield from _sessions(view, cluster)
    problems = amiss(view, cluster, now)
    yield "\nAmiss:" if problems else "\nNothing is amiss."
    yield from _some([f"  {problem}" for problem in problems])


def _blocks(view: NodeView) -> Iterator[str]:
    rows = [
        (block.cidr, f"{len(live(block))}/{block.size}", _state(view, str(block.cidr)))
        for block in view.blocks
    ]
    yield "\nBlocks:" if rows else "\nBlocks: none"
    if rows:
        yield _indented(columns(("CIDR", "IN USE", "CLAIM"), rows))


def _state(view: NodeView, cidr: str) -> str | None:
    return next((claim.state for claim in view.claims if str(claim.block) == cidr), None)


def _pods(view: NodeView) -> Iterator[str]:
    rows = [
        (pod.title, ",".join(str(each.ip) for each in pod.addresses), pod.interface)
        for pod in view.pods
    ]
    yield "\nPods:" if rows else "\nPods: none"
    if rows:
        yield from _some(_indented(columns(("POD", "ADDRESSES", "INTERFACE"), rows)).splitlines())


def _sessions(view: NodeView, cluster: Cluster) -> Iterator[str]:
    if view.routing is not Routing.BIRD:
        yield "\nBGP: none; the agents write the routes to other nodes"
        return
    rows = [
        (peer.address, peer.as_number, peer.type, peer.name)
        for peer in sessions_of(view, cluster)[0]
    ]
    yield "\nBGP sessions that are wanted:" if rows else "\nBGP: no session is wanted"
    if rows:
        yield _indented(columns(("PEER ADDRESS", "ASN", "PEER TYPE", "FOLLOWS FROM"), rows))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _some(lines: list[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  … and {len(lines) - SHOWN} more: -o yaml"
