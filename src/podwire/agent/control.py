"""Control: hold, release and status of a running agent, from outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.drivers.agent_socket import converse

if TYPE_CHECKING:
    from collections.abc import Mapping


def ask(path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send one control request to the agent that listens on `path`; return its answer.

    Raises:
        AgentUnavailable: nobody greets there, or no answer comes.
        Forbidden: the socket may not be used.
        BadInput: the agent refuses the request.
    """
    return converse(path, request)
