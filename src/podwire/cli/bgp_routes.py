"""`podwire bgp routes`: BIRD's routes beside the kernel's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podwire.bgp.rib import RibLine, Seen, by_reason, compare, inside
from podwire.cli.agent import config_option, read_settings
from podwire.cli.node_status import read_told
from podwire.cli.tables import columns, output
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import list_routes, observe
from podwire.drivers.netlink.session import Session
from podwire.drivers.transport import parse_transport
from podwire.errors import BadInput
from podwire.model.addressing import parse_network

if TYPE_CHECKING:
    from podwire.bgp.state import Protocol
    from podwire.bgp.told import Told
    from podwire.model.addressing import IPNetwork
    from podwire.model.config import AgentConfig

HOSTS = frozenset({"ssh", "exec"})
"""Ways to a node with files of its own."""


@click.command("routes")
@config_option
@click.option(
    "--node",
    metavar="WAY",
    help="Let podwire on another node say it: ssh:HOST or exec:NAMESPACE/POD[/CONTAINER].",
)
@click.option("--prefix", metavar="CIDR", help="Only what lies in this network, or covers it.")
@click.option("-o", "--output", "format", type=click.Choice(["json", "yaml"]))
def routes_command(
    *, config: Path | None, node: str | None, prefix: str | None, format: str | None
) -> None:
    """Show BIRD's routes beside the kernel's, and why they differ.

    Of each destination that is learnt by BGP or announced: whom it is from, what the kernel does
    with it, who is told of it, and why it does not get somewhere.

    \b
      podwire bgp routes --prefix 10.244.38.128/26
    """  # noqa: D301  # click wants the character
    network = None if prefix is None else parse_network(prefix, "--prefix")
    if node is not None:
        sys.exit(_ask_there(node, prefix, format))
    settings = read_settings(config)
    told = read_told(Path(settings.bird_config))
    seen, sessions = _look(settings, told)
    lines = compare(seen, told, sessions)
    if network is not None:
        lines = inside(lines, network)
    shown = [_as_json(line) for line in lines]
    click.echo(output(shown, format) if format else render(lines), nl=False)


def _ask_there(way: str, prefix: str | None, format: str | None) -> int:
    if way.partition(":")[0] not in HOSTS:
        # A namespace of this host has other routes, and the same configuration: this node's BIRD.
        raise BadInput(
            f"--node {way!r} leads to no other host with a configuration of its own",
            fix="write ssh:HOST or exec:NAMESPACE/POD[/CONTAINER];"
            " in a lab: podwire lab node NODE -- podwire bgp routes",
        )
    words = ["podwire", "bgp", "routes"]
    words += ["--prefix", prefix] if prefix else []
    words += ["-o", format] if format else []
    done = parse_transport(way).run(words)
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    return done.code


def _look(settings: AgentConfig, told: Told) -> tuple[Seen, dict[str, Protocol]]:
    with Control.open(settings.bird_socket) as control, Session.open() as session:
        view = observe(control)
        sessions = view.sessions
        exports: dict[str, frozenset[IPNetwork]] = {}
        for peer in told.peers:
            protocol = sessions.get(peer.protocol)
            if protocol is not None and protocol.established:
                routes = list_routes(control, f"export {peer.protocol}")
                exports[peer.protocol] = frozenset(route.network for route in routes)
        seen = Seen(
            routes=list_routes(control),
            filtered=list_routes(control, "filtered"),
            exports=exports,
            fib=session.routes(),
            links=session.links(),
            recovering=view.daemon.recovering,
        )
    return seen, sessions


def _as_json(line: RibLine) -> dict[str, Any]:
    return {
        "prefix": str(line.network),
        "from": list(line.origins),
        "nextHop": line.next_hop or None,
        "kernel": list(line.kernel),
        "announcedTo": list(line.announced),
        "refused": [{"peer": one.peer, "reason": one.reason} for one in line.refused],
    }


def render(lines: tuple[RibLine, ...]) -> str:
    """A table, and below it why something did not get somewhere."""
    rows = [
        (
            line.network,
            ",".join(line.origins),
            line.next_hop,
            "; ".join(line.kernel),
            ",".join(line.announced),
        )
        for line in lines
    ]
    text = columns(["PREFIX", "FROM", "BIRD", "KERNEL", "ANNOUNCED TO"], rows)
    for line in lines:
        for reason, peers in by_reason(line):
            text += f"\n{line.network}: {reason} ({', '.join(peers)})"
    return text if text.endswith("\n") else text + "\n"
