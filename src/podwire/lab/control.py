"""How commands talk to a lab's keeper: one JSON object there, one back, over a unix socket.

A message is a line. A reply is `{"ok": …}` or `{"error": message, "fix": fix}`.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from podwire.errors import NotFound, PodwireError, Rejected

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 5.0
_LONGEST = 16 << 20


def ask(path: Path, request: dict[str, Any]) -> Any:  # what the request defines
    """Send a request and return what the keeper answers. Used inside the lab.

    Raises:
        NotFound: the keeper does not listen.
        Rejected: it refuses; says why.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(TIMEOUT_S)
        try:
            door.connect(str(path))
            send(door, request)
            reply = receive(door)
        except OSError as error:
            raise NotFound(f"the lab's keeper does not answer: {error.strerror or error}") from None
    if "error" in reply:
        raise Rejected(reply["error"], fix=reply["fix"])
    return reply["ok"]


def serve(door: socket.socket, answer: Any) -> None:  # Callable[[request], reply]
    """Take one request from an accepted connection and answer it. Never raises for its sake."""
    with door:
        door.settimeout(TIMEOUT_S)
        try:
            request = receive(door)
            try:
                reply = {"ok": answer(request)}
            except PodwireError as error:
                reply = {"error": error.message, "fix": error.fix}
            send(door, reply)
        except (OSError, ValueError):
            return  # Who asked is gone, or is not one of ours.


def send(door: socket.socket, message: dict[str, Any]) -> None:
    """Write one message."""
    door.sendall(json.dumps(message).encode() + b"\n")


def receive(door: socket.socket) -> dict[str, Any]:
    """Read one message.

    Raises:
        ValueError: no JSON object, or too long.
        ConnectionError: the other side went away before its end.
    """
    parts = bytearray()
    while not parts.endswith(b"\n"):
        part = door.recv(1 << 16)
        if not part:
            raise ConnectionResetError("the other side went away")
        parts += part
        if len(parts) > _LONGEST:
            raise ValueError("message too long")
    message = json.loads(parts)
    if not isinstance(message, dict):
        raise TypeError("not an object")
    return message
