"""Connections as conntrack keeps them: two directions, and what NAT makes of them.

Follows net/netfilter/nf_conntrack_core.c and nf_nat_core.c: an entry holds the ends of a packet as
it came (`original`) and the ends its answer will have (`reply`); they differ by what is translated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The tuple of one direction; ports are None where the protocol has none."""

    protocol: str
    source: IPAddress
    destination: IPAddress
    source_port: int | None = None
    destination_port: int | None = None

    def turned(self) -> Ends:
        """The tuple of an answer to such a packet."""
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )


SOURCE, DESTINATION = "source", "destination"
"""The two manipulations: of the source at postrouting and input, else of the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One entry of one namespace."""

    inode: int
    original: Ends
    reply: Ends
    mark: int = 0
    answered: bool = False
    """IPS_SEEN_REPLY: packets of both directions were seen."""
    assured: bool = False
    settled: frozenset[str] = frozenset()
    """Manipulations that are decided; no nat chain is asked for them again."""
    turned: bool = False
    """The packet at hand goes in the direction of the answer."""

    @property
    def is_destination_changed(self) -> bool:
        """IPS_DST_NAT."""
        return (self.reply.source, self.reply.source_port) != (
            self.original.destination,
            self.original.destination_port,
        )

    @property
    def is_source_changed(self) -> bool:
        """IPS_SRC_NAT."""
        return (self.reply.destination, self.reply.destination_port) != (
            self.original.source,
            self.original.source_port,
        )

    def to(self, address: IPAddress, port: int | None) -> Track:
        """With another destination."""
        reply = replace(self.reply, source=address, source_port=port)
        return replace(self, reply=reply, settled=self.settled | {DESTINATION})

    def come_from(self, address: IPAddress, port: int | None) -> Track:
        """With another source."""
        reply = replace(self.reply, destination=address, destination_port=port)
        return replace(self, reply=reply, settled=self.settled | {SOURCE})

    def same(self, other: Track) -> bool:
        """Whether both are the same entry, at different times."""
        return self.inode == other.inode and self.original == other.original
