"""Which boot of which machine this is, and which process (random(4), machine-id(5), proc(5))."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.model.identity import Identity

if TYPE_CHECKING:
    from podwire.boundary import Clock

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/sys/class/dmi/id/product_uuid"))
"""The system's own number, which a copy of its disk has too, and the (virtual) board's."""
PROC = Path("/proc")


def boot_id(path: Path = BOOT_ID) -> str:
    """The number of the present boot.

    Raises:
        OSError: there is no such file: no /proc.
    """
    return path.read_text(encoding="ascii").strip()


def machine_id() -> str:
    """A number that stays when the machine boots again; empty where it has none.

    The machine's own is not to be shown around (machine-id(5)), so a hash stands for it.
    """
    found = [_read(path) for path in MACHINE_IDS]
    if not any(found):
        return ""
    return hashlib.sha256("\n".join(("podwire", *found)).encode()).hexdigest()[:32]


def own_identity(clock: Clock) -> Identity:
    """Which agent the calling process is.

    Raises:
        OSError: there is no /proc.
    """
    started = _start_of(PROC / "self")
    return Identity(
        machine=machine_id(),
        boot=boot_id(),
        netns=(PROC / "self/ns/net").stat().st_ino,
        process=f"{_pid_namespace()}/{os.getpid()}/{started}",
        started=started or 0,
        since=f"{clock.now():%Y-%m-%dT%H:%M:%SZ}",
    )


def is_running(process: str) -> bool:
    """Whether the process of an identity still runs, as far as can be seen from here."""
    namespace, _, rest = process.partition("/")
    pid, _, started = rest.partition("/")
    if not pid.isdecimal() or namespace != _pid_namespace():
        return False
    return str(_start_of(PROC / pid)) == started


def _start_of(folder: Path) -> int | None:
    """When a process was started, in ticks; None when it has ended."""
    try:
        # Its name stands in parentheses, and may hold any of them and blanks.
        state, *rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in {"Z", "X"} else int(rest[18])
    except (OSError, ValueError, IndexError):
        return None


def _pid_namespace() -> str:
    return str((PROC / "self/ns/pid").stat().st_ino)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
