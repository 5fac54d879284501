"""`podwire lab collect`: the state of a whole lab as one file, read inside the lab."""

from __future__ import annotations

import importlib

import click

from podwire.cli.lab_inside import do_inside, name_option
from podwire.cli.main import USAGE_ERROR


@click.command("collect", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-o FILE ...")
def collect_command(name: str, arguments: tuple[str, ...]) -> None:
    """Save the state of all nodes and pods of a lab: as `podwire collect`, inside the lab.

    \b
      podwire lab collect -o node.tgz
    """  # noqa: D301  # click wants the character

    def inside() -> int:
        collect = importlib.import_module("podwire.cli.collect").collect
        assert isinstance(collect, click.Command)
        try:
            collect.main(list(arguments), prog_name="podwire lab collect", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return USAGE_ERROR if isinstance(error, click.UsageError) else error.exit_code
        return 0

    do_inside(name, inside)
