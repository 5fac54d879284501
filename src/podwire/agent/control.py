"""Control: hold, release and status of a running agent, from outside it.

One JSON object each way in the frames of the agent's socket (see `model.cni`).
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from podwire.errors import AgentUnavailable, BadInput
from podwire.model.cni import FRAME_HEAD, GREETING, frame, frame_length

if TYPE_CHECKING:
    from collections.abc import Mapping

GREETING_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 10.0


def ask(path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send one control request to the agent that listens on `path`; return its answer.

    Raises:
        AgentUnavailable: nobody greets there, or no answer comes.
        BadInput: the agent refuses the request.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(GREETING_TIMEOUT_S)
            door.connect(path)
            if _receive(door, len(GREETING)) != GREETING:
                raise AgentUnavailable(f"{path}: what listens there is not a Podwire agent")
            door.settimeout(ANSWER_TIMEOUT_S)
            door.sendall(frame(json.dumps(request).encode()))
            answer = json.loads(_receive(door, frame_length(_receive(door, FRAME_HEAD))))
    except OSError as error:
        raise AgentUnavailable(
            f"no agent answers on {path}: {error.strerror or error}",
            fix="start it with `podwire agent`, or name its socket with --socket",
        ) from None
    if not isinstance(answer, dict):
        raise AgentUnavailable(f"{path}: the agent's answer is not an object")
    if "error" in answer:
        raise BadInput(str(answer["error"]), fix=answer.get("fix"))
    return answer


def _receive(door: socket.socket, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = door.recv(length)
        if not part:
            raise ConnectionResetError("the agent hung up")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
