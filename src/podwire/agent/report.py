"""Report: what this node's agent says of itself, under the keys where Calico's agent says it.

It is written for people and vanishes when the agent has been silent for a while. Nobody may take
that for the end of the node: a node is gone when its Node object is deleted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.errors import PodwireError
from podwire.model import keys

if TYPE_CHECKING:
    from podwire.agent.hold import Hold
    from podwire.boundary import Clock, Store
    from podwire.reconcile.backoff import Draw

INTERVAL_S = 30.0
TTL_S = 90
RETRY_S = 10.0
SPREAD = 0.2
"""How much earlier a report may come: agents that were started at once part by and by."""
LAST_WORD_S = 1.0
"""How long the end of the agent waits until the report is taken back."""


class Reporter:
    """Writes the report in a thread of its own, where the datastore can let it vanish.

    Attributes:
        writes: reports written.
    """

    def __init__(self, store: Store, node: str, clock: Clock, hold: Hold, draw: Draw) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._hold = hold
        self._draw = draw
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._began = clock.monotonic()
        self.writes = 0

    def start(self) -> None:
        """Begin to report."""
        if self._store.can_expire:
            self._thread.start()

    def stop(self) -> None:
        """End, and take the report back if that can be done at once."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(LAST_WORD_S)

    def report(self) -> None:
        """Write it once.

        Raises:
            DatastoreUnavailable: away.
        """
        value = {
            "time": f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}",
            "uptime": round(self._clock.monotonic() - self._began, 3),
            "first_update": self.writes == 0,
        }
        last = {keys.last_status_key(self._node): value}
        self._store.keep(keys.node_status_key(self._node), value, TTL_S, last)
        self.writes += 1

    def _run(self) -> None:
        while not self._stopped.is_set():
            pause_s = INTERVAL_S
            try:
                if not self._hold.active():
                    self.report()
            except PodwireError:
                pause_s = RETRY_S  # others tell that the datastore is away
            self._stopped.wait(self._draw(pause_s * (1 - SPREAD), pause_s))
        if not self._hold.active():
            self._store.let_go(keys.node_status_key(self._node))
