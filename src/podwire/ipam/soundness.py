"""Whether a block counts rightly, and how one that does not is mended. Pure, on the JSON itself.

A broken block may be one that cannot be read as a Block at all, so the rules are asked of what is
stored: every allocation points to an attribute, every attribute is used, each ordinal is either
allocated or free once, and nothing was released in the future.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.ipam.allocation import parse_timestamp, timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from podwire.model.resource import JSON, Wire


def faults(wire: Wire, size: int, now: datetime | None = None) -> tuple[str, ...]:
    """What is wrong with a stored block of that many addresses; empty for a sound one.

    Without `now`, times of release are taken for good.
    """
    allocations, free, attributes = _lists(wire)
    if None in (allocations, free, attributes):
        return ("allocations, unallocated or attributes is no list",)
    assert allocations is not None
    assert free is not None
    assert attributes is not None
    found = [f"ordinal {ordinal} points to no attribute" for ordinal in lost_owners(wire)]
    taken = {o for o, index in enumerate(allocations) if index is not None}
    unused = len(attributes) - len({i for i in allocations if _points(i, attributes)})
    if unused:
        found.append(f"{unused} attributes are nobody's")
    if now is not None and any(_is_ahead(each, now) for each in attributes):
        found.append("an address was released in the future")
    good = [o for o in free if _is_ordinal(o, size)]
    if len(good) < len(free) or any(ordinal >= size for ordinal in taken):
        found.append("an ordinal is out of range")
    if len(set(good)) < len(good):
        found.append("an ordinal is free twice")
    if set(good) & taken:
        found.append("an ordinal is free and allocated")
    if len(free) + len(taken) != size:
        found.append(f"{len(free)} free + {len(taken)} allocated is not {size}")
    return tuple(found)


def lost_owners(wire: Wire) -> tuple[int, ...]:
    """The ordinals that are allocated to nobody knows whom."""
    allocations, _, attributes = _lists(wire)
    return tuple(
        ordinal
        for ordinal, index in enumerate(allocations or ())
        if index is not None and not _points(index, attributes or ())
    )


def mended(wire: Wire, size: int, now: datetime) -> Wire | None:
    """The block as it should be; None when too little is left of it.

    Whose owner is known keeps its address. An ordinal without owner becomes free, behind those that
    are: whoever used it must be known to be gone.
    """
    allocations, free, attributes = _lists(wire)
    if allocations is None or free is None or attributes is None:
        return None
    owners = {
        ordinal: index
        for ordinal, index in enumerate(allocations[:size])
        if _points(index, attributes)
    }
    queue = [o for o in dict.fromkeys(o for o in free if _is_ordinal(o, size)) if o not in owners]
    queue += [o for o in range(size) if o not in owners and o not in queue]
    used = sorted(set(owners.values()))
    place = {index: number for number, index in enumerate(used)}
    kept = [attributes[index] for index in used]
    sequences = wire.get("sequenceNumberForAllocation") or {}
    return {
        **wire,
        "allocations": [place[owners[o]] if o in owners else None for o in range(size)],
        "unallocated": queue,
        "attributes": [
            {**each, "releasedAt": timestamp(now)} if _is_ahead(each, now) else each
            for each in kept
        ],
        "sequenceNumber": int(wire.get("sequenceNumber") or 0) + 1,
        "sequenceNumberForAllocation": {
            text: number
            for text, number in sequences.items()
            if text.isdecimal() and int(text) in owners
        },
    }


def _lists(
    wire: Wire,
) -> tuple[Sequence[JSON] | None, Sequence[JSON] | None, Sequence[JSON] | None]:
    names = ("allocations", "unallocated", "attributes")
    first, second, third = (
        found if isinstance(found := wire.get(name) or [], list) else None for name in names
    )
    return first, second, third


def _points(index: JSON, attributes: Sequence[JSON]) -> bool:
    return (
        isinstance(index, int)
        and not isinstance(index, bool)
        and 0 <= index < len(attributes)
        and isinstance(attributes[index], dict)
    )


def _is_ordinal(value: JSON, size: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size


def _is_ahead(attribute: JSON, now: datetime) -> bool:
    released = attribute.get("releasedAt") if isinstance(attribute, dict) else None
    moment = parse_timestamp(released) if isinstance(released, str) else None
    return moment is not None and moment > now
