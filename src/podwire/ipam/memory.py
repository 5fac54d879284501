"""What one process remembers between requests: the node's own blocks, and the rules for a moment.

Remembered blocks are never trusted, only tried: the compare-and-swap refuses a write that was made
from an old one, and then it is read again. A request that finds nothing in memory looks again
before it fails. So memory saves reads and changes no answer, but for rules up to RULES_AGE_S old:
about what a watcher would lag. An agent is such a watcher, and its copy of the rules is taken
instead of reading them, for as long as it vouches for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.ipam.pools import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.boundary import Clock
    from podwire.ipam.claims import Claims
    from podwire.ipam.records import Record, Records
    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Block

RULES_AGE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a try begins from."""

    rules: Rules = field(default_factory=Rules)
    own: Mapping[IPNetwork, Record[Block]] = field(default_factory=lambda: MappingProxyType({}))
    """The node's confirmed blocks."""
    fresh: bool = False
    """Everything was read for this try."""


def no_copy() -> None:
    """Nobody follows the rules: they are read."""


class Memory:
    """The last view, kept up by what this process writes.

    `own` is replaced, never changed in place, so that threads may read it while others write.
    """

    def __init__(
        self, records: Records, claims: Claims, clock: Clock, labels: Mapping[str, str] | None
    ) -> None:
        self._records = records
        self._claims = claims
        self._clock = clock
        self._labels = labels
        self.copied: Callable[[], Rules | None] = no_copy
        self._own: Mapping[IPNetwork, Record[Block]] | None = None
        self._rules: tuple[float, Rules] | None = None
        self.last_seen = View()
        """What was known last, forgotten or not: for figures, never for decisions."""

    def look(self, *, again: bool) -> View:
        """A view from memory, or, when `again` or there is none, from the datastore."""
        own = self._own
        if own is not None and not again:
            return View(rules=self.rules(), own=own)
        rules = self.rules(again=True)
        own = self._claims.held(cooldown_s=rules.config.cooldown_s)
        self._own = own
        self.last_seen = View(rules=rules, own=own, fresh=True)
        return self.last_seen

    def rules(self, *, again: bool = False) -> Rules:
        """The rules, copied or at most RULES_AGE_S old, or read just now when `again`."""
        if not again and (copied := self.copied()) is not None:
            return copied
        now = self._clock.monotonic()
        if self._rules is not None and not again and now - self._rules[0] < RULES_AGE_S:
            return self._rules[1]
        rules = self._records.rules(self._claims.node, self._labels)
        self._rules = (now, rules)
        return rules

    def put(self, record: Record[Block]) -> None:
        """Remember one of the node's own blocks as it was written."""
        if self._own is not None and record.value.node == self._claims.node:
            self._own = {**self._own, record.value.cidr: record}
            self.last_seen = replace(self.last_seen, own=self._own)

    def reread(self, cidr: IPNetwork) -> None:
        """Read a block again after a write of it was refused."""
        if self._own is None or cidr not in self._own:
            return
        record = self._records.block(cidr)
        if record is None or record.value.node != self._claims.node:
            self._own = None
        else:
            self.put(record)

    def forget(self) -> None:
        """Trust nothing: the next view is read from the datastore."""
        self._own = None
        self._rules = None
