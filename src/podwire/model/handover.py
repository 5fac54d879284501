"""Handover: how far one node is while the routes change hands, as its agent publishes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.node import Routing

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Whose routes lead from this node to every block of the others."""

    complete: frozenset[Routing] = frozenset()
    missing: str | None = None
    """What somebody still lacks, or why."""


def encode_handover(handover: Handover) -> JSON:
    """Its JSON."""
    wire: dict[str, JSON] = {"complete": sorted(handover.complete)}
    if handover.missing is not None:
        wire["missing"] = handover.missing
    return wire


def decode_handover(line: Wire) -> Handover | None:
    """What a node's publication says of it; None when it says nothing that can be read."""
    wire = line.get("handover")
    if not isinstance(wire, dict):
        return None
    known = {owner.value: owner for owner in Routing}
    complete = wire.get("complete")
    words = complete if isinstance(complete, list) else []
    missing = wire.get("missing")
    return Handover(
        complete=frozenset(known[word] for word in words if word in known),
        missing=missing if isinstance(missing, str) else None,
    )
