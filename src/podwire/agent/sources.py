"""Sources: the parts of the agent that health and metrics are read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.agent.bird import BirdWriter
    from podwire.agent.endpoints import LocalEndpoints
    from podwire.agent.health import Readiness
    from podwire.agent.hold import Hold
    from podwire.agent.loop import Loop
    from podwire.agent.observe import StoreObserver
    from podwire.agent.publish import Publisher
    from podwire.agent.spool import Spool
    from podwire.agent.sweep import Sweep
    from podwire.agent.timedstore import TimedStore
    from podwire.agent.timing import TimedCalls
    from podwire.boundary import Clock
    from podwire.ipam.service import IPAM
    from podwire.model.config import AgentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Read from any thread, never written."""

    config: AgentConfig
    clock: Clock
    loop: Loop
    readiness: Readiness
    calls: TimedCalls
    store: TimedStore
    observers: Callable[[], Sequence[StoreObserver]]
    """What follows the datastore now."""
    ipam: IPAM
    endpoints: LocalEndpoints
    hold: Hold
    spool: Spool
    publisher: Publisher
    sweep: Sweep
    bird: BirdWriter

    def datastore_lag_s(self) -> float:
        """How old the copy of the datastore may be, in seconds."""
        losses = [each.away_at for each in self.observers() if each.away_at is not None]
        return self.clock.monotonic() - min((self.store.heard_at, *losses))
