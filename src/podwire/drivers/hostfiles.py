"""Files of ours on a host: written whole or not at all, and taken back only when they are ours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from podwire.errors import Forbidden, InUse

MARK = "Written by podwire node install"


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
    """Whether `node install` wrote it: texts carry a mark, the network list names the plugin."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    return MARK in text
