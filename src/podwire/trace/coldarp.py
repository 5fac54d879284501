"""Cold ARP: the states as they are when what was learnt of the neighbours on the way is forgotten.

So that the question who has an address is asked, predicted and seen, and not answered from memory.
Permanent entries are somebody's configuration, and stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.model.kernelstate import Read
from podwire.model.overlay import NUD_NOARP, NUD_PERMANENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.kernelstate import KernelState
    from podwire.model.overlay import Neighbour
    from podwire.trace.schema import Trace


def to_forget(trace: Trace) -> dict[int, frozenset[IPAddress]]:
    """For each namespace on the way, the neighbours that the packet or its answer asks for."""
    targets = frozenset(each.target for path in trace.paths for each in path.questions)
    inodes = {hop.inode for path in trace.paths for hop in path.hops}
    return dict.fromkeys(inodes, targets) if targets else {}


def learnt(entry: Neighbour) -> bool:
    """Whether ARP has put the entry there."""
    return not entry.proxy and not entry.state & (NUD_PERMANENT | NUD_NOARP)


def forgotten(
    states: Iterable[KernelState], what: Mapping[int, frozenset[IPAddress]]
) -> tuple[KernelState, ...]:
    """The states without the entries that will be forgotten."""
    done = []
    for state in states:
        targets, section = what.get(state.namespace.inode), state.neighbours
        if targets and isinstance(section, Read):
            left = tuple(
                each for each in section.value if not (learnt(each) and each.address in targets)
            )
            state = replace(state, neighbours=replace(section, value=left))  # noqa: PLW2901
        done.append(state)
    return tuple(done)
