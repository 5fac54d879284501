"""`podwire bgp`: who writes the routes to other nodes' blocks, and which they are."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "reflectors": ("podwire.cli.bgp_reflectors", "Route reflectors instead of a mesh."),
    "switch": ("podwire.cli.bgp_switch", "Let the agents or BIRD write the routes, without a gap."),
    "routes": ("podwire.cli.bgp_routes", "BIRD's routes beside the kernel's, and why they differ."),
}
"""Name → module that holds a click command `<name>_command`, and help."""


class BgpGroup(click.Group):
    """Imports a sub-command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=BgpGroup)
def bgp() -> None:
    """Routes by BGP: BIRD's routes, and who writes those to other nodes' blocks."""
