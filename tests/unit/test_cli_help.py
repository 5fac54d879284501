"""The help of every command teaches: what it does, and an example that the command would take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from podwire.cli.main import podwire

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "docs/reference/cli.md"
COMMENT = re.compile(r" {2,}\S.*$|\s[>|<].*$")


def walk(
    command: click.Command, path: tuple[str, ...], above: click.Context | None
) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1], parent=above)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name), context)


COMMANDS = dict(walk(podwire, ("podwire",), None))


def examples(command: click.Command) -> list[str]:
    text = re.sub(r"\\\n\s*", "", f"{command.help or ''}\n{command.epilog or ''}")
    lines = [line.strip() for line in text.splitlines()]
    return [
        COMMENT.sub("", line.partition("<(")[0]).strip()
        for line in lines
        if line.startswith("podwire ")
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, name
    mine = [line for line in examples(command) if f"{line} ".startswith(f"{name} ")]
    # Of a group one of its commands shows how it is used; completion is given to a shell.
    assert mine or f"{name} " in command.help
    # A choice explains itself by its words.
    silent = [
        param.name
        for param in command.params
        if isinstance(param, click.Option)
        and not (param.help or param.hidden or isinstance(param.type, click.Choice))
    ]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_taken(name: str) -> None:
    for line in examples(COMMANDS[name]):
        words = shlex.split(line)
        own = next(
            " ".join(words[:end])
            for end in range(len(words), 0, -1)
            if " ".join(words[:end]) in COMMANDS
        )
        rest = words[len(own.split()) :]
        try:
            COMMANDS[own].make_context(own, rest)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except (click.FileError, click.BadParameter) as error:
            # An example may name a file that is not here.
            assert "No such file" in error.format_message(), line  # noqa: PT017


def test_every_command_is_in_the_reference() -> None:
    text = DOCUMENT.read_text()
    missing = [
        name
        for name, command in COMMANDS.items()
        if not isinstance(command, click.Group) and f"`{name}" not in text
    ]
    assert missing == []
