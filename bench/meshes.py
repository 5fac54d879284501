"""Whole labs by BGP and by the agents: a pod on a new block, and how long 50 nodes take."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench.measure import Comparison, interleave
from bench.world import PODWIRE, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = (3, 20)
BIG = 50
ROUTINGS = ("bird", "agent")
TITLES = {"bird": "BIRD writes the routes", "agent": "the agents write the routes"}
EACH = 5
"""New blocks of one lab before the other has its turn."""


def measure(_folder: Path, *, rounds: int) -> list[Comparison]:
    """Milliseconds for one block, seconds for a lab of 50 nodes."""
    return [*_new_blocks(rounds), _big_lab(max(2, rounds // 3))]


def _new_blocks(rounds: int) -> Iterator[Comparison]:
    """From the start of ADD of the first pod on a new block to another node's kernel."""
    for size in SIZES:
        whole = Comparison(title=f"{size} nodes: ADD on a new block, to a peer's kernel", unit="ms")
        answer = Comparison(title=f"{size} nodes: the same ADD, until its answer", unit="ms")
        done = dict.fromkeys(ROUTINGS, 0)

        def turn(routing: str) -> None:
            for found in _probe(routing, done[routing], EACH):  # noqa: B023
                whole.add(TITLES[routing], found["route there"])  # noqa: B023
                answer.add(TITLES[routing], found["answer"])  # noqa: B023
            done[routing] += EACH  # noqa: B023

        with _lab("bird", size), _lab("agent", size):
            interleave(max(2, rounds // 2), {each: partial(turn, each) for each in ROUTINGS})
        yield from (whole, answer)


def _big_lab(rounds: int) -> Comparison:
    """Until it is ready: every node has routes to all blocks of the others."""
    comparison = Comparison(title=f"lab up with {BIG} nodes", unit="s")

    def turn(routing: str, title: str, *more: str) -> None:
        began = time.perf_counter()
        with _lab(routing, BIG, *more):
            comparison.add(title, time.perf_counter() - began)

    turns = {
        "bird": partial(turn, "bird", "BIRD, 2 route reflectors", "--reflectors", "2"),
        "agent": partial(turn, "agent", TITLES["agent"]),
    }
    interleave(rounds, turns)
    return comparison


@contextmanager
def _lab(routing: str, nodes: int, *more: str) -> Iterator[None]:
    name = ("--name", _name(routing))
    words = ("--nodes", str(nodes), "--encapsulation", "none", "--routing", routing, *more)
    run(*PODWIRE, "lab", "up", *name, *words)
    try:
        yield
    finally:
        run(*PODWIRE, "lab", "down", *name)


def _probe(routing: str, *numbers: int) -> list[dict[str, float]]:
    inside = ("lab", "node", "--name", _name(routing), "vms100", "--", PODWIRE[0])
    told = run(*PODWIRE, *inside, "-m", "bench.mesh_probe", *map(str, numbers))
    return [json.loads(line) for line in told.splitlines()]


def _name(routing: str) -> str:
    return f"bench-{routing}"
