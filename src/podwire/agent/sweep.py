"""Sweep: at start and every minute, look for what leaked on this node and what others left."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import structlog

from podwire.agent.leaks import Leaks
from podwire.agent.leftovers import Leftovers
from podwire.agent.unlisted import Unlisted
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.attachments import Attachments
    from podwire.agent.mirror import Mirror
    from podwire.boundary import Dice
    from podwire.ipam.leaks import Suspicion
    from podwire.model.config import AgentConfig

FIRST_S = 0.5
"""After a start: until then what lived before it is being adopted."""
GAP_LOOKS = 3
"""Looks that may be left out before what was suspected must hold for a whole grace period again."""
SHOWN = 100
"""Suspicions that status spells out; of more only the number is told."""

log = structlog.get_logger(__name__)


class Sweep:
    """A thread that looks now and then.

    Attributes:
        looks: how often it has looked.
        problem: why the last look came to nothing; None when it did not.
    """

    def __init__(
        self,
        attachments: Attachments,
        mirror: Mirror,
        config: AgentConfig,
        dice: Dice,
        registered: Callable[[], bool],
    ) -> None:
        self._attachments = attachments
        self._world = attachments.world
        self._mirror = mirror
        self._config = config
        self._dice = dice
        self.leaks = Leaks(
            attachments, config.leak_grace_period_s, gap_s=GAP_LOOKS * config.leak_scan_period_s
        )
        self.leftovers = Leftovers(attachments.world, mirror, config, dice, registered)
        self.unlisted = Unlisted(attachments)
        self.looks = 0
        self.problem: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin to look, unless the grace period is 0."""
        if self._config.leak_grace_period_s:
            self._thread.start()

    def stop(self) -> None:
        """End; a giving back that has begun is carried through."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def told(self) -> dict[str, Any]:
        """What `podwire agent status -o json` has of it."""
        suspicions = list(self.leaks.suspicions.values())
        now = self._world.clock.monotonic()
        return {
            "scanPeriod": self._config.leak_scan_period_s,
            "gracePeriod": self._config.leak_grace_period_s,
            "looks": self.looks,
            "problem": self.problem,
            "candidates": len(suspicions),
            "suspected": [self._told(each, now) for each in suspicions[:SHOWN]],
            "released": self.leaks.released,
            "handlesCollected": self.leftovers.handles_collected,
            "nodesCleared": self.leftovers.nodes_cleared,
            "lostNodes": {
                node: {"for": round(now - since, 1), "pods": self.leftovers.objected.get(node)}
                for node, since in self.leftovers.lost.items()
            },
        }

    @staticmethod
    def _told(suspicion: Suspicion, now: float) -> dict[str, Any]:
        tenant = suspicion.tenant
        return {
            "pod": tenant.title,
            "handle": tenant.handle,
            "addresses": [str(address) for address in tenant.addresses],
            "allocated": tenant.allocated,
            "suspectedFor": round(now - suspicion.since, 1),
            "proof": list(suspicion.proof),
        }

    def _run(self) -> None:
        wait_s = FIRST_S
        while not self._stopped.wait(wait_s):
            # Not all agents in step: they share a datastore.
            wait_s = self._config.leak_scan_period_s * self._dice.uniform(0.9, 1.1)
            if not self._attachments.loaded:
                wait_s = FIRST_S
                continue
            problem = self._look()
            if problem is not None and problem != self.problem:
                log.warning("not looked for leaks", reason=problem)
            self.problem = problem
            self.looks += 1

    def _look(self) -> str | None:
        """Look at everything once; why not, if something was in the way."""
        try:
            self._world.refuse_when_held()
            self._world.refuse_when_frozen()
            try:
                self.leaks.look(self._mirror.lent_to(self._world.node))
            finally:  # one has nothing to do with the others
                try:
                    self.leftovers.look()
                finally:
                    self.unlisted.look()
        except (PodwireError, OSError) as error:
            return str(error)
        except Exception:
            log.exception("sweep failed")
            return "an unexpected error: see the agent's log"
        return None
