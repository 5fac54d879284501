"""Two hosts on one wire, real BIRDs on both, with a pair of addresses for every ailment.

here (the test's own namespace)  10.0.0.111, .112, … ──── 10.0.0.11, .12, …  there
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.bird.control import Control
from podwire.drivers.bird.program import find_program, start_words
from podwire.errors import BirdAway, BirdSilent
from tests.kernel.agent_cluster import run, until

if TYPE_CHECKING:
    import signal
    from pathlib import Path

HERE = "10.0.0.1"
WEDGED = 40
"""Last byte of the address of a third host, whose BIRD will hang."""


def require_bird() -> str:
    program = find_program()
    if program is None:
        pytest.skip("no BIRD here: scripts/setup brings one along")
    return program


@dataclass
class Bird:
    """One BIRD process; `netns` empty: in the test's own namespace."""

    folder: Path
    name: str
    netns: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / f"{self.name}.conf"

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.ctl"

    def start(self, text: str) -> Bird:
        self.config.write_text(text)
        words = start_words(require_bird(), config=self.config, socket=self.socket)
        inside = ["ip", "netns", "exec", self.netns] if self.netns else []
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.processes.append(subprocess.Popen([*inside, *words], stdout=log, stderr=log))
        until(f"BIRD {self.name}", self.answers, self.log)
        return self

    def answers(self) -> bool:
        with suppress(BirdAway, BirdSilent), Control.open(str(self.socket)):
            return True
        return False

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(int(self.socket.with_name(f"{self.socket.name}.pid").read_text()), number)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def source(last: int) -> str:
    """BIRD has one session for each address it calls: to the peer .11 we are .111."""
    return f"10.0.0.{last + 100}"


def wire(*numbers: int) -> None:
    """A switch and three hosts; the numbers are those of there."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge")
    for netns, those in (("there", numbers), ("wedged", (WEDGED,))):
        run("ip", "netns", "add", netns)
        run("ip", "link", "add", netns, "type", "veth", "peer", "name", "ens32", "netns", netns)
        run("ip", "link", "set", netns, "master", "switch", "up")
        run("ip", "-n", netns, "link", "set", "lo", "up")
        run("ip", "-n", netns, "link", "set", "ens32", "up")
        for last in those:
            run("ip", "-n", netns, "addr", "add", f"10.0.0.{last}/24", "dev", "ens32")
            run("ip", "addr", "add", f"{source(last)}/24", "dev", "switch")
    run("ip", "link", "set", "switch", "up")
    run("ip", "addr", "add", f"{HERE}/24", "dev", "switch")
