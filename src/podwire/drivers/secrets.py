"""Passwords, read from files that only root may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.desired.bgptext import check_password
from podwire.errors import BadInput, NotFound

if TYPE_CHECKING:
    from podwire.model.bgp import SecretKey


def secret_path(folder: str, secret: SecretKey) -> Path:
    """The file of one value of a secret."""
    return Path(folder) / secret.name / secret.key


def read_secret(folder: str, secret: SecretKey) -> str:
    """The value; a line break at its end is not part of it.

    Raises:
        NotFound: there is no such file.
        BadInput: it cannot be read, others may read it, or BGP cannot use what it says.
    """
    path = secret_path(folder, secret)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"password {secret}: there is no file {path}",
            fix="write the password into it, owned by root, mode 0600, on every node that needs it",
        ) from None
    except OSError as error:
        raise BadInput(f"password {secret}: {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"password {secret}: {path} is not a file")
        if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise BadInput(
                f"password {secret}: {path} is open to others (mode {mode:04o},"
                f" owner {status.st_uid})",
                fix=f"chown root {path}; chmod 600 {path}",
            )
        text = file.read(4096).removesuffix("\n")
    check_password(secret, text)
    return text
