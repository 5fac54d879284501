"""BIRDs to measure: started on a host of ours, and spoken to over their sockets."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podwire.drivers.bird.control import Control
from podwire.drivers.bird.program import require_bird, start_words
from podwire.errors import BirdAway, BirdSilent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 60


@contextmanager
def bird(netns: str, config: Path, socket: Path, text: str) -> Iterator[int]:
    """A BIRD in a namespace; its process id once it answers."""
    config.write_text(text)
    words = start_words(require_bird(), config=config, socket=socket, recover=False)
    log = config.with_suffix(".log")
    with log.open("ab") as file:
        process = subprocess.Popen(
            ["ip", "netns", "exec", netns, *words], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait(lambda: answers(socket), f"BIRD of {netns}: {log}")
        # `ip netns exec` becomes the program it is told to run.
        yield process.pid
    finally:
        process.kill()
        process.wait()


def answers(socket: Path) -> bool:
    try:
        with Control.open(str(socket)):
            return True
    except (BirdAway, BirdSilent):
        return False


def knows(socket: Path, protocol: str) -> bool:
    """Whether BIRD has a session of that name."""
    with Control.open(str(socket)) as control:
        return not control.ask(f"show protocols {protocol}").failed


def configure(socket: Path) -> None:
    """Let it read its file."""
    with Control.open(str(socket)) as control:
        control.configure()


def wait(condition: Callable[[], bool], what: str, pause_s: float = 0.005) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(pause_s)
