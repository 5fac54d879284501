"""Passwords, read from files that only root may read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from podwire.desired.bgptext import check_password
from podwire.drivers.privatefile import read_private

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
    text = read_private(secret_path(folder, secret), f"password {secret}")
    check_password(secret, text)
    return text
