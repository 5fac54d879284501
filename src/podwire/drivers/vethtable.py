"""All veth pairs this process can see, with both ends and where they are.

The kernel names the other end by its index (IFLA_LINK) and by a number for its namespace that
means something only to this end's namespace (IFLA_LINK_NETNSID). Two ends belong together when
each has the other's index and the number leads to the other's namespace (RTM_GETNSID).
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.namespace_table import NetworkNamespace, Sight, look
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError, PodwireError
from podwire.model.endpoint import parse_link_alias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPInterface
    from podwire.model.link import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class VethEnd:
    """One end of a pair."""

    namespace: NetworkNamespace
    link: Link
    addresses: tuple[IPInterface, ...]

    @property
    def pod(self) -> str | None:
        """`namespace/pod` when the alias is one of ours."""
        mark = parse_link_alias(self.link.alias or "")
        return None if mark is None else mark.title


@dataclass(frozen=True, slots=True, kw_only=True)
class VethPair:
    """A pair; `second` is None when the other end is in a namespace out of sight."""

    first: VethEnd
    second: VethEnd | None

    @property
    def owner(self) -> str | None:
        """The pod (`namespace/pod`) or else the container (its short ID) at one of its ends."""
        ends = [end for end in (self.first, self.second) if end is not None]
        pods = [end.pod for end in ends if end.pod]
        containers = [end.namespace.container for end in ends if end.namespace.container]
        return next(iter(pods + containers), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VethTable:
    """All pairs, and sentences about what could not be seen."""

    pairs: tuple[VethPair, ...]
    unseen: tuple[str, ...]


def veth_table(sight: Sight | None = None) -> VethTable:
    """Read the veth devices of every namespace in sight and pair them."""
    sight = look(descriptors=True) if sight is None else sight
    ends: list[VethEnd] = []
    unseen = list(sight.unseen)
    for namespace in sight.namespaces:
        try:
            ends += read_ends(namespace)
        except (PodwireError, OSError) as error:
            unseen.append(f"{namespace.title}: {_reason(error)}")
    pairs = pair_up(ends, _numbers(ends))
    return VethTable(pairs=pairs, unseen=tuple(unseen))


def read_ends(namespace: NetworkNamespace) -> list[VethEnd]:
    """The veth devices of one namespace.

    Raises:
        Forbidden: it may not be entered.
        NotThere: it ended.
    """
    with enter(namespace) as session:
        links = [link for link in session.links().values() if link.kind == "veth"]
        addresses = session.addresses() if links else ()
    return [
        VethEnd(
            namespace=namespace,
            link=link,
            addresses=tuple(one.interface for one in addresses if one.device == link.index),
        )
        for link in links
    ]


def enter(namespace: NetworkNamespace) -> Session:
    """A session there; the caller's own namespace needs no right to enter."""
    if namespace.own:
        return Session.open()
    with namespaces.opened(namespace.path) as descriptor:
        return Session.open(descriptor)


Number = tuple[int, int]
"""(inode of the namespace that counts, inode of the one counted)."""


def pair_up(ends: Iterable[VethEnd], numbers: Mapping[Number, int]) -> tuple[VethPair, ...]:
    """Join ends that belong together. Pure.

    `numbers`: by which number the first namespace knows the second.
    """
    everywhere = list(ends)
    by_indexes = _by_indexes(everywhere)
    paired: set[tuple[int, int]] = set()
    pairs: list[VethPair] = []
    for end in everywhere:
        if _identity(end) in paired:
            continue
        other = _other_end(end, by_indexes, numbers)
        paired |= {_identity(end)} if other is None else {_identity(end), _identity(other)}
        first, second = _ordered(end, other)
        pairs.append(VethPair(first=first, second=second))
    return tuple(sorted(pairs, key=lambda pair: (*_rank(pair.first), pair.first.link.index)))


Indexes = tuple[int, int | None]
"""(index of an end, index of its peer)."""


def _by_indexes(ends: Iterable[VethEnd]) -> dict[Indexes, list[VethEnd]]:
    found: dict[Indexes, list[VethEnd]] = {}
    for end in ends:
        found.setdefault((end.link.index, end.link.peer_index), []).append(end)
    return found


def _identity(end: VethEnd) -> tuple[int, int]:
    return end.namespace.inode, end.link.index


def _candidates(end: VethEnd, by_indexes: Mapping[Indexes, list[VethEnd]]) -> Iterable[VethEnd]:
    """The ends that have this one's indexes crosswise."""
    if end.link.peer_index is None:
        return ()
    return by_indexes.get((end.link.peer_index, end.link.index), ())


def _other_end(
    end: VethEnd,
    by_indexes: Mapping[Indexes, list[VethEnd]],
    numbers: Mapping[Number, int],
) -> VethEnd | None:
    here, nsid = end.namespace.inode, end.link.peer_netnsid
    for other in _candidates(end, by_indexes):
        there = other.namespace.inode
        if here == there if nsid is None else numbers.get((here, there)) == nsid:
            return other
    return None


def _ordered(end: VethEnd, other: VethEnd | None) -> tuple[VethEnd, VethEnd | None]:
    """Put the host's side first: our own namespace, then process 1's, then the marked end."""
    if other is None or _rank(end) <= _rank(other):
        return end, other
    return other, end


def _rank(end: VethEnd) -> tuple[bool, bool, bool, str]:
    where = end.namespace
    return not where.own, not where.initial, end.pod is None, where.title


def _numbers(ends: Iterable[VethEnd]) -> dict[Number, int]:
    """Ask each namespace with a foreign peer by which number it knows the possible ones."""
    everywhere = list(ends)
    by_indexes = _by_indexes(everywhere)
    places = {end.namespace.inode: end.namespace for end in everywhere}
    wanted: dict[int, set[int]] = {}
    for end in everywhere:
        if end.link.peer_netnsid is not None:
            there = {other.namespace.inode for other in _candidates(end, by_indexes)}
            wanted.setdefault(end.namespace.inode, set()).update(there)
    numbers: dict[Number, int] = {}
    for here, others in wanted.items():
        with suppress(PodwireError, OSError), closing(enter(places[here])) as session:
            for inode in others:
                nsid = _number_of(session, places[inode])
                if nsid is not None:
                    numbers[here, inode] = nsid
    return numbers


def _number_of(session: Session, namespace: NetworkNamespace) -> int | None:
    """The session's number for a namespace; None also when that one ended meanwhile."""
    try:
        descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return session.namespace_id(descriptor)
    except KernelError:
        return None
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, PodwireError) else str(error)
