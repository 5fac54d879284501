"""Report: what this node's agent says of itself, under the keys where Calico's agent says it.

It vanishes when the agent has been silent for a while. Nobody may take that for the end of the
node: a node is gone when its Node object is deleted. One thing is decided by it: of several agents
that were started with one node's name, the one whose report is there serves the node.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.boundary import ABSENT
from podwire.drivers.boot import is_running, own_identity
from podwire.drivers.netlink.session import Session
from podwire.drivers.nodelock import served_twice
from podwire.errors import Conflict, InUse, PodwireError
from podwire.model import keys
from podwire.model.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.hold import Hold
    from podwire.boundary import Clock, Entry, Revision, Store
    from podwire.reconcile.backoff import Draw

INTERVAL_S = 30.0
TTL_S = 90
RETRY_S = 10.0
OTHER_S = 2.0
"""How often to look whether another agent that serves the node has gone."""
SETTLE_S = 1.0
"""How long news wait for more of them, so that a start is told in one report."""
CHANGES, PER_S = 4, 60.0
"""How many reports besides the regular ones may be news in that time."""
SPREAD = 0.2
"""How much earlier a report may come: agents that were started at once part by and by."""
SHOWN = 20
"""Reasons that are told; a report is read by people."""
LAST_WORD_S = 1.0
"""How long the end of the agent waits until the report is taken back."""


class Reporter:
    """Writes the report in a thread of its own, where the datastore can let it vanish.

    Attributes:
        writes: reports written.
        own: which agent this is.
        address: the node's address, once it is known.
        reasons: why the node is not ready; none when it is.
        on_verdict: told whether this agent may serve the node: why not, or None.
    """

    def __init__(self, store: Store, node: str, clock: Clock, hold: Hold, draw: Draw) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._hold = hold
        self._draw = draw
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._began = clock.monotonic()
        self._seen: tuple[Revision, float] | None = None
        """Another agent's report, and since when it has been just that one."""
        self.own = own_identity(clock)
        self.address: Callable[[], str | None] = lambda: None
        self.reasons: Callable[[], tuple[str, ...]] = tuple
        self.on_verdict: Callable[[InUse | None], None] = lambda _: None
        self.writes = 0

    def start(self) -> None:
        """Begin to report."""
        if self._store.can_expire:
            self._thread.start()

    def stop(self) -> None:
        """End, and take the report back if that can be done at once."""
        self._stopped.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(LAST_WORD_S)

    def look_soon(self) -> None:
        """There is something new to report."""
        self._wanted.set()

    def report(self) -> None:
        """Write it once.

        Raises:
            InUse: another agent serves the node.
            Conflict: the report was written by somebody else a moment ago.
            DatastoreUnavailable: away.
        """
        entry = self._store.get(keys.node_status_key(self._node))
        self._refuse_other(entry)
        reasons = self.reasons()
        own = replace(self.own, address=self.address()).as_json()
        value = {
            "time": f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}",
            "uptime": round(self._clock.monotonic() - self._began, 3),
            "first_update": self.writes == 0,
            "podwire": {**own, "ready": not reasons, "reasons": [*reasons[:SHOWN]]},
        }
        last = {keys.last_status_key(self._node): value}
        seen = ABSENT if entry is None else entry.revision
        self._store.keep(keys.node_status_key(self._node), value, TTL_S, last, seen)
        self.writes += 1

    def refuse_other(self) -> None:
        """Raise while another agent serves the node; the thread hears of it, too.

        Raises:
            InUse: it does; says which.
            DatastoreUnavailable: away.
        """
        if self._store.can_expire:
            try:
                self._refuse_other(self._store.get(keys.node_status_key(self._node)))
            except InUse:
                self._wanted.set()
                raise

    def _refuse_other(self, entry: Entry | None) -> None:
        told = None if entry is None else entry.value.get("podwire")
        other = Identity.parse(told) if isinstance(told, dict) else None
        if entry is None or other is None or other.is_same(self.own):
            return  # nobody's, Felix's, or what we wrote

        def has_address() -> bool:
            with Session.open() as host:
                return any(str(each.interface.ip) == other.address for each in host.addresses())

        earlier = other.is_earlier(self.own, is_running=is_running, has_address=has_address)
        if not earlier and not self._is_silent(entry):
            own = replace(self.own, address=self.address())
            raise served_twice(self._node, str(other), str(own))

    def _is_silent(self, entry: Entry) -> bool:
        """Whether nobody has renewed a report for so long that it should have vanished.

        One that was copied from another etcd, without its lease, would stay for ever.
        """
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != entry.revision:
            self._seen = (entry.revision, now)
        return now - self._seen[1] > TTL_S

    def _run(self) -> None:
        news: deque[float] = deque(maxlen=CHANGES)
        # The first report came before the thread, unless the agent was held.
        due = self._next(INTERVAL_S if self.writes else 0.0)
        regular = due
        while True:
            self._wanted.wait(max(0.0, due - self._clock.monotonic()))
            woken = self._wanted.is_set()
            self._wanted.clear()
            if self._stopped.is_set():
                break
            now = self._clock.monotonic()
            if woken and now < due:
                due = due_with_news(due, now, news)
            if now < due:
                continue
            if due < regular:
                news.append(now)
            due = regular = self._next(self._turn())
        if not self._hold.active():
            self._store.let_go(keys.node_status_key(self._node))

    def _next(self, pause_s: float) -> float:
        return self._clock.monotonic() + self._draw(pause_s * (1 - SPREAD), pause_s)

    def _turn(self) -> float:
        """Report, if that may be; seconds until the next one."""
        if self._hold.is_asked():
            return OTHER_S  # that may end by itself
        try:
            self.report()
        except InUse as error:
            self.on_verdict(error)
            return OTHER_S
        except Conflict:
            return 0.0  # the next look says who wrote
        except PodwireError:
            return RETRY_S  # others tell that the datastore is away
        self.on_verdict(None)
        return INTERVAL_S


def due_with_news(due: float, now: float, news: deque[float]) -> float:
    """When the next report is due, now that there is something new to tell.

    `news` are the times of the last reports that were news, as many as may be in PER_S.
    """
    allowed = news[0] + PER_S if len(news) == CHANGES else now
    return min(due, max(now + SETTLE_S, allowed))
