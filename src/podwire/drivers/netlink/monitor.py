"""Monitor: what changes in one network namespace, as the kernel announces it.

An event is a reason to look, not a record of history: several changes of one object may arrive as
one, and when they come faster than they are read, some are lost and an `overrun` says so.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from podwire.drivers import namespaces
from podwire.drivers.netlink import wire
from podwire.drivers.netlink.decode import (
    decode_address,
    decode_fdb,
    decode_link,
    decode_neighbour,
)
from podwire.drivers.netlink.route_decode import decode_route, decode_rule
from podwire.drivers.netlink.session import DATAGRAM, RECEIVE_BUFFER, SOL_NETLINK, enlarge

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from podwire.model.link import Address, Link
    from podwire.model.overlay import FDBEntry, Neighbour
    from podwire.model.route import Route, Rule

Kind: TypeAlias = Literal["link", "address", "route", "neighbour", "rule", "fdb", "overrun"]
Value: TypeAlias = "Link | Address | Route | Neighbour | Rule | FDBEntry"

ALL: tuple[Kind, ...] = ("link", "address", "route", "neighbour", "rule", "fdb")

_ADD_MEMBERSHIP = 1
_GROUPS: dict[Kind, tuple[int, ...]] = {
    "link": (1,),
    "neighbour": (3,),
    "fdb": (3,),
    "address": (5, 9),
    "route": (7, 11),
    "rule": (8, 19),
}
"""RTNLGRP_* of both families."""

_IP = frozenset({wire.AF_INET, wire.AF_INET6})
_DECODERS: dict[int, tuple[Kind, frozenset[int], Callable[[bytes, int, int], Value]]] = {
    # A link message of family AF_BRIDGE speaks of a port only: its "delete" deletes no link.
    wire.NEWLINK: ("link", frozenset({wire.AF_UNSPEC}), decode_link),
    wire.NEWADDR: ("address", _IP, decode_address),
    # Multicast routing (family RTNL_FAMILY_IPMR) shares the types of routes and rules.
    wire.NEWROUTE: ("route", _IP, decode_route),
    wire.NEWRULE: ("rule", _IP, decode_rule),
    wire.NEWNEIGH: ("neighbour", _IP, decode_neighbour),
}
_MOST_DATAGRAMS = 2000
"""Read at once; the rest waits for the next turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing changed, or (`overrun`) nobody knows what did: list everything again."""

    kind: Kind
    deleted: bool = False
    value: Value | None = None
    """The record as it is now, or as it was before it was deleted; None for an overrun."""
    port: int = 0
    """Whose request caused it: `Session.port`, another program's, or 0 for the kernel's own doing.
    Links and forwarding entries carry 0 mostly, whoever changed them."""


OVERRUN = Event(kind="overrun")


class Monitor:
    """A socket that hears of changes; give its `fileno` to a selector and `read` when it is ready.

    Open it before listing: then nothing falls between list and events. The kernel is silent about
    IPv4 routes that go because their device went down or away, or because an address did: after
    such a link or address event, list the routes.
    """

    def __init__(
        self, *kinds: Kind, namespace_fd: int | None = None, buffer_size: int = RECEIVE_BUFFER
    ) -> None:
        """Begin to listen for some kinds (none given: for all).

        Args:
            kinds: of which kinds of record to hear.
            namespace_fd: descriptor of the namespace to listen in; None: the calling thread's.
            buffer_size: bytes of events that may wait, if the host allows as many.

        Raises:
            Forbidden: the namespace may not be entered.
        """
        self._kinds = frozenset(kinds or ALL)
        groups = {group for kind in self._kinds for group in _GROUPS.get(kind, ())}
        if namespace_fd is None:
            self._door = _listen(groups, buffer_size)
        else:
            self._door = namespaces.call_in(namespace_fd, _listen, groups, buffer_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor; readable when events wait."""
        return self._door.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._door.close()

    def read(self) -> tuple[Event, ...]:
        """All events that wait, in order; never blocks, and an empty tuple means none do."""
        events: list[Event] = []
        for _ in range(_MOST_DATAGRAMS):
            try:
                data, _, flags, _ = self._door.recvmsg(DATAGRAM, 0, socket.MSG_DONTWAIT)
                events += (OVERRUN,) if flags & socket.MSG_TRUNC else _events(data, self._kinds)
            except BlockingIOError:
                break
            except wire.Malformed:
                # Not understood: whatever it said, listing tells.
                events.append(OVERRUN)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                events.append(OVERRUN)
        return tuple(events)


def _listen(groups: set[int], buffer_size: int) -> socket.socket:
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    enlarge(door, buffer_size)
    door.bind((0, 0))
    for group in sorted(groups):
        try:
            door.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            # A kernel without IPv6 has no such groups.
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                door.close()
                raise
    return door


def _events(data: bytes, kinds: frozenset[Kind]) -> list[Event]:
    events: list[Event] = []
    for number, _, _, port, start, end in wire.messages(data):
        # RTM_DEL* follows its RTM_NEW* in number; types are in groups of four.
        deleted = number & 3 == 1
        known = _DECODERS.get(number - deleted)
        if known is None or start == end:
            continue
        kind, families, decode = known
        family = data[start]
        if kind == "neighbour" and family == wire.AF_BRIDGE:
            kind, families, decode = "fdb", frozenset({wire.AF_BRIDGE}), decode_fdb
        if kind in kinds and family in families:
            value = decode(data, start, end)
            events.append(Event(kind=kind, deleted=deleted, value=value, port=port))
    return events
