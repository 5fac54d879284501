"""How long `podwire lab up` and `lab down` take for 3 and for 20 nodes."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from bench.measure import Comparison, interleave
from bench.world import PODWIRE, run

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (3, 20)


def measure(_folder: Path, *, rounds: int) -> list[Comparison]:
    """From the command's start to its end; a lab is up when all its agents are ready."""
    up = Comparison(title="lab up", unit="s")
    down = Comparison(title="lab down", unit="s")

    def turn(nodes: int) -> None:
        name = f"bench-{nodes}"
        for verb, comparison in (("up", up), ("down", down)):
            words = [verb, "--name", name]
            if verb == "up":
                words += ["--nodes", str(nodes)]
            began = time.perf_counter()
            run(*PODWIRE, "lab", *words)
            comparison.add(f"{nodes} nodes", time.perf_counter() - began)

    interleave(max(2, rounds // 3), {str(size): partial(turn, size) for size in SIZES})
    return [up, down]
