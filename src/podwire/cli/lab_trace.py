"""`podwire lab trace`: the trace of a packet, run inside the lab."""

from __future__ import annotations

import importlib
import sys

import click

from podwire.cli.lab_inside import do_inside, name_option
from podwire.cli.main import OWN_FAILURE, USAGE_ERROR, complain
from podwire.errors import NotFound, PodwireError


class _WithTraceOptions(click.Command):
    """Its help goes on with the options of `podwire trace`, which it hands on."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        inner = click.Context(_trace(), info_name="podwire trace", parent=ctx)
        options = [each for each in inner.command.params if isinstance(each, click.Option)]
        records = [each.get_help_record(inner) for each in options]
        with formatter.section("Options of `podwire trace`"):
            formatter.write_dl([record for record in records if record is not None])


@click.command("trace", context_settings={"ignore_unknown_options": True}, cls=_WithTraceOptions)
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True, metavar="SRC DST ...")
def trace_command(name: str, arguments: tuple[str, ...]) -> None:
    """The way of a packet, hop by hop: as `podwire trace`, with all its options, inside the lab.

    \b
    podwire lab trace demo/client demo/server                a ping, and its answer
    podwire lab trace demo/client demo/server --tcp 80 -v    every step at every place
    podwire lab trace vms100 demo/server                     from a node

    Exit code: as `podwire trace`; 64 when no such lab runs.
    """  # noqa: D301  # click wants the character

    def inside() -> int:
        try:
            code = _trace().main(
                list(arguments), prog_name="podwire lab trace", standalone_mode=False, obj=name
            )
        except click.ClickException as error:
            error.show()
            return USAGE_ERROR if isinstance(error, click.UsageError) else error.exit_code
        return code if isinstance(code, int) else 0

    try:
        do_inside(name, inside)
    except PodwireError as error:  # 1 would say that the packet does not arrive
        complain(error)
        sys.exit(USAGE_ERROR if isinstance(error, NotFound) else OWN_FAILURE)


def _trace() -> click.Command:
    command = importlib.import_module("podwire.cli.trace").trace
    assert isinstance(command, click.Command)
    return command
