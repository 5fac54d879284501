"""Whether Calico's own agent runs in our network namespace: two owners of one table would fight."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAMES = frozenset({"calico-node", "calico-felix"})


def find_felix() -> int | None:
    """PID of a running Felix in the calling process's network namespace; None when there is none.

    Felix runs inside the program calico-node. A process we may not look into is not ours to judge.
    """
    own = Path("/proc/self/ns/net").stat()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or folder.name == str(os.getpid()):
            continue
        with suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            program = os.path.basename(arguments[0]).decode(errors="replace")  # noqa: PTH119
            if program in NAMES and os.path.samestat((folder / "ns/net").stat(), own):
                return int(folder.name)
    return None
