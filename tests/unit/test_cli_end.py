"""How the command line's process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOCKED = """
import sys, threading, types

sys.modules["grpc"] = types.ModuleType("grpc")
lock = threading.Lock()

class Stream:
    def __del__(self):
        lock.acquire()

stream = Stream()
lock.acquire()

from podwire.cli.main import main

sys.argv = ["podwire", *sys.argv[1:]]
main()
"""
"""gRPC's stream, at whose end a thread of gRPC's that is no more has its lock."""


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("no-such-command", 64)])
def test_no_lock_of_grpc_keeps_the_process(word: str, code: int) -> None:
    command = [sys.executable, "-c", LOCKED, word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code
    assert "podwire" in done.stdout + done.stderr


EARLY = """
import sys
module = sys.argv[1]
class Interrupted:
    def find_spec(self, name, *_):
        if name == module:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from podwire.__main__ import main
sys.argv = ["podwire", "get", "node"]
main()
"""
"""An interrupt while a module is imported."""


@pytest.mark.parametrize("module", ["click", "podwire.cli.main", "podwire.cli.resources"])
def test_an_early_interrupt_ends_without_a_word(module: str) -> None:
    command = [sys.executable, "-c", EARLY, module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
