"""Nodelock: of the agents that share a datastore in a file, one serves a node's name.

A lock of the kernel's, so it ends with its holder, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from podwire.errors import DatastoreUnavailable, InUse


class NodeLock:
    """The lock of one node's name, beside the datastore."""

    def __init__(self, datastore: str, node: str) -> None:
        # The name itself may be longer than a file's may be.
        number = hashlib.sha256(node.encode()).hexdigest()[:16]
        self._path = Path(f"{datastore}.node-{number}.lock")
        self._node = node
        self._descriptor: int | None = None

    def take(self, who: str) -> None:
        """Take the lock, and say who we are; safe to repeat, with more to say.

        Raises:
            InUse: another agent has it; says which.
            DatastoreUnavailable: it cannot be written.
        """
        try:
            if self._descriptor is not None:
                self._say(self._descriptor, who)
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatastoreUnavailable(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._say(descriptor, who)
        except BlockingIOError:
            other = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise served_twice(self._node, other or "an unknown one", who) from None
        except OSError as error:
            os.close(descriptor)
            raise DatastoreUnavailable(f"{self._path}: {error.strerror}") from error
        self._descriptor = descriptor

    @staticmethod
    def _say(descriptor: int, who: str) -> None:
        os.pwrite(descriptor, f"{who}\n".encode(), 0)
        os.truncate(descriptor, len(who.encode()) + 1)

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def served_twice(node: str, other: str, own: str) -> InUse:
    """Two agents of one node would undo each other's work and delete each other's pods."""
    return InUse(
        f"another agent serves Node {node}: {other}; this one is {own}",
        fix="give one of them another name (nodeName in its configuration, or --node), or stop it",
    )
