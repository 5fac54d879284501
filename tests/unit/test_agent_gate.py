"""Who may pass while the node is not ready, and how long an ADD waits for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podwire.agent.gate import AWAY_TIMEOUT_S, LOOK_EVERY_S, START_TIMEOUT_S, Gate
from podwire.model.cni import Answer, Call
from tests.fakes.ipam_world import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable


class Node:
    """A node that becomes ready when its clock says so."""

    def __init__(self, ready_at: float, *, is_away: bool = False) -> None:
        self.clock = HandClock()
        self.ready_at = ready_at
        self.passed: list[Call] = []
        self.gate = Gate(self, self.reasons, lambda: is_away, self.clock)

    def reasons(self) -> tuple[str, ...]:
        return ("not yet",) if self.clock.seconds < self.ready_at else ()

    def serve(
        self,
        call: Call,
        netns: int | None,
        *,
        gone: Callable[[], bool],
        confirm: Callable[[Answer], bool],
    ) -> None:
        self.passed.append(call)

    def call(self, command: str) -> int | None:
        """The code of the refusal; None when the call went through."""
        told: list[Answer] = []
        document = json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "podwire"}).encode()
        call = Call(environment={"CNI_COMMAND": command}, stdin=document)

        def confirm(answer: Answer) -> bool:
            told.append(answer)
            return True

        self.gate.serve(call, None, gone=lambda: False, confirm=confirm)
        assert len(told) + len(self.passed) == 1
        return json.loads(told[0].stdout)["code"] if told else None


def test_an_add_waits_for_an_agent_that_starts() -> None:
    assert Node(ready_at=START_TIMEOUT_S - 0.1).call("ADD") is None
    late = Node(ready_at=1000)
    assert late.call("ADD") == 11
    assert late.clock.seconds == pytest.approx(START_TIMEOUT_S, abs=2 * LOOK_EVERY_S)


def test_an_add_waits_for_a_datastore_only_as_long_as_a_failover_takes() -> None:
    assert Node(ready_at=AWAY_TIMEOUT_S - 0.1, is_away=True).call("ADD") is None
    away = Node(ready_at=1000, is_away=True)
    assert away.call("ADD") == 11
    assert away.clock.seconds == pytest.approx(AWAY_TIMEOUT_S, abs=2 * LOOK_EVERY_S)


def test_a_status_never_waits() -> None:
    node = Node(ready_at=1000)
    assert node.call("STATUS") == 50
    assert node.clock.seconds < LOOK_EVERY_S


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "VERSION"])
def test_everything_else_passes_at_once(command: str) -> None:
    node = Node(ready_at=1000)
    assert node.call(command) is None
    assert node.clock.seconds < LOOK_EVERY_S
