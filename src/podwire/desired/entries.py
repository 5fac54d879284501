"""Entries: what desired state is made of, with the kernel's own identity as key.

One word for what lies in five tables (routes, neighbours, FDB, addresses, sysctls), so that one
loop can compare and write them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, TypeAlias, assert_never

from podwire.model.link import Address
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import Route, RouteKey

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPInterface


class Table(StrEnum):
    """A kernel table the agent writes."""

    SYSCTLS = "sysctls"
    ADDRESSES = "addresses"
    NEIGHBOURS = "neighbours"
    FDB = "fdb"
    ROUTES = "routes"


@dataclass(frozen=True, slots=True)
class AddressKey:
    """An address is known by device and prefix; the same one may stand on two devices."""

    device: int
    interface: IPInterface


@dataclass(frozen=True, slots=True)
class NeighbourKey:
    """A neighbour is known by device and address."""

    device: int
    address: IPAddress


@dataclass(frozen=True, slots=True)
class FDBKey:
    """A vxlan device may hold one MAC behind several nodes: the node is part of the identity."""

    device: int
    mac: str
    destination: IPAddress | None


@dataclass(frozen=True, slots=True)
class SysctlKey:
    """A sysctl is known by its name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """One switch under /proc/sys, name in slash form."""

    name: str
    value: str


Entry: TypeAlias = Address | FDBEntry | Neighbour | Route | Sysctl
Key: TypeAlias = AddressKey | FDBKey | NeighbourKey | RouteKey | SysctlKey


class RouteClass(IntEnum):
    """Which concern asks for an entry; of several that want one key the lowest number wins."""

    LOCAL_WORKLOAD = 1
    VXLAN = 2
    DIRECT = 3
    IPIP = 4
    PLAIN = 5
    NODE = 6
    BLACKHOLE = 7


@dataclass(frozen=True, slots=True)
class Want:
    """An entry somebody wants, and the class that decides between rivals."""

    entry: Entry
    route_class: RouteClass = RouteClass.NODE


def table_of(entry: Entry) -> Table:
    """The table the entry stands in."""
    match entry:
        case Route():
            return Table.ROUTES
        case Neighbour():
            return Table.NEIGHBOURS
        case FDBEntry():
            return Table.FDB
        case Address():
            return Table.ADDRESSES
        case Sysctl():
            return Table.SYSCTLS
        case _:
            assert_never(entry)


def table_of_key(key: Key) -> Table:
    """The table an entry with that key stands in."""
    match key:
        case RouteKey():
            return Table.ROUTES
        case NeighbourKey():
            return Table.NEIGHBOURS
        case FDBKey():
            return Table.FDB
        case AddressKey():
            return Table.ADDRESSES
        case SysctlKey():
            return Table.SYSCTLS
        case _:
            assert_never(key)


def key_of(entry: Entry) -> Key:
    """The kernel's identity of the entry."""
    match entry:
        case Route():
            return entry.key
        case Neighbour():
            return NeighbourKey(entry.device, entry.address)
        case FDBEntry():
            return FDBKey(entry.device, entry.mac, entry.destination)
        case Address():
            return AddressKey(entry.device, entry.interface)
        case Sysctl():
            return SysctlKey(entry.name)
        case _:
            assert_never(entry)
