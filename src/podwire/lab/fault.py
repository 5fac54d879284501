"""Fault: one way to break a lab, and what a trace must make of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.nearest import suggestion
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable

TRAP = "trap."
"""How the id of a trap begins."""

ALL = frozenset(Encapsulation)


class Place(StrEnum):
    """Where a fault is made."""

    SOURCE_POD = "source pod"
    SOURCE_NODE = "source node"
    DESTINATION_NODE = "destination node"
    DESTINATION_POD = "destination pod"
    BOTH_NODES = "both nodes"
    WIRE = "wire"

    @property
    def at_destination(self) -> bool:
        """Whether it belongs to the destination's side."""
        return self in {Place.DESTINATION_NODE, Place.DESTINATION_POD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to break a lab."""

    name: str
    number: int | None
    """Row of the catalogue of faults; None: not in it."""
    id: str
    """What the trace calls it. Several faults can look the same from the kernel's side."""
    disposition: str
    """What becomes of a packet from source to destination, and its answer."""
    place: Place
    description: str
    encapsulations: frozenset[Encapsulation] = ALL
    between_nodes: bool = False
    """Makes sense only when the two pods are on different nodes."""
    same_subnet: bool = False
    """Makes sense only when the two nodes are in one subnet."""
    program: str | None = None
    """A program it needs, besides ip, nft, bridge and sysctl."""

    @property
    def is_trap(self) -> bool:
        """Whether it only looks like a fault."""
        return self.id.startswith(TRAP)


def get_fault(name: str, faults: Iterable[Fault]) -> Fault:
    """The fault of that name.

    Raises:
        BadInput: there is none; names the nearest.
    """
    by_name = {fault.name: fault for fault in faults}
    if name in by_name:
        return by_name[name]
    raise BadInput(
        f"there is no fault {name!r}",
        fix=suggestion(name, by_name, "podwire lab fault list"),
    )
