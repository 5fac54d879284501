"""The plugin's two programs, ready to run, and a stand-in for the agent's socket."""

from __future__ import annotations

import array
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.cni.install import SCRIPT, SOURCE, compile_program
from podwire.model.cni import (
    FRAME_HEAD,
    GREETING,
    Answer,
    Call,
    decode_call,
    encode_answer,
    frame,
    frame_length,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

PYTHON = (sys.executable, "-I", "-S", "-E", str(SCRIPT))
TIMEOUT_S = 30.0
CACHE = Path(__file__).resolve().parents[2] / ".cache"
"""Of the checkout; a normal user who may not write there uses the temporary folder."""


def c_program() -> tuple[str, ...] | None:
    """The compiled program; None where there is no C compiler. Compiled once for each source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = CACHE if os.access(CACHE, os.W_OK) else Path(tempfile.gettempdir())
    program = folder / f"podwire-cni-{digest}"
    if not program.exists():
        # Not named by process: tests in PID namespaces of their own have the same numbers.
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = Path(place) / program.name
            if not compile_program(made):
                return None
            made.rename(program)
    return (str(program),)


def programs() -> dict[str, tuple[str, ...]]:
    """Command lines by language."""
    compiled = c_program()
    return {"python": PYTHON} | ({} if compiled is None else {"c": compiled})


def run(
    program: tuple[str, ...], environment: Mapping[str, str], stdin: bytes
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        program,
        check=False,
        env=dict(environment),
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
    )


class StandInAgent:
    """Listens, greets, keeps what it was sent and gives one prepared answer."""

    def __init__(self, path: Path, answer: Answer | None, greeting: bytes = GREETING) -> None:
        self.answer = answer
        self.greeting = greeting
        self.call: Call | None = None
        self.inode: int | None = None
        self.confirmed = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        caller, _ = self._listener.accept()
        with caller:
            caller.sendall(self.greeting)
            if self.greeting != GREETING:
                caller.recv(1)
                return
            descriptors = array.array("i")
            head, control, _, _ = caller.recvmsg(FRAME_HEAD, 1024)
            for _, _, data in control:
                descriptors.frombytes(data)
            body = b""
            while len(body) < frame_length(head):
                body += caller.recv(1 << 20)
            self.call = decode_call(body)
            for descriptor in descriptors:
                self.inode = os.fstat(descriptor).st_ino
                os.close(descriptor)
            if self.answer is not None:
                caller.sendall(frame(encode_answer(self.answer)))
                self.confirmed = caller.recv(1)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(TIMEOUT_S)
