"""Program: which BIRD is here, how old it is, whether it takes a file, how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.bgp.parse import parse_version
from podwire.bgp.reason import why_old
from podwire.errors import BadInput, Unsupported

if TYPE_CHECKING:
    from podwire.bgp.state import BirdVersion

NAME = "bird"
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian puts it; a normal user's PATH lacks them."""
TIMEOUT_S = 30.0


def find_program(name: str = NAME) -> str | None:
    """Path of a program: beside our own interpreter (a checkout's), else as a shell finds it."""
    own = Path(sys.executable).parent / name
    if os.access(own, os.X_OK):
        return str(own)
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}")


def get_bird() -> str:
    """Path of BIRD.

    Raises:
        Unsupported: there is none.
    """
    program = find_program()
    if program is None:
        raise Unsupported(
            "routing: bird needs BIRD, and there is none here",
            fix="install the package bird2, or bring one along with scripts/setup",
        )
    return program


def get_version(program: str) -> BirdVersion:
    """What `bird --version` says.

    Raises:
        Unsupported: it cannot be run, or says something else.
    """
    done = _run(program, "--version")
    version = parse_version(done.stderr + done.stdout)
    if done.returncode != 0 or version is None:
        raise Unsupported(f"{program} does not tell its version: {_words(done)}")
    return version


def require_bird() -> str:
    """Path of a BIRD that is new enough.

    Raises:
        Unsupported: there is none, or it is too old.
    """
    program = get_bird()
    reason = why_old(get_version(program))
    if reason is not None:
        raise Unsupported(f"{program}: {reason.sentence}", fix=reason.fix)
    return program


def check_config(program: str, config: Path) -> None:
    """Let BIRD parse a file, without using it (`bird -p`).

    Raises:
        BadInput: it does not parse; names line and column as BIRD does.
        Unsupported: BIRD cannot be run.
    """
    done = _run(program, "-p", "-c", str(config))
    if done.returncode != 0:
        message = _words(done).removeprefix("bird: ").removeprefix(f"{config}:")
        raise BadInput(f"BIRD does not take {config}: {message}")


def start_words(program: str, *, config: Path, socket: Path, recover: bool = True) -> list[str]:
    """The command that runs BIRD in the foreground.

    `recover`: peers that kept our routes over a crash give them back before the kernel's stale
    ones are removed (graceful restart); with none to recover from it is an ordinary start.
    """
    words = [program, "-f", "-c", str(config), "-s", str(socket), "-P", f"{socket}.pid"]
    return [*words, "-R"] if recover else words


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"{program} cannot be run: {error}") from None


def _words(done: subprocess.CompletedProcess[str]) -> str:
    text = (done.stderr + done.stdout).strip()
    return text.splitlines()[-1] if text else f"it ends with {done.returncode}"
