"""Marks: what one namespace's tables looked like, so cheaply that it can be asked twice.

A trace reads the state, sends its packets and asks again: where a mark differs, the network was
changed meanwhile and the comparison means nothing. What a packet itself changes is left out:
neighbours and forwarding entries that were learnt, states, counters, connections.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass, fields
from struct import Struct
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.collect import collect
from podwire.drivers.netlink import wire
from podwire.drivers.netlink.session import Session
from podwire.drivers.procfiles import read_sysctls
from podwire.drivers.rulesets import NETLINK_NETFILTER, dump, legacy_tables
from podwire.errors import PodwireError
from podwire.model.kernelstate import KernelState, Missing
from podwire.model.overlay import NUD_NOARP, NUD_PERMANENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podwire.model.overlay import FDBEntry, Neighbour

_NEWGEN, _GETGEN = 0x0A0F, 0x0A10
_GENERATION = 1
_FAMILY = Struct("=BBH")
_SET_BY_HAND = NUD_PERMANENT | NUD_NOARP


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """One number for each section; None: it could not be read. Equal marks: nothing changed.

    The numbers mean something within this process only.
    """

    links: int | None = None
    addresses: int | None = None
    routes: int | None = None
    rules: int | None = None
    neighbours: int | None = None
    """Permanent and proxy entries."""
    fdb: int | None = None
    """Entries that are not learnt."""
    sysctls: int | None = None
    nft: int | None = None
    """The rule set's generation, which the kernel counts; 0 where it has none."""
    legacy: int | None = None
    """How many tables iptables-legacy has; what is in them no kernel counts."""


def marks(namespace_fd: int) -> Marks:
    """Read the marks of a namespace now.

    Raises:
        Forbidden: the namespace may not be entered.
    """
    return namespaces.call_in(namespace_fd, _marks_here)


def _marks_here() -> Marks:
    found: dict[str, int] = {}
    names: list[str] = []
    with Session.open() as session:
        readers: dict[str, Callable[[], Iterable[object]]] = {
            "links": lambda: tuple(session.links().values()),
            "addresses": session.addresses,
            "routes": lambda: session.routes(table=None),
            "rules": session.rules,
            "neighbours": lambda: _lasting_neighbours(session.neighbours()),
            "fdb": lambda: _lasting_entries(session.fdb()),
        }
        for name, read in readers.items():
            with suppress(PodwireError):
                found[name] = _mark(read())
        with suppress(PodwireError):
            names = [link.name for link in session.links().values()]
    found["sysctls"] = _mark_of_settings(read_sysctls(names))
    generation = read_generation()
    if generation is not None:
        found["nft"] = generation
    with suppress(OSError):
        found["legacy"] = sum(map(len, legacy_tables().values()))
    return Marks(**found)


def marks_of(state: KernelState) -> Marks:
    """The marks that a state had when it was collected: to be compared with `marks` later."""
    found: dict[str, int] = {}
    for name in ("links", "addresses", "routes", "rules"):
        section = getattr(state, name)
        if not isinstance(section, Missing):
            found[name] = _mark(section.value)
    if not isinstance(state.neighbours, Missing):
        found["neighbours"] = _mark(_lasting_neighbours(state.neighbours.value))
    if not isinstance(state.fdb, Missing):
        found["fdb"] = _mark(_lasting_entries(state.fdb.value))
    if not isinstance(state.sysctls, Missing):
        found["sysctls"] = _mark_of_settings(state.sysctls.value)
    if not isinstance(state.nft, Missing):
        found["nft"] = state.nft.generation
    if not isinstance(state.iptables_legacy, Missing):
        lines = state.iptables_legacy.value.splitlines()
        found["legacy"] = sum(line.startswith("*") for line in lines)
    return Marks(**found)


def changed(before: Marks, after: Marks) -> tuple[str, ...]:
    """Names of the sections that differ; one that could not be read both times is left out."""
    return tuple(
        field.name
        for field in fields(Marks)
        if (old := getattr(before, field.name)) is not None
        and (new := getattr(after, field.name)) is not None
        and old != new
    )


def collected_again(state: KernelState, namespace_fd: int) -> KernelState | None:
    """The state as it is now where a mark differs from it; None where nothing changed.

    Raises:
        Forbidden: the namespace may not be entered.
    """
    before, after = marks_of(state), marks(namespace_fd)
    if not changed(before, after) and not after.legacy:
        return None
    # Nobody asks the second reading where its veths lead.
    return collect(namespace_fd, state.namespace, {})


def read_generation() -> int | None:
    """The generation of the calling thread's nftables rule set; 0 without nf_tables.

    Every change of a rule set raises it. None: the kernel does not tell.
    """
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        ) as door:
            door.bind((0, 0))
            found = dump(door, _GETGEN, _FAMILY.pack(0, 0, 0), _NEWGEN, wire.F_ACK)
    except OSError as error:
        none = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL}
        return 0 if error.errno in none else None
    for data, start, end in found:
        value = wire.attributes(data, start + _FAMILY.size, end).get(_GENERATION)
        if value is not None:
            return int.from_bytes(value, "big")
    return 0


def _lasting_neighbours(entries: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
    # The kernel itself adds NOARP entries, for multicast, as packets go out.
    return tuple(each for each in entries if each.proxy or each.state & NUD_PERMANENT)


def _lasting_entries(entries: Iterable[FDBEntry]) -> tuple[FDBEntry, ...]:
    return tuple(each for each in entries if each.state & _SET_BY_HAND)


def _mark(records: Iterable[object]) -> int:
    # A set, because a table may be listed in another order next time.
    return hash(frozenset(records))


def _mark_of_settings(settings: Mapping[str, str]) -> int:
    return hash(frozenset(settings.items()))
