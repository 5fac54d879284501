"""Child processes that are wanted: started, reaped, started again. For one single-threaded process.

Children are forked, not executed afresh: what this process has imported they need not import again,
which is most of what starting a Python program costs.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE_S = 5.0
"""How long a child may take to end before it is killed."""
SLOWEST_S = 60.0


@dataclass(slots=True)
class Child:
    """One wanted process and what became of it."""

    work: Callable[[], int]
    """Runs in the child; what it returns is the exit code."""
    restart: bool = True
    first_delay_s: float = 0.2
    backoff: float = 1.0
    """Each further delay is this many times longer, up to a minute."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the one who asked for it wants remembered with it."""
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    """Of the last run that ended; negative: the signal."""
    due: float | None = None
    """When to start again, or to kill (monotonic)."""
    stopping: bool = False


class Supervisor:
    """Keeps children running until told otherwise.

    `prepare` runs first in every child: it lets go of what only the parent may hold.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare
        self.children: dict[str, Child] = {}

    def start(self, name: str, child: Child) -> None:
        """Start a child under a name nobody has."""
        self.children[name] = child
        self._fork(child)

    def resume(self, name: str) -> None:
        """Start a child again that was stopped; nothing to do when it runs."""
        child = self.children[name]
        child.stopping = False
        if child.pid is None:
            self._fork(child)

    def stop(self, name: str) -> None:
        """Ask a child to end and do not start it again; killed if it takes too long."""
        child = self.children[name]
        child.stopping, child.due = True, None
        if child.pid is not None:
            child.due = time.monotonic() + GRACE_S
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End a child at once and forget it."""
        child = self.children.pop(name)
        if child.pid is not None:
            with suppress(ProcessLookupError):
                # The whole group: a shell's children hold the namespace as well.
                os.killpg(child.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Collect every process that has ended, adopted orphans included."""
        for pid, status in _ended():
            for child in self.children.values():
                if child.pid == pid:
                    self._on_end(child, os.waitstatus_to_exitcode(status))

    def _on_end(self, child: Child, code: int) -> None:
        child.pid, child.exit_code, child.due = None, code, None
        if child.restart and not child.stopping:
            delay = child.first_delay_s * child.backoff ** min(child.restarts, 20)
            child.due = time.monotonic() + min(delay, SLOWEST_S)
            child.restarts += 1

    def run_due(self) -> None:
        """Start what is due to start, kill what has not ended in time."""
        now = time.monotonic()
        for child in self.children.values():
            if child.due is None or child.due > now:
                continue
            child.due = None
            if not child.stopping:
                self._fork(child)
            elif child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def timeout(self) -> float | None:
        """Seconds until something is due; None: nothing is."""
        dues = [child.due for child in self.children.values() if child.due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _fork(self, child: Child) -> None:
        pid = os.fork()
        if pid == 0:
            self._become(child)
        child.pid, child.due = pid, None

    def _become(self, child: Child) -> NoReturn:
        code = 1
        try:
            os.setpgid(0, 0)
            self._prepare()
            code = child.work()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001  # the top of a process; its log gets the reason
            traceback.print_exc()
        finally:
            os._exit(code)


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status
