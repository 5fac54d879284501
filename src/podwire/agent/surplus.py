"""Surplus: when pods have gone, give blocks back that this node no longer needs.

Other nodes may be out of addresses because of them, and every one of them is a route on every node.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from podwire.errors import PodwireError

if TYPE_CHECKING:
    from podwire.agent.world import CNIWorld

QUIET_S = 1.0
"""How long nobody must have left before we look: a Deployment's pods go one after the other."""
LATEST_S = 10.0
"""But where pods come and go all the time it never becomes quiet: then we look after this long."""
RETRY_S = 10.0
"""When to look again after the datastore was away, frozen, or the agent held."""

log = structlog.get_logger(__name__)


class Surplus:
    """A thread that sleeps until pods have gone."""

    def __init__(self, world: CNIWorld) -> None:
        self._world = world
        self._changed = threading.Condition()
        self._due: float | None = None
        self._since: float | None = None
        """When the first pod went since the last look."""
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="surplus", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """End; a giving back that has begun is carried through."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def look_soon(self) -> None:
        """Pods have gone: look when it has become quiet."""
        with self._changed:
            now = self._world.clock.monotonic()
            if self._since is None:
                self._since = now
            self._due = min(now + QUIET_S, self._since + LATEST_S)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            try:
                again_in_s = self._look()
            except PodwireError as error:
                log.warning("no block given back", reason=str(error))
                again_in_s = RETRY_S
            with self._changed:
                if again_in_s is not None and self._due is None:
                    self._due = self._world.clock.monotonic() + again_in_s

    def _wait(self) -> bool:
        """Sleep until a look is due; False when there will be none any more."""
        with self._changed:
            while not self._stopped:
                rest = None if self._due is None else self._due - self._world.clock.monotonic()
                if rest is not None and rest <= 0:
                    self._due = self._since = None
                    return True
                self._changed.wait(rest)
            return False

    def _look(self) -> float | None:
        """Give back what can be; seconds until another look is worth its while."""
        self._world.refuse_when_held()
        self._world.refuse_when_frozen()
        given = self._world.ipam.give_back()
        for block in given.blocks:
            self._world.forget_applied(block)
            log.info("block given back", block=str(block))
        return given.again_in_s
