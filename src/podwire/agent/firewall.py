"""Keeps this node's tables of nftables as they should be.

A table is read before it is written: a restart that finds it right writes nothing. Nodes and pods
that come and go change single elements. Without us the rules go on in the kernel; where they are
missing, pods go on unguarded, which is better than not at all (docs/adr/0013).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from podwire.desired import nfttables
from podwire.desired.elements import Elements
from podwire.desired.firewall import Firewall, firewall, of_endpoint, of_node
from podwire.drivers.nft import NftDoor, list_table, write_rules
from podwire.errors import PodwireError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podwire.agent.endpoints import LocalEndpoint
    from podwire.boundary import Clock
    from podwire.desired.nfttables import Table
    from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
    from podwire.model.node import Node
    from podwire.model.snapshot import Snapshot

RETRY_S = 10.0
"""How soon a refused write is tried again."""
RETRY_UNSUPPORTED_S = 600.0
"""The same where program or kernel lacks what is needed: that rarely comes while we run."""
FORMER_S = 30.0
"""How long a node that moves may go on sending from the address it had: not all hear at once."""
PAUSE_S = 0.2
"""Between two writes of one table, however fast another program undoes them."""
GUARDS = {
    "ip": "natOutgoing, source addresses of pods and tunnels",
    "ip6": "IPv6 source addresses of pods",
    "arp": "ARP of pods",
}
"""Family of each table → what it is about."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _NodeName:
    name: str
    former: bool = False
    """Who wants the addresses that the node had a moment ago."""


class FirewallKeeper:
    """One node's tables: the loop settles, an ADD admits its pod before it can send."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()
        """Over elements and door: an ADD and the loop must not undo each other's."""
        self._door: NftDoor | None = None
        self._wanted: Firewall | None = None
        self._decided: tuple[tuple[object, ...], Firewall] | None = None
        """Pools and settings, and what follows from them."""
        self._elements = Elements()
        self._local: Mapping[AttachmentKey, LocalEndpoint] = {}
        self._former: dict[str, float] = {}
        """Node that moved → until when its former addresses count."""
        self._unsure = set(GUARDS)
        """Families whose table is to be compared with the wanted one."""
        self._told: dict[str, tuple[Table, Table]] = {}
        """Family → a table as we wrote it, and how this nft tells it where its words differ."""
        self._not_before: dict[str, float] = {}
        self._problems: dict[str, PodwireError] = {}
        self._others = True
        self.writes = 0
        """Tables written as a whole."""
        self.element_changes = 0
        try:
            self._door = NftDoor()
        except Unsupported as error:
            self._problems = dict.fromkeys(GUARDS, error)

    # --- look -----------------------------------------------------------------------------------

    def fileno(self) -> int | None:
        """Readable when somebody changed rules; None without nf_tables."""
        return None if self._door is None else self._door.fileno()

    def look(self) -> None:
        """Hear whether anybody else has changed any rules."""
        if self._door is None:
            return
        touched = self._door.touched()
        self._others |= touched.others
        if touched.ours:
            with self._lock:
                self._unsure |= GUARDS.keys()

    def take_others(self) -> bool:
        """Whether other tables may have changed since the last call."""
        others, self._others = self._others, False
        return others

    def drops_forwarded(self) -> bool:
        """Whether any chain drops forwarded packets unless a rule accepts them."""
        with self._lock, suppress(PodwireError):
            return self._door is not None and self._door.drops_forwarded()
        return False

    def may_spoof(self) -> bool:
        """Whether pods may send from prefixes that are allowed to them besides their addresses."""
        return self._wanted is not None and self._wanted.spoofing

    # --- act ------------------------------------------------------------------------------------

    def settle(
        self,
        snapshot: Snapshot,
        moved: Iterable[str],
        endpoints: Callable[[], Mapping[AttachmentKey, LocalEndpoint]],
    ) -> None:
        """Write what is missing; quick when nothing is.

        `moved` are the names of the nodes that came, changed or went since the last call.
        """
        wanted = self._decide(snapshot)
        with self._lock:
            if wanted != self._wanted:
                self._unsure |= GUARDS.keys()
                if self._wanted is None:
                    moved = snapshot.nodes
                if self._wanted is None or wanted.spoofing != self._wanted.spoofing:
                    self._local = {}
                self._wanted = wanted
            for name in moved:
                self._take_node(name, snapshot.nodes.get(name))
            self._forget_former()
            # Asked under the lock: whoever is admitted after this is in what comes next.
            self._take_endpoints(endpoints(), wanted)
            if self._door is not None:
                self._compare(self._door, wanted)
                self._change(self._door)

    def _decide(self, snapshot: Snapshot) -> Firewall:
        """What follows from pools and settings; decided again only when one of them is another."""
        basis = (*snapshot.pools.values(), *snapshot.felix.items())
        if self._decided is None or self._decided[0] != basis:
            self._decided = (basis, firewall(snapshot, self._node))
        return self._decided[1]

    def _take_node(self, name: str, node: Node | None) -> None:
        owner, former = _NodeName(name), _NodeName(name, former=True)
        now = frozenset() if node is None else of_node(node)
        gone = self._elements.of(owner) - now
        self._elements.put(owner, now)
        if node is None:
            self._elements.put(former)
            self._former.pop(name, None)
        elif gone:
            self._elements.put(former, self._elements.of(former) | gone)
            self._former[name] = self._clock.monotonic() + FORMER_S

    def _forget_former(self) -> None:
        now = self._clock.monotonic()
        for name in [name for name, until in self._former.items() if until <= now]:
            del self._former[name]
            self._elements.put(_NodeName(name, former=True))

    def _take_endpoints(
        self, local: Mapping[AttachmentKey, LocalEndpoint], wanted: Firewall
    ) -> None:
        if local is self._local:
            return
        for key in local.keys() | self._local.keys():
            now = local.get(key)
            if now is None:
                self._elements.put(key)
            elif now is not self._local.get(key):
                self._elements.put(key, of_endpoint(now.endpoint, spoofing=wanted.spoofing))
        self._local = local

    def _compare(self, door: NftDoor, wanted: Firewall) -> None:
        """Read the tables that are in doubt, and write those that differ."""
        now = self._clock.monotonic()
        due = sorted(each for each in self._unsure if self._not_before.get(each, now) <= now)
        if not due:
            return
        self._heed_others(door)
        tables = nfttables.tables(wanted)
        for family in due:
            elements = self._elements.wanted(family)
            try:
                self._make(door, family, nfttables.with_elements(tables[family], elements))
            except PodwireError as error:
                self._refused(family, error)
                continue
            self._unsure.discard(family)
            self._problems.pop(family, None)
            self._elements.found(family, elements)

    def _make(self, door: NftDoor, family: str, wanted: Table) -> None:
        known = family in door.families()
        found = nfttables.parse(list_table(family)) if known else None
        if found == wanted or (wanted, found) == self._told.get(family):
            return
        write_rules(nfttables.script(family, wanted, found))
        self.writes += 1
        self._not_before[family] = self._clock.monotonic() + PAUSE_S
        # What was said until now is about this; the listing tells the rest.
        self._heed_others(door)
        told = nfttables.parse(list_table(family))
        if told != wanted:
            self._told[family] = (wanted, told)

    def _heed_others(self, door: NftDoor) -> None:
        self._others |= door.touched().others

    def _change(self, door: NftDoor) -> None:
        deleted, added = self._elements.changes()
        ready = GUARDS.keys() - self._unsure
        deleted = tuple(each for each in deleted if each.family in ready)
        added = tuple(each for each in added if each.family in ready)
        if deleted or added:
            try:
                door.change(deleted, added)
            except PodwireError as error:
                # Somebody else was at work there: the next turn compares all of it.
                log.warning("elements not written", error=error.message)
                self._unsure |= {each.family for each in (*deleted, *added)}
                return
            self._elements.changed(deleted, added)
            self.element_changes += len(deleted) + len(added)
        # Of a table in doubt all elements are compared.
        self._elements.settled()

    def _refused(self, family: str, error: PodwireError) -> None:
        if family not in self._problems:
            log.warning("firewall not written", family=family, error=error.message)
        self._problems[family] = error
        wait_s = RETRY_UNSUPPORTED_S if isinstance(error, Unsupported) else RETRY_S
        self._not_before[family] = self._clock.monotonic() + wait_s

    def admit(self, endpoint: WorkloadEndpoint) -> None:
        """Put the elements of a pod in before it can send; from any thread, and never refused.

        The endpoint is among the local ones already. Where a table is missing or is being made,
        the loop puts them in with all others.
        """
        with self._lock:
            if self._door is None or self._wanted is None:
                return
            added = tuple(
                each
                for each in of_endpoint(endpoint, spoofing=self._wanted.spoofing)
                if each.family not in self._unsure and each not in self._elements.there
            )
            if not added:
                return
            try:
                self._door.change((), added)
            except PodwireError as error:
                log.warning("pod not admitted yet", interface=endpoint.interface, error=str(error))
                self._unsure |= {each.family for each in added}
                return
            self._elements.changed((), added)
            self.element_changes += len(added)

    # --- tell -----------------------------------------------------------------------------------

    def concerns(self) -> tuple[str, ...]:
        """Why tables are not as they should be."""
        problems = self._problems
        return tuple(
            f"not guarded: {guarded}: {problems[family]}"
            for family, guarded in GUARDS.items()
            if family in problems
        )

    def next_wait_s(self) -> float | None:
        """Seconds until a table is tried again, or a former address goes; None when none waits."""
        now = self._clock.monotonic()
        waits = [self._not_before.get(each, now) - now for each in self._unsure]
        waits += [until - now for until in self._former.values()]
        return min((wait for wait in waits if wait > 0), default=None)

    def counters(self) -> dict[str, dict[str, int]]:
        """What was dropped, or translated, since the tables were made; from any thread."""
        found = {name: {"packets": 0, "bytes": 0} for name in nfttables.COUNTERS.values()}
        with self._lock:
            listed = () if self._door is None else self._door.counters()
        for counter in listed:
            name = nfttables.COUNTERS.get(counter.name)
            if name is not None:
                found[name]["packets"] += counter.packets
                found[name]["bytes"] += counter.bytes
        return found

    def as_json(self) -> dict[str, Any]:
        """For the status; from any thread."""
        return {
            "tables": [each for each in GUARDS if each not in self._problems],
            "counters": self.counters(),
            "writes": self.writes,
            "elementChanges": self.element_changes,
        }
