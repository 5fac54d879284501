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
