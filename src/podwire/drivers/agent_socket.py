"""The agent's socket from outside: one question, one answer, within a time.

Frames as in model/cni.py. `AgentSocket` is the way to a node whose agent answers here. The agent
runs no programs for others: it is asked for its node's kernel states and for nothing else
(docs/adr/0011-collect-by-the-agent.md).
"""

from __future__ import annotations

import base64
import binascii
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podwire.errors import AgentUnavailable, BadInput, Forbidden, Transient
from podwire.model.cni import FRAME_HEAD, GREETING, frame, frame_length

if TYPE_CHECKING:
    from collections.abc import Mapping

GREETING_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 10.0
COLLECT = "collect"
BUSY = "busy"
"""Key of an answer that says: somebody else is being served, ask again."""
_PAUSE_S = 0.2
"""Before asking a busy agent again."""


def converse(
    path: str, request: Mapping[str, Any], timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any]:
    """Send one control request to the agent that listens on `path`; return its answer.

    Raises:
        AgentUnavailable: nobody greets there, or no answer comes in time.
        Forbidden: the socket may not be used.
        BadInput: the agent refuses the request.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(min(GREETING_TIMEOUT_S, timeout_s))
            door.connect(path)
            greeted = min(deadline, time.monotonic() + GREETING_TIMEOUT_S)
            if _receive(door, len(GREETING), greeted) != GREETING:
                raise AgentUnavailable(f"{path}: what listens there is not a Podwire agent")
            door.sendall(frame(json.dumps(request).encode()))
            length = frame_length(_receive(door, FRAME_HEAD, deadline))
            answer = json.loads(_receive(door, length, deadline))
    except PermissionError:
        raise Forbidden(f"{path} may not be used", fix="run it as root") from None
    except OSError as error:
        raise AgentUnavailable(
            f"no agent answers on {path}: {error.strerror or error}",
            fix="start it with `podwire agent`, or name the socket it listens on",
        ) from None
    except ValueError:
        raise AgentUnavailable(f"{path}: the agent's answer is no JSON") from None
    if not isinstance(answer, dict):
        raise AgentUnavailable(f"{path}: the agent's answer is not an object")
    if "error" in answer:
        raise BadInput(str(answer["error"]), fix=answer.get("fix"))
    return answer


def _receive(door: socket.socket, length: int, deadline: float) -> bytes:
    """Exactly so many bytes; one deadline for all of them, so that no trickle outlasts it."""
    parts: list[bytes] = []
    while length > 0:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        door.settimeout(left)
        part = door.recv(min(length, 1 << 20))
        if not part:
            raise ConnectionResetError("the agent hung up")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What an agent tells of its node."""

    boot: str
    """The kernel's boot id."""
    here: int
    """Inode of the node's own network namespace."""
    bundle: bytes
    """A bundle (drivers.bundle) of every namespace the agent can see."""


@dataclass(frozen=True, slots=True)
class AgentSocket:
    """A node whose agent's socket is in this host's file system."""

    path: str

    @property
    def title(self) -> str:
        """`agent:PATH`."""
        return f"agent:{self.path}"

    def collect(self, timeout_s: float) -> Collected:
        """Ask for the node's states; a busy agent is asked again until the time is over.

        Raises:
            AgentUnavailable: no agent greets, or it does not answer in time.
            Transient: others kept it busy all the time.
            Forbidden: the socket may not be used.
            BadInput: the agent refuses, or is too old to know the request.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            answer = converse(self.path, {"control": COLLECT}, max(left, _PAUSE_S))
            if not answer.get(BUSY):
                return self._collected(answer)
            if left <= _PAUSE_S:
                raise Transient(f"the agent on {self.path} serves others", fix="try again")
            time.sleep(_PAUSE_S)

    def _collected(self, answer: Mapping[str, Any]) -> Collected:
        try:
            return Collected(
                boot=str(answer["boot"]),
                here=int(answer["here"]),
                bundle=base64.b64decode(answer["bundle"], validate=True),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise AgentUnavailable(f"{self.path}: the agent's answer holds no states") from None
