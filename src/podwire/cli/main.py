"""`podwire`: the command line's root. Sub-commands are imported only when they are run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from podwire import __version__
from podwire.cli.lazygroup import LazyGroup
from podwire.errors import BadInput, PodwireError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "agent": ("podwire.cli.agent", "Run this node's agent, or hold and release its writes."),
    "apply": ("podwire.cli.editing", "Create or change resources from a file."),
    "bgp": ("podwire.cli.bgp", "BGP: BIRD's routes, who writes routes, reflectors."),
    "collect": ("podwire.cli.collect", "Save the network state of this host in a bundle."),
    "completion": ("podwire.cli.completion", "What your shell needs to complete commands."),
    "create": ("podwire.cli.editing", "Create resources from a file."),
    "datastore": ("podwire.cli.datastore", "Look into the datastore; move it elsewhere."),
    "delete": ("podwire.cli.deleting", "Delete resources."),
    "get": ("podwire.cli.resources", "Show resources."),
    "ipam": ("podwire.cli.ipam", "Address pools, blocks and allocations: show, check, mend."),
    "lab": ("podwire.cli.lab", "Several nodes on this machine, to try, test and learn."),
    "label": ("podwire.cli.patching", "Label a resource."),
    "netns": ("podwire.cli.netns", "Network namespaces: list, add, delete, exec."),
    "node": (
        "podwire.cli.node",
        "The cluster's nodes; this one's sessions; install and uninstall.",
    ),
    "patch": ("podwire.cli.patching", "Change fields of a resource."),
    "replace": ("podwire.cli.editing", "Replace resources from a file."),
    "trace": ("podwire.cli.trace", "The way of a packet from one pod to another."),
    "validate": ("podwire.cli.editing", "Check resource files without a datastore."),
    "version": ("podwire.cli.version", "This program's version, and the cluster's."),
    "veth": ("podwire.cli.veth", "The veth pairs of this host, both ends."),
}
"""Name → module that holds a click command of the same name (dashes as underscores), and help."""

USAGE_ERROR = 64
OWN_FAILURE = 70
INTERRUPTED = 130
COMPLETION_VARIABLE = "_PODWIRE_COMPLETE"
"""Set by the scripts that `podwire completion` prints; click knows it by this name."""
DEBUG_VARIABLE = "PODWIRE_DEBUG"
"""Shows the stack trace of a fault of our own."""
USUAL_VARIABLES = frozenset({"PODWIRE_DATASTORE", "PODWIRE_CONFIG", DEBUG_VARIABLE})


class Root(LazyGroup):
    """The table above."""

    table = COMMANDS


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="podwire")
def podwire() -> None:
    """A layer-3 pod network for Linux that explains itself.

    \b
      podwire lab demo              see it work, in half a minute
      podwire get node -o wide      look into the datastore
      podwire trace demo/a demo/b   the way of a packet, and where it ends
    """  # noqa: D301  # click wants the character
    if any(name.startswith("PODWIRE_") and name not in USUAL_VARIABLES for name in os.environ):
        from podwire.drivers.config import refuse_unknown_variables

        refuse_unknown_variables(os.environ)


def main() -> NoReturn:
    """Run the command line with the process's arguments."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        code = code or 1
    if code and sys.stdout is not None:
        # What could not be printed stays unprinted: Python would complain of it once more.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    end(code)


def end(code: int) -> NoReturn:
    """End the process; one that spoke gRPC ends without Python's own farewell.

    In that farewell daemon threads stop wherever they are. gRPC's may hold the lock of a stream
    then, for which the stream's destructor waits, for ever.
    """
    if "grpc" in sys.modules:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command and return its exit code.

    What goes wrong ends with one or two lines on standard error, never with a stack trace.
    """
    if os.environ.get(COMPLETION_VARIABLE):
        return complete()
    try:
        code = podwire.main(list(arguments), prog_name="podwire", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        return USAGE_ERROR
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BadInput as error:
        complain(error)
        return USAGE_ERROR
    except UnicodeDecodeError as error:
        complain(
            BadInput(f"what was read is not UTF-8 text: {error.reason}", fix="save it as UTF-8")
        )
        return USAGE_ERROR
    except PodwireError as error:
        complain(error)
        return 1
    except OSError as error:
        what = error.filename or "standard input or output"
        complain(PodwireError(f"{what} failed: {error.strerror or error}"))
        return 1
    except Exception as error:  # the last door: nobody shall have to read a stack trace
        if os.environ.get(DEBUG_VARIABLE):
            raise
        complain(
            PodwireError(
                f"this is a fault of podwire's own: {type(error).__name__}: {error}",
                fix=f"report it with what the same command prints with {DEBUG_VARIABLE}=1",
            )
        )
        return OWN_FAILURE
    return code if isinstance(code, int) else 0


def complete() -> int:
    """Answer the shell what the words so far may become; nothing, where something goes wrong."""
    with contextlib.suppress(Exception, SystemExit):
        podwire.main([], prog_name="podwire", standalone_mode=False)
    return 0


def complain(error: PodwireError) -> None:
    """Print an error and its fix to standard error."""
    with contextlib.suppress(OSError):  # standard error may be closed, too
        click.echo(f"error: {error.message}", err=True)
        if error.fix is not None:
            click.echo(f"  fix: {error.fix}", err=True)
