"""The command line inside the test's process, with a datastore of its own: words in, text out."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podwire.cli.main import run
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.model import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Store


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The words of a table, line by line."""
        return [line.split() for line in self.out.splitlines()]


class CommandLine:
    """`podwire …` as a process would run it, from the exit code's point of view."""

    def __init__(self, path: Path, *, url: str = "", store: Store | None = None) -> None:
        """The datastore is a file, or the one at a URL, whose store is given then."""
        self.path = path
        self.place = url or str(path)
        self.store = SQLiteStore(path) if store is None else store

    def __call__(self, *words: str, text: str | bytes = b"") -> Said:
        given = text.encode() if isinstance(text, str) else text
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")  # as Python's own
        before = os.environ.get("PODWIRE_DATASTORE"), sys.stdin
        os.environ["PODWIRE_DATASTORE"] = self.place
        sys.stdin = io.TextIOWrapper(_Given(given), "utf-8")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(words)
        finally:
            sys.stdin = before[1]
            os.environ.pop("PODWIRE_DATASTORE")
            if before[0] is not None:
                os.environ["PODWIRE_DATASTORE"] = before[0]
        return Said(code, *map(_text, (out, err)))

    def done(self, *words: str, text: str | bytes = b"") -> Said:
        """The same of a command that must succeed."""
        said = self(*words, text=text)
        assert said.code == 0, said
        return said

    def put(self, value: Any) -> None:
        """Store an object."""
        self.store.create(codec.key_of(value), codec.encode(value))

    def read(self, key: str) -> Any:
        """The stored object, or None."""
        entry = self.store.get(key)
        return None if entry is None else codec.decode(key, entry.value)


class _Given(io.BytesIO):
    """Standard input; messages name it."""

    name = "<stdin>"


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


@contextlib.contextmanager
def command_line(path: Path) -> Iterator[CommandLine]:
    """One with a datastore in the file."""
    line = CommandLine(path)
    yield line
    line.store.close()
