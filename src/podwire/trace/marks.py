"""Marks: whether what decides about packets changed between two readings of a namespace.

What the probe itself changes (neighbours that are learnt, tracked connections, addresses a bridge
learns, counters of rules) is no change.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from podwire.model.kernelstate import Missing
from podwire.model.overlay import NUD_PERMANENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.model.kernelstate import KernelState, Section
    from podwire.model.overlay import FDBEntry, Neighbour

T = TypeVar("T")

CHANGING = frozenset({"packets", "bytes", "used"})
"""Keys of `nft -j` that count."""
_COUNTERS = re.compile(r" ?\[\d+:\d+\] ?")


def changed(before: Iterable[KernelState], after: Iterable[KernelState], version: int) -> list[str]:
    """What changed for packets of one IP version, in words.

    Namespaces of which there is only one reading are left out.
    """
    later = {state.namespace.inode: state for state in after}
    found = []
    for state in before:
        other = later.get(state.namespace.inode)
        if other is None:
            continue
        old, new = _mark(state, version), _mark(other, version)
        found += [
            f"{section} of {state.namespace.title}"
            for section in old
            if old[section] != new[section]
        ]
    return found


def _mark(state: KernelState, version: int) -> dict[str, object]:
    """What decides, in a form that compares."""
    return {
        "links": _set(state.links),
        "addresses": _set(state.addresses, lambda each: each.interface.version == version),
        "routes": _set(state.routes, lambda each: each.key.destination.version == version),
        "rules": _set(state.rules, lambda each: each.family == version),
        "permanent neighbours": _set(state.neighbours, _lasts),
        "forwarding entries": _set(state.fdb, _lasts),
        "sysctls": None if isinstance(state.sysctls, Missing) else dict(state.sysctls.value),
        "rule sets": None if isinstance(state.nft, Missing) else _still(list(state.nft.value)),
        "rule sets of iptables-legacy": _rules(state.iptables_legacy),
    }


def _rules(saved: Section[str]) -> object:
    """What `iptables-save` says, without its comments, which hold the time, and its counters."""
    if isinstance(saved, Missing):
        return None
    lines = saved.value.splitlines()
    return [_COUNTERS.sub("", line) for line in lines if not line.startswith("#")]


def _set(section: Section[tuple[T, ...]], concerns: Callable[[T], bool] = lambda _: True) -> object:
    if isinstance(section, Missing):
        return None
    return frozenset(each for each in section.value if concerns(each))


def _lasts(each: Neighbour | FDBEntry) -> bool:
    return bool(each.state & NUD_PERMANENT)


def _still(value: object) -> object:
    """A rule set without its counters."""
    if isinstance(value, dict):
        return {key: _still(each) for key, each in value.items() if key not in CHANGING}
    if isinstance(value, list | tuple):
        return [_still(each) for each in value]
    return value
