"""What every request of a node's IPAM works with, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.boundary import Clock
    from podwire.ipam.claims import Claims
    from podwire.ipam.ledger import Ledger
    from podwire.ipam.memory import Memory
    from podwire.ipam.records import Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Shared by all requests; holds no state of its own."""

    records: Records
    claims: Claims
    ledger: Ledger
    memory: Memory
    clock: Clock

    @property
    def node(self) -> str:
        """The node that assigns."""
        return self.claims.node
