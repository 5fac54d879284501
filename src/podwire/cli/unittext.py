"""What systemd reads: words of a unit's command line, and the variables of an EnvironmentFile."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from podwire.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

_SPECIAL = str.maketrans({"\\": r"\\", '"': r"\"", "%": "%%", "$": "$$"})


def word(text: str) -> str:
    """One word of ExecStart, quoted where it has to be (systemd.service(5), Command lines)."""
    plain = text.translate(_SPECIAL)
    return plain if plain == text and not set(text) & set(" \t';") else f'"{plain}"'


def read_variables(path: Path) -> dict[str, str]:
    """The variables of an EnvironmentFile (systemd.exec(5)); none where there is no such file.

    Raises:
        BadInput: it cannot be read, or a line's quotes do not end.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", fix="mend or remove it") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        try:
            found[name.rstrip()] = " ".join(shlex.split(value))
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}", fix="close the quotes") from None
    return found
