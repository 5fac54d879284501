"""Options that several commands share, and several options as one value."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.cli.yamlfile import Document

    Command = Callable[..., Any]
    Decorator = Callable[[Command], Command]


def gathered(record: Callable[..., Any], name: str, *options: Decorator) -> Decorator:
    """Give a command several options as one value, a dataclass, in the parameter `name`."""
    fields = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]  # a class

    def give(command: Command) -> Command:
        @functools.wraps(command)
        def called(*arguments: Any, **given: Any) -> Any:
            value = record(**{field: given.pop(field) for field in fields})
            return command(*arguments, **given, **{name: value})

        result: Command = called
        for option in reversed(options):
            result = option(result)
        return result

    return give


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Which files a command reads."""

    filenames: tuple[str, ...]
    recursive: bool
    skip_empty: bool

    def read(self) -> tuple[Document, ...]:
        """Their documents; what cannot be read is a fault of a document without a value.

        Raises:
            BadInput: there is no document, and that was not allowed.
        """
        from podwire.cli.yamlfile import read_documents

        return read_documents(
            self.filenames, recursive=self.recursive, may_be_empty=self.skip_empty
        )


files_options = gathered(
    Files,
    "files",
    click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        metavar="FILE",
        # Whether it can be read is told with all other faults.
        type=click.Path(allow_dash=True, readable=False),
        help="A file, a directory, or - for standard input. Repeatable.",
    ),
    click.option("-R", "--recursive", is_flag=True, help="Directories within directories, too."),
    click.option("--skip-empty", is_flag=True, help="Files without a document are no error."),
)
