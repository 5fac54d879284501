"""Gate: no pod is attached to a node that could not carry its packets yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from podwire.errors import AgentUnavailable
from podwire.model.cni import Call, CallRefused, Code, Command
from podwire.model.cnicall import asked_version, render_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Clock
    from podwire.model.cni import Answer

START_TIMEOUT_S = 3.0
"""How long an ADD waits for an agent that has just been started."""
AWAY_TIMEOUT_S = 0.5
"""How long it waits for a datastore that is away: until a member that died has its successor; or
for another agent that serves the node."""
LOOK_EVERY_S = 0.01


class Calls(Protocol):
    """Whatever answers the plugin."""

    def serve(
        self,
        call: Call,
        netns: int | None,
        *,
        gone: Callable[[], bool],
        confirm: Callable[[Answer], bool],
    ) -> None:
        """Carry out one call and deliver its answer."""
        ...


class Gate:
    """Lets ADD and STATUS pass once the node is ready; everything else always.

    A held agent counts as open: it refuses by itself, and says that it is held.
    """

    def __init__(
        self,
        calls: Calls,
        reasons: Callable[[], tuple[str, ...]],
        is_hopeless: Callable[[], bool],
        clock: Clock,
    ) -> None:
        """Store what is given: why the node is not ready, and whether that may last."""
        self._calls = calls
        self._reasons = reasons
        self._is_hopeless = is_hopeless
        self._clock = clock

    def serve(
        self,
        call: Call,
        netns: int | None,
        *,
        gone: Callable[[], bool],
        confirm: Callable[[Answer], bool],
    ) -> None:
        """Carry out one call, or refuse it with code 11 (STATUS: 50)."""
        command = call.environment.get("CNI_COMMAND")
        if command in {Command.ADD, Command.STATUS}:
            reasons = self._wait(gone) if command == Command.ADD else self._reasons()
            if reasons:
                refused = refusal(command == Command.STATUS, reasons)
                confirm(render_error(refused, asked_version(call.stdin)))
                return
        self._calls.serve(call, netns, gone=gone, confirm=confirm)

    def _wait(self, gone: Callable[[], bool]) -> tuple[str, ...]:
        began = self._clock.monotonic()
        while (reasons := self._reasons()) and not gone():
            patience_s = AWAY_TIMEOUT_S if self._is_hopeless() else START_TIMEOUT_S
            if self._clock.monotonic() - began >= patience_s:
                break
            self._clock.sleep(LOOK_EVERY_S)
        return reasons


def refusal(probe: bool, reasons: tuple[str, ...]) -> AgentUnavailable | CallRefused:
    """Say why nothing is attached now."""
    message = f"the node is not ready: {'; '.join(reasons)}"
    fix = "see `podwire agent status`"
    if probe:
        return CallRefused(Code.NOT_AVAILABLE, message, fix=fix)
    return AgentUnavailable(message, fix=fix)
