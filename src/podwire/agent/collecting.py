"""Collecting: tell a caller of the agent's socket the kernel states of this node.

The only thing the agent does for a trace. The request has no field: nothing that a caller says
reaches a command line, and nothing is changed. A process of its own reads, so that thousands of
records keep neither the agent's loop nor an ADD waiting, and one at a time, so that callers
cannot fill the agent's workers.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from podwire.drivers import namespaces
from podwire.drivers.agent_socket import BUSY
from podwire.drivers.boot import boot_id
from podwire.errors import Transient
from podwire.model.cni import FRAME_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 50.0
"""Shorter than what a caller waits, so that the caller hears why."""
COMMAND = (sys.executable, "-m", "podwire", "collect", "-o", "-")
_LARGEST = FRAME_LIMIT // 4 * 3 - (1 << 12)
"""Bytes of a bundle that fit into one answer, in base64 and with the other fields."""


class Collecting:
    """Answers `collect`; thread-safe."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._turn = threading.Lock()

    def answer(self) -> Mapping[str, Any]:
        """The answer to one request; `busy` while another one is served.

        Raises:
            Transient: it could not be read, or not in time.
        """
        if not self._turn.acquire(blocking=False):
            return {BUSY: True}
        try:
            bundle = self._run()
        finally:
            self._turn.release()
        if len(bundle) > _LARGEST:
            raise Transient(
                f"the node's state is {len(bundle) >> 20} MiB, more than one answer holds",
                fix="run `podwire collect -o FILE` on the node",
            )
        here = namespaces.current_namespace()
        try:
            inode = namespaces.inode_of(here)
        finally:
            os.close(here)
        text = base64.b64encode(bundle).decode()
        return {"boot": boot_id(), "here": inode, "bundle": text}

    def _run(self) -> bytes:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # what it starts ends with it
        )
        try:
            bundle, complaint = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Transient(f"the node's state was not read within {TIMEOUT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise Transient(f"the node's state could not be read: {last}")
        return bundle
