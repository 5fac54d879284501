"""Files of ours on a host: written whole or not at all, and taken back only when they are ours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from podwire.errors import Forbidden, InUse

MARK = "Written by podwire node install"
PLUGIN_MARK = "the podwire agent does not answer on "
"""Stands in the plugin program, compiled or not."""


class Journal:
    """What was put on a host, so that any later version takes all of it back.

    Paths are noted before they are written: after a crash there may be one too many, never one too
    few. A path with a slash behind it is a directory that was made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def paths(self) -> list[Path]:
        """Files that were put."""
        return [Path(line) for line in self._lines() if not line.endswith("/")]

    def directories(self) -> list[Path]:
        """Directories that were made for them, the deepest first."""
        made = {Path(line) for line in self._lines() if line.endswith("/")}
        return sorted(made, key=lambda path: len(path.parts), reverse=True)

    def note(self, path: Path) -> None:
        """Note a file, and the directories that are to be made for it and for the journal.

        Raises:
            Forbidden: the journal cannot be written.
        """
        before = self._lines()
        made = [f"{folder}/" for each in (path, self.path) for folder in each.parents
                if not folder.exists()]  # fmt: skip
        wanted = [line for line in dict.fromkeys((*made, str(path))) if line not in before]
        if not wanted:
            return
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace(self.path, "\n".join((f"# {MARK}", *before, *wanted)) + "\n")
        except OSError as error:
            raise Forbidden(
                f"{self.path} cannot be written: {error.strerror}", fix="run it as root"
            ) from None

    def _lines(self) -> list[str]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Forbidden(
                f"{self.path} cannot be read: {error.strerror}", fix="run it as root"
            ) from None
        return [line for line in lines if line.startswith("/")]


def put(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file by rename; False when it stands there already, word for word.

    Raises:
        InUse: another file is there that is not ours.
        Forbidden: it cannot be written.
    """
    try:
        before = path.read_text() if path.exists() else None
        if before == text:
            return False
        if before is not None and not is_ours(path):
            raise InUse(
                f"{path} is there and was not written by podwire",
                fix="move it away, or name another directory",
            )
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace(path, text, mode)
    except OSError as error:
        raise Forbidden(
            f"{path} cannot be written: {error.strerror}", fix="run it as root"
        ) from None
    return True


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file by rename: whoever reads it sees the old or the new one whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def take_back(path: Path) -> bool:
    """Delete a file of ours; False when there is none.

    Raises:
        Forbidden: it cannot be deleted.
    """
    try:
        if not is_ours(path):
            return False
        path.unlink()
    except OSError as error:
        raise Forbidden(
            f"{path} cannot be deleted: {error.strerror}", fix="run it as root"
        ) from None
    return True


def is_ours(path: Path) -> bool:
    """Whether `node install` wrote it: texts carry a mark, the plugin has its messages."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return False
    return any(mark.encode() in content for mark in (MARK, PLUGIN_MARK))
