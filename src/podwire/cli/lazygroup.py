"""Groups of commands that are imported only when they are run, so that `--help` stays quick."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click
from click.shell_completion import CompletionItem

from podwire.model.nearest import nearest


class LazyGroup(click.Group):
    """A group whose sub-commands stand in a table; shown in the table's order."""

    table: ClassVar[dict[str, tuple[str, str]]]
    """Name → module that holds the click command, and help."""
    suffix: ClassVar[str] = ""
    """What the command's name in its module has behind its own (dashes as underscores)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; None when there is none of that name."""
        if cmd_name not in self.table:
            return None
        module = importlib.import_module(self.table[cmd_name][0])
        command = getattr(module, cmd_name.replace("-", "_") + self.suffix)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As any group does it, with the nearest name where there is no such command."""
        if not ctx.resilient_parsing and args[0] not in self.table and args[0].isidentifier():
            near = nearest(args[0], self.table)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands out of the table, importing none of them; and the group's options."""
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in self.table.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])
