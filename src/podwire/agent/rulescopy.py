"""RulesCopy: what people have decided about addresses, out of the agent's copy of the datastore.

An ADD would otherwise read pools, reservations, configuration and its own node again and again,
though the agent follows all of them. The copy lags by what a watch lags, and no ADD is refused
because of it: IPAM reads the rules before it says no.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.ipam.records import rules_of
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from podwire.agent.mirror import Mirror
    from podwire.boundary import Clock
    from podwire.ipam.pools import Rules
    from podwire.model.block import IPAMConfig
    from podwire.model.pool import IPPool, IPReservation

    Basis: TypeAlias = tuple[
        tuple[IPPool, ...], tuple[IPReservation, ...], IPAMConfig | None, Mapping[str, str]
    ]

BACKLOG_S = 1.0
"""How long after a watch came back it may still owe what was written while it was away."""
PREFIXES = frozenset({keys.POOLS, keys.RESERVATIONS, keys.NODES, keys.IPAM_CONFIG_KEY})


class RulesCopy:
    """Written by the loop's thread, as a whole; any thread may read it."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node_key = keys.node_key(node)
        self._node = node
        self._clock = clock
        self._rules: Rules | None = None
        self._not_before = 0.0
        """Until then (monotonic) they may be old."""
        self._was_known = False
        self._made: tuple[Basis, Rules] | None = None

    def read(self) -> Rules | None:
        """The rules; None while they may be old, or cannot be told from the copy."""
        # The rules first: the moment is moved before they are put there again.
        rules = self._rules
        return None if self._clock.monotonic() < self._not_before else rules

    def look(self, mirror: Mirror, prefix: str) -> None:
        """The mirror has heard of this prefix."""
        if prefix not in PREFIXES:
            return
        is_known = mirror.vouches_for(PREFIXES)
        if is_known and not self._was_known:
            self._not_before = self._clock.monotonic() + BACKLOG_S
        self._was_known = is_known
        self._rules = self._rules_in(mirror) if is_known else None

    def _rules_in(self, mirror: Mirror) -> Rules | None:
        # What cannot be read is kept as it was for routes, and left out for addresses.
        if any(self._decides(key) for key in mirror.unreadable):
            return None
        node = mirror.nodes.get(self._node)
        basis = (
            tuple(mirror.pools.values()),
            tuple(mirror.reservations.values()),
            mirror.ipam,
            {} if node is None else node.metadata.labels,
        )
        # Most often it was another node that changed.
        if self._made is None or self._made[0] != basis:
            self._made = (basis, rules_of(*basis))
        return self._made[1]

    def _decides(self, key: str) -> bool:
        if key.startswith(keys.NODES):
            return key == self._node_key
        return any(key.startswith(prefix) for prefix in PREFIXES)
