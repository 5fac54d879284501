"""Keeps this node's table of nftables as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from podwire.desired.firewall import Firewall, firewall, render
from podwire.drivers.collect_marks import read_generation
from podwire.drivers.nft import write_rules
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from podwire.boundary import Clock
    from podwire.model.snapshot import Snapshot

RETRY_S = 10.0
"""How soon a refused write is tried again."""

log = structlog.get_logger(__name__)


class FirewallKeeper:
    """Writes the whole table when what decides it has changed, or others changed any rules.

    The script is one transaction and keeps the counters, so writing it once too often costs a few
    milliseconds and changes nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._written: Firewall | None = None
        self._generation: int | None = None
        self._not_before = 0.0
        self._problem: str | None = None

    def settle(self, snapshot: Snapshot) -> None:
        """Write what is missing; quick when nothing is."""
        wanted = firewall(snapshot)
        if wanted == self._written or self._clock.monotonic() < self._not_before:
            return
        if self._written is None and not wanted.needed:
            self._written = wanted  # never make a table only to delete it
            return
        try:
            write_rules(render(wanted))
        except PodwireError as error:
            if self._problem is None:
                log.warning("firewall not written", error=error.message)
            self._problem = f"natOutgoing: {error}"
            self._not_before = self._clock.monotonic() + RETRY_S
            return
        self._problem = None
        self._written = wanted
        self._generation = read_generation()

    def concerns(self) -> tuple[str, ...]:
        """Why the table is not as it should be."""
        return () if self._problem is None else (self._problem,)

    def look(self) -> None:
        """Whether anybody has changed any rules since: then ours are written again."""
        if self._written is not None and self._written.needed:
            generation = read_generation()
            if generation != self._generation:
                self._written, self._not_before = None, 0.0
