"""Guards: what was checked against other objects still holds at the moment of writing.

That no pool overlaps another, and no address is two nodes' or two endpoints', is checked by
listing; two writers that look at once would both pass. So each kind has an object that is read
before the check and written with whatever was checked, in one transaction: of two writers the
later one finds it changed, and checks again.

A store that writes one object at a time writes the guard first, which leaves a gap as short as the
time between two writes.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from podwire.boundary import Verb, Write
from podwire.model import keys
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node
from podwire.model.pool import IPPool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from podwire.boundary import Store
    from podwire.model.resource import Stored

GUARDED = {
    "IPPool": keys.guard_key("ippools"),
    "Node": keys.guard_key("nodes"),
    "WorkloadEndpoint": keys.guard_key("workloadendpoints"),
}


class Guards:
    """The guards of some kinds, as they were before the check."""

    def __init__(self, store: Store, kinds: Collection[str]) -> None:
        self._before = {
            kind: store.get(key) for kind, key in GUARDED.items() if kind in kinds
        }  # fmt: skip

    def writes(self, changes: Iterable[tuple[Stored | None, Stored]]) -> list[Write]:
        """What is to be written with the changes, each the value before and after."""
        moved = {type(after).__name__ for before, after in changes if takes(before, after)}
        return [
            Write(verb=Verb.CREATE, key=GUARDED[kind], value=_value())
            if entry is None
            else Write(verb=Verb.UPDATE, key=entry.key, value=_value(), revision=entry.revision)
            for kind, entry in self._before.items()
            if kind in moved
        ]


def takes(before: Stored | None, after: Stored) -> bool:
    """Whether a change takes something that others could take at the same time."""
    match before, after:
        case IPPool(), IPPool():
            return False  # its CIDR cannot be changed
        case _, IPPool():
            return True
        case Node(), Node():
            return (before.address, before.address6) != (after.address, after.address6)
        case _, Node():
            return True
        case WorkloadEndpoint(), WorkloadEndpoint():
            return not set(after.addresses) <= set(before.addresses)
        case _, WorkloadEndpoint():
            return True
        case _:
            return False


def _value() -> dict[str, str]:
    # Never the same twice: a store tells by the value whether a write of ours was carried out.
    return {"written": str(uuid.uuid4())}
