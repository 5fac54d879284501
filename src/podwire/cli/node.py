"""`podwire node`: the cluster's nodes, and what this one needs."""

from __future__ import annotations

import click

from podwire.cli.lazygroup import LazyGroup

COMMANDS = {
    "list": ("podwire.cli.node_list", "The cluster's nodes, out of the datastore."),
    "show": ("podwire.cli.node_list", "Everything about one node, and what is amiss with it."),
    "status": ("podwire.cli.node_status", "This node's BGP sessions, and why one is down."),
    "install": ("podwire.cli.node_install", "Have this host's runtimes use Podwire."),
    "uninstall": ("podwire.cli.node_install", "Take back what install has put here."),
}
"""Name → module that holds a click command `<name>_command`, and help."""


class NodeGroup(LazyGroup):
    """The table above."""

    table = COMMANDS
    suffix = "_command"


@click.group(cls=NodeGroup)
def node() -> None:
    """The cluster's nodes, and what this one needs.

    \b
      podwire node list
      podwire node show vms103
    """  # noqa: D301  # click wants the character
