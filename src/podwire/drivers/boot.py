"""Which boot of its machine this is: the kernel draws a new number at every start (random(4))."""

from __future__ import annotations

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = BOOT_ID) -> str:
    """The number of the present boot.

    Raises:
        OSError: there is no such file: no /proc.
    """
    return path.read_text(encoding="ascii").strip()
