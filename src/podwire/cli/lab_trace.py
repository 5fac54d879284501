"""`podwire lab trace`: the trace of a packet, run inside the lab."""

from __future__ import annotations

import importlib

import click

from podwire.cli.lab_inside import do_inside, name_option
from podwire.cli.main import USAGE_ERROR


@click.command("trace", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True, metavar="SRC DST ...")
def trace_command(name: str, arguments: tuple[str, ...]) -> None:
    """The way of a packet, hop by hop: as `podwire trace`, with all its options, inside the lab."""

    def inside() -> int:
        trace = importlib.import_module("podwire.cli.trace").trace
        assert isinstance(trace, click.Command)
        try:
            code = trace.main(
                list(arguments), prog_name="podwire lab trace", standalone_mode=False, obj=name
            )
        except click.ClickException as error:
            error.show()
            return USAGE_ERROR if isinstance(error, click.UsageError) else error.exit_code
        return code if isinstance(code, int) else 0

    do_inside(name, inside)
