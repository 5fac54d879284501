"""`podwire`: the command line's root. Sub-commands are imported only when they are run."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from podwire import __version__
from podwire.cli.lazygroup import LazyGroup
from podwire.errors import BadInput, PodwireError

COMMANDS = {
    "agent": ("podwire.cli.agent", "Run this node's agent, or hold and release its writes."),
    "apply": ("podwire.cli.editing", "Create or change resources from a file."),
    "bgp": ("podwire.cli.bgp", "BGP: BIRD's routes, who writes routes, reflectors."),
    "collect": ("podwire.cli.collect", "Save the network state of this host in a bundle."),
    "create": ("podwire.cli.editing", "Create resources from a file."),
    "datastore": ("podwire.cli.datastore", "Look into the datastore; move it elsewhere."),
    "delete": ("podwire.cli.resources", "Delete resources."),
    "get": ("podwire.cli.resources", "Show resources."),
    "ipam": ("podwire.cli.ipam", "Address pools, blocks and allocations: show, check, mend."),
    "lab": ("podwire.cli.lab", "Several nodes on this machine, to try, test and learn."),
    "label": ("podwire.cli.editing", "Label a resource."),
    "netns": ("podwire.cli.netns", "Network namespaces: list, add, delete, exec."),
    "node": ("podwire.cli.node", "This node: its BGP sessions; install and uninstall."),
    "patch": ("podwire.cli.editing", "Change fields of a resource."),
    "replace": ("podwire.cli.editing", "Replace resources from a file."),
    "trace": ("podwire.cli.trace", "The way of a packet from one pod to another."),
    "veth": ("podwire.cli.veth", "The veth pairs of this host, both ends."),
}
"""Name → module that holds a click command of the same name (dashes as underscores), and help."""

USAGE_ERROR = 64
OWN_FAILURE = 70


class Root(LazyGroup):
    """The table above."""

    table = COMMANDS


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="podwire")
def podwire() -> None:
    """A layer-3 pod network for Linux that explains itself."""


def main() -> NoReturn:
    """Run the command line; an error of ours ends with one or two lines, never a stack trace."""
    try:
        code = podwire.main(prog_name="podwire", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(USAGE_ERROR)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BadInput as error:
        complain(error)
        sys.exit(USAGE_ERROR)
    except PodwireError as error:
        complain(error)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes stdout.
        sys.stderr.close()
        sys.exit(141)


def complain(error: PodwireError) -> None:
    """Print an error and its fix to standard error."""
    click.echo(f"error: {error.message}", err=True)
    if error.fix is not None:
        click.echo(f"  fix: {error.fix}", err=True)
