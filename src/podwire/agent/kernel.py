"""Kernel: what is in this node's kernel, as last seen, beside what should be there.

One DeltaTracker for each table. Filled by a complete listing at start and after an overrun, kept
by the kernel's own events in between.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from podwire.desired.entries import (
    AddressKey,
    Entry,
    Key,
    SysctlKey,
    Table,
    key_of,
    table_of,
)
from podwire.desired.ownership import Holder, holder, serves
from podwire.desired.ways import foreign_routes
from podwire.model.link import INTERFACE_PREFIX, IPIP_DEVICE, VXLAN_DEVICE, Address, Link
from podwire.model.overlay import NUD_PERMANENT, FDBEntry, Neighbour
from podwire.model.route import MAIN_TABLE, PROTOCOL_PODWIRE, Route, RouteKey, RouteKind
from podwire.reconcile.delta import DeltaTracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.desired.ways import Foreign
    from podwire.drivers.netlink.monitor import Event
    from podwire.drivers.netlink.session import Session

Tracker: TypeAlias = DeltaTracker[Key, Entry]


@dataclass(slots=True)
class Seen:
    """What moved in the kernel that desired state depends on."""

    links: set[str] = field(default_factory=set)
    """Names of links that came, changed or went."""
    addresses: bool = False
    default_route: bool = False
    foreign_routes: bool = False
    """Routes of the main table that are not ours."""
    lost: bool = False
    """Events were lost, or routes went without one: list everything again."""


class Kernel:
    """This node's kernel tables; owned by the loop's thread."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.by_index: dict[int, Link] = {}
        self.addresses: dict[AddressKey, Address] = {}
        self.manages_ipip = False
        """Whether some pool uses IPIP: only then the addresses of tunl0 are ours to change."""
        self.trackers: Mapping[Table, Tracker] = {
            table: DeltaTracker(self.owns, serves) for table in Table
        }
        self._routes_on: defaultdict[int, set[RouteKey]] = defaultdict(set)
        self._defaults: set[RouteKey] = set()
        self._foreign: Foreign | None = None
        self._ours_stood: set[RouteKey] = set()
        """Where a route of ours stood since we watch, and it was not we who took it away."""
        self._seen = Seen()
        self.overruns = 0
        """How often the kernel had more to announce than was read in time."""

    @property
    def default_route(self) -> bool:
        """Whether some route of the main table leads everywhere."""
        return bool(self._defaults)

    def default_routes(self) -> list[Route]:
        """The main table's default routes, the preferred one first."""
        actual = self.trackers[Table.ROUTES].actual
        found = [actual[key] for key in sorted(self._defaults, key=lambda key: key.metric)]
        return [route for route in found if isinstance(route, Route)]

    def foreign_routes(self) -> Foreign:
        """The main table's routes that are not ours, searched once after each change of them."""
        if self._foreign is None:
            actual = self.trackers[Table.ROUTES].actual.values()
            self._foreign = foreign_routes(each for each in actual if isinstance(each, Route))
        return self._foreign

    def judge_addresses_again(self) -> None:
        """What counts as ours among the addresses has changed."""
        self.trackers[Table.ADDRESSES].judge_again()

    def forget_unwanted(self, key: Key) -> None:
        """Nobody wants it any more: a sysctl is not watched, a route's place is not ours."""
        if isinstance(key, SysctlKey):
            self.trackers[Table.SYSCTLS].gone(key)
        elif isinstance(key, RouteKey):
            actual = self.trackers[Table.ROUTES].actual.get(key)
            if not (isinstance(actual, Route) and actual.protocol == PROTOCOL_PODWIRE):
                self._ours_stood.discard(key)

    def index_of(self, name: str) -> int | None:
        """Index of a link, or None."""
        link = self.links.get(name)
        return None if link is None else link.index

    def owns(self, key: Key, entry: Entry) -> bool:
        """Whether an entry is ours to change: by its mark, or by the device it stands on.

        Only entries that `_is_tracked` lets in are ever asked about.
        """
        if isinstance(entry, Route):
            if entry.protocol == PROTOCOL_PODWIRE:
                return True
            # What is not wanted is never taken back, or we would delete what a person made.
            if key not in self.trackers[Table.ROUTES].desired:
                return False
            stood = entry.key in self._ours_stood
            return holder(entry, ours_stood_here=stood) is not Holder.FOREIGN
        if isinstance(entry, Address):
            return entry.device != self.index_of(IPIP_DEVICE) or self.manages_ipip
        return True

    def take_seen(self) -> Seen:
        """What moved since the last call."""
        seen, self._seen = self._seen, Seen()
        return seen

    # --- looking --------------------------------------------------------------------------------

    def list_all(self, session: Session) -> None:
        """Read every table anew.

        Raises:
            KernelError: the kernel refuses.
        """
        self.list_links(session)
        self.list_addresses(session)
        self.resync(Table.NEIGHBOURS, session.neighbours())
        self.resync(Table.FDB, session.fdb())
        self.resync(Table.ROUTES, session.routes(MAIN_TABLE, 4))
        self._seen.default_route = True

    def list_links(self, session: Session) -> None:
        """Read the links anew."""
        found = session.links()
        for index in self.by_index.keys() - found.keys():
            self._link_gone(self.by_index[index])
        for link in found.values():
            self._link_seen(link)

    def list_addresses(self, session: Session) -> None:
        """Read the addresses anew."""
        found = {
            AddressKey(address.device, address.interface): address
            for address in session.addresses()
            if address.interface.version == 4
        }
        if found != self.addresses:
            self.addresses = found
            self._seen.addresses = True
        self.resync(Table.ADDRESSES, found.values())

    def resync(self, table: Table, found: Iterable[Entry]) -> int:
        """Take a complete listing of one table; how much of it was news."""
        tracker = self.trackers[table]
        tracker.begin_audit()
        news = sum(self.saw(entry) for entry in found)
        return news + self.end_audit(table)

    def end_audit(self, table: Table) -> int:
        """End an audit: what was not seen is gone."""
        tracker = self.trackers[table]
        gone = tracker.end_audit()
        if table is Table.ROUTES and gone:
            self._defaults = {key for key in self._defaults if key in tracker.actual}
            self._seen.default_route = True
            self._doubt_foreign()
        return gone

    def saw(self, entry: Entry) -> bool:
        """An entry is in the kernel; whether that is news."""
        if not self._is_tracked(entry):
            return False
        if isinstance(entry, Route):
            entry = _steady(entry)
            if entry.protocol == PROTOCOL_PODWIRE:
                self._ours_stood.add(entry.key)
            for hop in entry.hops:
                if hop.device is not None:
                    self._routes_on[hop.device].add(entry.key)
            self._note_default(entry.key, present=entry.kind is RouteKind.UNICAST)
        news = self.trackers[table_of(entry)].saw(key_of(entry), entry)
        if news and isinstance(entry, Route):
            self._doubt_foreign(entry)
        return news

    def gone(self, entry: Entry) -> None:
        """An entry is no longer in the kernel."""
        if isinstance(entry, Route):
            if not self._is_tracked(entry):
                return
            self._note_default(entry.key, present=False)
            self._doubt_foreign(entry)
            if entry.key not in self.trackers[Table.ROUTES].desired:
                self._ours_stood.discard(entry.key)
        self.trackers[table_of(entry)].gone(key_of(entry))

    # --- events ---------------------------------------------------------------------------------

    def on_events(self, events: Iterable[Event]) -> None:
        """Take in what the kernel announces, in order."""
        for event in events:
            match event.value:
                case None:
                    self._seen.lost = True
                    self.overruns += 1
                case Link() as link:
                    (self._link_gone if event.deleted else self._link_seen)(link)
                case Address() as address:
                    self._on_address(address, deleted=event.deleted)
                case Route() | Neighbour() | FDBEntry() as entry:
                    # A neighbour that is no longer permanent is as good as gone.
                    if event.deleted or not self._is_tracked(entry):
                        self.gone(entry)
                    elif self.saw(entry) and isinstance(entry, FDBEntry):
                        self._doubt_siblings(entry)
                case _:
                    pass  # rules: we have none

    def _doubt_siblings(self, entry: FDBEntry) -> None:
        """A MAC behind another node than we knew: it may have replaced ours without a word.

        vxlan_fdb_update announces the new destination only, never the one it took away.
        """
        actual = self.trackers[Table.FDB].actual
        self._seen.lost |= any(
            isinstance(other, FDBEntry)
            and (other.device, other.mac) == (entry.device, entry.mac)
            and other.destination != entry.destination
            for other in actual.values()
        )

    def _on_address(self, address: Address, *, deleted: bool) -> None:
        if address.interface.version != 4:
            return
        key = AddressKey(address.device, address.interface)
        self._seen.addresses = True
        if not deleted:
            self.addresses[key] = address
            self.saw(address)
            return
        self.addresses.pop(key, None)
        self.gone(address)
        link = self.by_index.get(address.device)
        if link is not None and not link.name.startswith(INTERFACE_PREFIX):
            # With an address go the routes that used it as their source, and with the last one of
            # a device all its routes; the kernel announces none of them.
            self._seen.lost = True

    def _link_seen(self, link: Link) -> None:
        before = self.by_index.get(link.index)
        if before == link:
            return
        if before is not None and before.name != link.name:
            self._forget_name(before)
        self.by_index[link.index] = link
        self.links[link.name] = link
        self._seen.links.add(link.name)
        if before is not None and before.up and not link.up:
            self._routes_gone(link.index, removed=False)

    def _link_gone(self, link: Link) -> None:
        known = self.by_index.pop(link.index, None)
        if known is None:
            return
        self._forget_name(known)
        # The kernel takes a device's entries along without a word about most of them.
        self._routes_gone(link.index, removed=True)
        for table in (Table.NEIGHBOURS, Table.FDB, Table.ADDRESSES):
            tracker = self.trackers[table]
            for key, entry in tuple(tracker.actual.items()):
                if not isinstance(entry, Route) and getattr(entry, "device", None) == link.index:
                    tracker.gone(key)

    def _forget_name(self, link: Link) -> None:
        self._seen.links.add(link.name)
        holder = self.links.get(link.name)
        if holder is not None and holder.index == link.index:
            del self.links[link.name]

    def _routes_gone(self, index: int, *, removed: bool) -> None:
        """Forget the routes that went with a device.

        One with several next hops outlives a device that is only down (fib_sync_down_dev): the
        kernel marks that next hop dead, and alive again when the device is up.
        """
        tracker = self.trackers[Table.ROUTES]
        keys = self._routes_on.pop(index, set())
        for key in keys:
            route = tracker.actual.get(key)
            if not isinstance(route, Route):
                continue
            devices = {hop.device for hop in route.hops}
            if index not in devices:
                continue
            if not removed and any(self._is_up(device) for device in devices):
                self._routes_on[index].add(key)
                continue
            self._doubt_foreign(route)
            tracker.gone(key)
            self._note_default(key, present=False)

    def _is_up(self, index: int | None) -> bool:
        link = self.by_index.get(index or 0)
        return link is not None and link.up

    def _doubt_foreign(self, route: Route | None = None) -> None:
        """A route moved (None: nobody knows which); it matters when it is or was a foreign one."""
        if self._foreign is None:
            return  # nobody has asked since the last doubt
        ours = route is not None and route.protocol == PROTOCOL_PODWIRE
        if route is None or not ours or route.key.destination in self._foreign:
            self._foreign = None
            self._seen.foreign_routes = True

    def _note_default(self, key: RouteKey, *, present: bool) -> None:
        if key.destination.prefixlen != 0 or (key in self._defaults) == present:
            return
        (self._defaults.add if present else self._defaults.discard)(key)
        self._seen.default_route = True

    def _is_tracked(self, entry: Entry) -> bool:
        """Whether the entry belongs to what the loop compares.

        Routes of the main table, foreign ones too: they may stand in our way. Permanent neighbours
        of pods and VTEPs. The VTEPs' forwarding entries. Addresses of our tunnel devices.
        """
        match entry:
            case Route():
                return entry.key.table == MAIN_TABLE and entry.key.destination.version == 4
            case Neighbour():
                name = self._name(entry.device)
                ours = name == VXLAN_DEVICE or name.startswith(INTERFACE_PREFIX)
                steady = entry.state == NUD_PERMANENT and not entry.proxy
                return ours and steady and entry.address.version == 4
            case FDBEntry():
                return self._name(entry.device) == VXLAN_DEVICE and entry.destination is not None
            case Address():
                ours = self._name(entry.device) in {IPIP_DEVICE, VXLAN_DEVICE}
                return ours and entry.interface.version == 4
            case _:
                return True

    def _name(self, index: int) -> str:
        link = self.by_index.get(index)
        return "" if link is None else link.name


def _steady(route: Route) -> Route:
    """The route without what changes by itself: a hop is dead while its device has no carrier."""
    if not any(hop.dead for hop in route.hops):
        return route
    return replace(route, hops=tuple(replace(hop, dead=False) for hop in route.hops))
