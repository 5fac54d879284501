"""Files with a password, which only root, or who runs this program, may read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from podwire.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 4096


def read_private(path: Path, title: str, *, follow: bool = False) -> str:
    """What the file says, without a line break at its end; errors begin with `title`.

    A symbolic link is refused, unless `follow` is given: then its target is looked at.

    Raises:
        NotFound: there is no such file.
        BadInput: it cannot be read, is no text, or others may read it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{title}: there is no file {path}",
            fix="write the password into it, owned by root, mode 0600, on every node that needs it",
        ) from None
    except OSError as error:
        raise BadInput(f"{title}: {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{title}: {path} is not a file")
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise BadInput(
                f"{title}: {path} is open to others (mode {mode:04o}, owner {status.st_uid})",
                fix=f"chown root {path}; chmod 600 {path}",
            )
        content = file.read(LONGEST)
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise BadInput(f"{title}: {path} is not UTF-8 text", fix="save it as UTF-8") from None
