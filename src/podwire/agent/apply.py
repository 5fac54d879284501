"""Apply: carry out what is pending, in an order with reasons, in pieces that delay nobody.

The order:
1. tunnel devices: all else about tunnels stands on them;
2. sysctls: a device must be told to be lenient before packets come;
3. addresses: a route through the tunnel takes its source address from there. New ones before old
   ones go: with the last address of a device the kernel drops all its routes;
4. neighbours and forwarding entries: a route must not lead to a VTEP nobody can find;
5. routes.
What is superfluous goes afterwards, in the opposite order. A route with the same key is replaced,
never deleted first.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, assert_never

from podwire.desired.entries import Entry, Key, Sysctl, Table, table_of_key
from podwire.desired.tunnel import LinkStep, TunnelLink, decide_link
from podwire.drivers import sysctl
from podwire.drivers.netlink import requests
from podwire.errors import KernelError, NotThere, PodwireError, Unsupported
from podwire.model.link import HOST_MAC, INTERFACE_PREFIX, IPIP_DEVICE, VXLAN_DEVICE, Address
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import PROTOCOL_PODWIRE, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podwire.agent.kernel import Kernel
    from podwire.boundary import Clock
    from podwire.drivers.netlink.request import Request
    from podwire.drivers.netlink.session import Session
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.reconcile.backoff import Failures

PIECE = 48
"""Changes in one go: a millisecond or two, then others may have their turn."""
DELETE_GRACE_S = 10.0
"""How long something of ours on a pod's interface may be unexplained before it is deleted."""
WRITE_GRACE_S = 0.2
"""How long something may be missing on a pod's interface before the loop writes it: an ADD or DEL
at work writes it itself, and two writers of one route would only get in each other's way."""
LINKS = "links"
"""What devices are counted under: they are no table."""

MOVE_GRACE_S = 0.3
"""How long the tunnel stays on an address that is still there: others must hear of the new one."""


@dataclass(slots=True)
class Counters:
    """What the loop did since it started; shown in status."""

    turns: int = 0
    writes: int = 0
    """Kernel objects written: created, replaced or set."""
    deletes: int = 0
    refused: int = 0
    repaired: int = 0
    """Of those written: what had been right, and had changed or gone without us."""
    audits: int = 0
    drift: int = 0
    """Differences an audit found that no event had told of."""
    retaken: int = 0
    """Routes of ours that had been replaced by hand, and stand again."""


class Applier:
    """Writes pending changes of one node's kernel; owned by the loop's thread."""

    def __init__(
        self, session: Session, kernel: Kernel, clock: Clock, failures: Failures[Key | str]
    ) -> None:
        self._session = session
        self._kernel = kernel
        self._clock = clock
        self._failures = failures
        self._waiting: dict[Key, float] = {}
        """Since when something about a pod's interface is out of order."""
        self._moving: tuple[IPAddress | None, float] | None = None
        """The address that vxlan.calico is to leave, and when."""
        self.counters = Counters()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """The same by table (or `links`) and outcome: written, repaired, deleted, refused."""
        self.routes_doubtful = False
        """The kernel holds a route we did not know of: list them."""

    # --- tunnel devices -------------------------------------------------------------------------

    def apply_links(self, wanted: Sequence[TunnelLink]) -> bool:
        """Bring the tunnel devices into shape; whether anything was changed.

        Devices that are no longer wanted lose the name first: a vxlan's VNI and port are taken as
        long as the old device lives.
        """
        by_name = {link.name: link for link in wanted}
        changed = False
        for name in (VXLAN_DEVICE, IPIP_DEVICE):
            step = decide_link(by_name.get(name), self._kernel.links.get(name))
            if step is LinkStep.NOTHING:
                self._failures.succeeded(name)
            elif step is LinkStep.MOVE and self._is_early(name):
                continue
            elif self._failures.may_try(name, self._clock.monotonic()):
                changed |= self._link(name, step, by_name.get(name))
        return changed

    def _is_early(self, name: str) -> bool:
        """Whether others may not have heard of our new address yet, and the old one still serves.

        They take a tunnel's packets only from addresses that they know to be a node's.
        """
        link = self._kernel.links[name]
        local = None if link.vxlan is None else link.vxlan.local
        if all(each.interface.ip != local for each in self._kernel.addresses.values()):
            return False
        now = self._clock.monotonic()
        if self._moving is None or self._moving[0] != local:
            self._moving = (local, now + MOVE_GRACE_S)
        return now < self._moving[1]

    def _link(self, name: str, step: LinkStep, wanted: TunnelLink | None) -> bool:
        try:
            self._session.run(*link_requests(name, step, wanted))
        except KernelError as error:
            if step is LinkStep.MOVE:
                # A kernel that cannot, or a moment at which it would not: the sure way instead.
                return self._link(name, LinkStep.RECREATE, wanted)
            if step is LinkStep.CREATE and error.errno == errno.EEXIST:
                # Asking for tunl0 loads the module, which makes it: it is there now.
                self._failures.succeeded(name)
                return True
            self._refused(name, link_refusal(name, error))
            return False
        except PodwireError as error:
            self._refused(name, error)
            return False
        self._failures.succeeded(name)
        self._wrote(LINKS)
        return True

    def apply_pod_links(self, names: Iterable[str]) -> None:
        """Set the host sides of these pods up, with the MAC all of them have."""
        for name in names:
            link = self._kernel.links.get(name)
            if link is None or not self._failures.may_try(name, self._clock.monotonic()):
                continue
            try:
                self._session.run(requests.set_link(link.index, up=True, mac=HOST_MAC))
            except PodwireError as error:
                self._refused(name, error)
            else:
                self._failures.succeeded(name)
                self._wrote(LINKS)

    def delete_stray(self, link: Link) -> None:
        """Delete a veth that carries our mark and belongs to nothing."""
        try:
            self._session.run(requests.delete_link(link.index))
        except NotThere:
            pass
        except PodwireError as error:
            self._refused(link.name, error)
        else:
            self._deleted(LINKS)

    def delete_foreign(self, routes: Sequence[Route]) -> None:
        """Delete routes that another program left behind and that we answer for now."""
        answers = self._session.apply([delete_request(route) for route in routes])
        for route, error in zip(routes, answers, strict=True):
            if error is None or isinstance(error, NotThere) or error.errno in ABSENT:
                self._kernel.gone(route)
                self._deleted(Table.ROUTES)

    # --- tables ---------------------------------------------------------------------------------

    def apply_piece(self, *, may_delete: bool) -> bool:
        """Carry out at most `PIECE` pending changes; whether more may be left to do now."""
        for table in WRITE_ORDER:
            keys = list(islice(self._writable(table), PIECE))
            if keys:
                self._write(table, keys)
                return True
        if may_delete:
            for table in reversed(WRITE_ORDER):
                keys = list(islice(self._deletable(table), PIECE))
                if keys:
                    self._delete(table, keys)
                    return True
        return False

    def next_wait_s(self) -> float | None:
        """Seconds until something that waits may be done; None when nothing waits."""
        now = self._clock.monotonic()
        moments = [
            since + (WRITE_GRACE_S if self._is_missing(key) else DELETE_GRACE_S)
            for key, since in self._waiting.items()
        ]
        retry = self._failures.next_try()
        if retry is not None:
            moments.append(retry)
        if self._moving is not None and self._moving[1] > now:
            moments.append(self._moving[1])
        return max(0.0, min(moments) - now) if moments else None

    def settle(self) -> None:
        """Forget the waits and failures of what is in order again, whoever did it."""
        for key in [key for key in self._waiting if not self._is_pending(key)]:
            del self._waiting[key]
        for failed in self._failures:
            if not isinstance(failed, str) and not self._is_pending(failed):
                self._failures.succeeded(failed)

    def _writable(self, table: Table) -> Iterator[Key]:
        now = self._clock.monotonic()
        for key, entry in self._kernel.trackers[table].pending.writes.items():
            if self._failures.may_try(key, now) and self._is_due(key, entry, WRITE_GRACE_S, now):
                yield key

    def _deletable(self, table: Table) -> Iterator[Key]:
        now = self._clock.monotonic()
        for key, entry in self._kernel.trackers[table].pending.deletes.items():
            if self._failures.may_try(key, now) and self._is_due(key, entry, DELETE_GRACE_S, now):
                yield key

    def _is_due(self, key: Key, entry: Entry, grace_s: float, now: float) -> bool:
        if not self._on_pod_interface(entry):
            return True
        return now >= self._waiting.setdefault(key, now) + grace_s

    def _is_missing(self, key: Key) -> bool:
        return key in self._kernel.trackers[table_of_key(key)].pending.writes

    def _is_pending(self, key: Key) -> bool:
        pending = self._kernel.trackers[table_of_key(key)].pending
        return key in pending.writes or key in pending.deletes

    def _on_pod_interface(self, entry: Entry) -> bool:
        match entry:
            case Sysctl():
                return f"/{INTERFACE_PREFIX}" in entry.name
            case Route():
                devices = [hop.device for hop in entry.hops]
            case Neighbour():
                devices = [entry.device]
            case _:
                return False
        found = (self._kernel.by_index.get(device) for device in devices if device is not None)
        return any(link is not None and link.name.startswith(INTERFACE_PREFIX) for link in found)

    def _write(self, table: Table, keys: Sequence[Key]) -> None:
        tracker = self._kernel.trackers[table]
        entries = [(key, tracker.pending.writes[key]) for key in keys]
        if table is Table.SYSCTLS:
            self._write_sysctls(entries)
            return
        before = [tracker.actual.get(key) for key, _ in entries]
        made = [
            write_request(entry, fresh=was is None)
            for (_, entry), was in zip(entries, before, strict=True)
        ]
        answers = self._session.apply(made)
        for (key, entry), was, error in zip(entries, before, answers, strict=True):
            if error is None:
                if isinstance(was, Route) and was.protocol != PROTOCOL_PODWIRE:
                    self.counters.retaken += 1
                self._wrote(table, key)
                self._kernel.saw(entry)
                self._failures.succeeded(key)
            else:
                if error.errno == errno.EEXIST and self._failures.find(key) is not None:
                    self.routes_doubtful = True
                self._refused(key, error)

    def _write_sysctls(self, entries: Sequence[tuple[Key, Entry]]) -> None:
        for key, entry in entries:
            assert isinstance(entry, Sysctl)
            try:
                if sysctl.write(entry.name, entry.value):
                    self._wrote(Table.SYSCTLS, key)
            except NotThere:
                # This kernel has no such switch (IPv6), or the device has gone: nothing to do.
                pass
            except PodwireError as error:
                self._refused(key, error)
                continue
            self._failures.succeeded(key)
            self._kernel.saw(entry)

    def _delete(self, table: Table, keys: Sequence[Key]) -> None:
        tracker = self._kernel.trackers[table]
        entries = [(key, tracker.pending.deletes[key]) for key in keys]
        answers = self._session.apply([delete_request(entry) for _, entry in entries])
        for (key, entry), error in zip(entries, answers, strict=True):
            if error is None or isinstance(error, NotThere) or error.errno in ABSENT:
                self._kernel.gone(entry)
                self._failures.succeeded(key)
                self._deleted(table)
            else:
                self._refused(key, error)

    def _wrote(self, table: str, key: Key | None = None) -> None:
        self.counters.writes += 1
        self.outcomes[table, "written"] += 1
        if key is not None and key in self._kernel.trackers[table_of_key(key)].drifted:
            self.counters.repaired += 1
            self.outcomes[table, "repaired"] += 1

    def _deleted(self, table: str) -> None:
        self.counters.deletes += 1
        self.outcomes[table, "deleted"] += 1

    def _refused(self, key: Key | str, error: PodwireError) -> None:
        self.counters.refused += 1
        self.outcomes[LINKS if isinstance(key, str) else table_of_key(key), "refused"] += 1
        self._failures.failed(key, error, self._clock.monotonic())


WRITE_ORDER = (Table.SYSCTLS, Table.ADDRESSES, Table.NEIGHBOURS, Table.FDB, Table.ROUTES)
ABSENT = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})


def link_requests(name: str, step: LinkStep, wanted: TunnelLink | None) -> tuple[Request, ...]:
    """What brings one tunnel device into shape."""
    if wanted is None or step is LinkStep.DELETE:
        return (requests.delete_link(name),)
    up = requests.set_link(name, up=True, mtu=wanted.mtu)
    match step:
        case LinkStep.CREATE:
            return (_create(wanted), up)
        case LinkStep.RECREATE:
            return (requests.delete_link(name), _create(wanted), up)
        case LinkStep.MOVE:
            assert wanted.vxlan is not None
            return (requests.move_vxlan(name, wanted.vxlan), up)
        case LinkStep.CHANGE:
            return (up,)
        case LinkStep.NOTHING:
            return ()
        case _:
            assert_never(step)


def _create(wanted: TunnelLink) -> Request:
    if wanted.vxlan is None:
        return requests.create_ipip(wanted.name)
    return requests.create_vxlan(wanted.name, wanted.vxlan, mac=wanted.mac, mtu=wanted.mtu)


def link_refusal(name: str, error: KernelError) -> PodwireError:
    """Say in the field's words why a tunnel device cannot be made."""
    if error.errno not in {errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT}:
        return error
    kind = "ipip" if name == IPIP_DEVICE else "vxlan"
    return Unsupported(
        f"{name}: this kernel has no {kind}",
        fix=f"load the module {kind}, or choose another encapsulation for the IPPool",
    )


def write_request(entry: Entry, *, fresh: bool) -> Request:
    """The request that puts an entry into the kernel.

    A route whose key was free a moment ago is created, not replaced: whoever took the key in
    between keeps it, and we hear of it.
    """
    match entry:
        case Route():
            return requests.create_route(entry) if fresh else requests.replace_route(entry)
        case Neighbour():
            return requests.replace_neighbour(entry)
        case FDBEntry():
            return requests.replace_fdb(entry)
        case Address():
            return requests.replace_address(entry)
        case Sysctl():
            raise AssertionError("sysctls are written as files")
        case _:
            assert_never(entry)


def delete_request(entry: Entry) -> Request:
    """The request that takes an entry out of the kernel."""
    match entry:
        case Route():
            return requests.delete_route(entry)
        case Neighbour():
            return requests.delete_neighbour(entry)
        case FDBEntry():
            return requests.delete_fdb(entry)
        case Address():
            return requests.delete_address(entry)
        case Sysctl():
            raise AssertionError("a sysctl is not deleted")
        case _:
            assert_never(entry)
