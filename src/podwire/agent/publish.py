"""Publish: tell the other nodes which blocks this node can reach, and wait until they reach ours.

An ADD into a block that other nodes have not heard of yet would lose the pod's first packets. So
each agent writes down, under one key of its own, the remote prefixes it has routes for, and an ADD
into a fresh block waits a moment for those lines.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import TYPE_CHECKING

from podwire.errors import Compacted, DatastoreUnavailable, PodwireError, Stale
from podwire.model import keys
from podwire.model.addressing import host_network
from podwire.model.handover import Handover, encode_handover
from podwire.reconcile.backoff import delay_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.boundary import Change, Clock, Entry, Store
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.resource import JSON
    from podwire.reconcile.backoff import Draw

KEPT = 256
"""Prefixes in one publication: the latest. A wait only ever asks for a block claimed just now, and
a line of bounded length keeps the cost of a new block from growing with the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One publication."""

    blocks: tuple[str, ...] = ()
    handover: Handover | None = None

    def wire(self) -> dict[str, JSON]:
        """As it stands in the datastore."""
        wire: dict[str, JSON] = {"blocks": list(self.blocks)}
        if self.handover is not None:
            wire["handover"] = encode_handover(self.handover)
        return wire


class Publication:
    """What this node says of itself; owned by the loop's thread."""

    def __init__(self) -> None:
        self._applied: dict[IPNetwork, str] = {}
        self._handover: Handover | None = None
        self.is_news = True
        """Whether it differs from what was last handed out. True at start: an older run's line
        may stand in the datastore."""

    def add(self, prefixes: Iterable[IPNetwork]) -> None:
        """These are now reachable from here."""
        for prefix in prefixes:
            if prefix not in self._applied:
                self._applied[prefix] = str(prefix)
                self.is_news = True

    def drop(self, prefix: IPNetwork) -> None:
        """This one is no longer known here."""
        if prefix in self._applied:
            del self._applied[prefix]
            self.is_news = True

    def tell_handover(self, handover: Handover | None) -> None:
        """How far this node is with the routes changing hands; None outside a switch."""
        if handover != self._handover:
            self._handover = handover
            self.is_news = True

    def take(self) -> Line:
        """What to publish; the prefixes oldest first."""
        self.is_news = False
        latest = list(islice(reversed(self._applied.values()), KEPT))
        return Line(blocks=tuple(reversed(latest)), handover=self._handover)


class Publisher:
    """Writes this node's publication, and waits for the others'. Thread-safe."""

    def __init__(self, store: Store, node: str, clock: Clock) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()
        self._reached: set[IPNetwork] = set()
        self._silent: dict[str, str | None] = {}
        self._others: Callable[[], Iterable[str]] = tuple
        self.waits = 0
        """How often somebody had to wait."""
        self.timeouts = 0
        """How often a wait ended without every answer."""
        self.writes = 0
        """Publications written to the datastore."""

    def watch_over(self, others: Callable[[], Iterable[str]]) -> None:
        """From now on `others` names the nodes whose answers count: all that have a Node object."""
        self._others = others

    # --- this node's line -----------------------------------------------------------------------

    def publish(self, line: Line) -> bool:
        """Write this node's line if it differs; whether it was written.

        Raises:
            DatastoreUnavailable: the store is away; say it again later.
        """
        key = keys.applied_key(self._node)
        value = line.wire()
        while True:
            entry = self._store.get(key)
            if entry is not None and entry.value == value:
                return False
            try:
                if entry is None:
                    self._store.create(key, value)
                else:
                    self._store.update(key, value, entry.revision)
            except Stale:
                continue  # an older run of this agent was still writing
            self.writes += 1
            return True

    # --- the others' lines ----------------------------------------------------------------------

    def forget(self, block: IPNetwork) -> None:
        """The block is no longer ours; a later claim is news to the others again."""
        with self._lock:
            self._reached.discard(block)

    def forget_all(self) -> None:
        """The datastore was restored: what the others have published may be old."""
        with self._lock:
            self._reached.clear()
            self._silent.clear()

    def wait_applied(self, block: IPNetwork | IPAddress, timeout_s: float = 1.0) -> bool:
        """Wait until every live node has published the block (or the borrowed address).

        A node that does not answer within one wait is not waited for again until its publication
        changes. Returns whether all have answered; never raises: an ADD is not refused for this.
        """
        prefix = host_network(block) if isinstance(block, IPv4Address | IPv6Address) else block
        with self._lock:
            if prefix in self._reached:
                return True
        try:
            missing = self._wait(prefix, self._clock.monotonic() + timeout_s)
        except (DatastoreUnavailable, Compacted):
            missing = None
        with self._lock:
            self._reached.add(prefix)
            self.timeouts += 1 if missing is None or missing else 0
            self._silent.update(missing or {})
        return missing is not None and not missing

    def _wait(self, prefix: IPNetwork, deadline: float) -> dict[str, str | None]:
        """The nodes that have not answered by the deadline, with the revision of their line."""
        listing = self._store.list(keys.APPLIED)
        lines: dict[str, Entry] = {}
        for entry in listing.entries:
            self._note(lines, entry.key, entry)
        missing = self._missing(prefix, lines)
        if not missing:
            return {}
        with self._lock:
            self.waits += 1
        watch = self._store.watch(keys.APPLIED, listing.revision)
        try:
            while missing and (rest := deadline - self._clock.monotonic()) > 0:
                changes: Iterable[Change] = watch.wait(rest)
                for change in changes:
                    self._note(lines, change.key, change.entry)
                missing = self._missing(prefix, lines)
        finally:
            watch.close()
        return missing

    def _missing(self, prefix: IPNetwork, lines: dict[str, Entry]) -> dict[str, str | None]:
        text = str(prefix)
        missing: dict[str, str | None] = {}
        for node in self._others():
            line = lines.get(node)
            revision = None if line is None else line.revision
            if line is not None and text in line.value.get("blocks", ()):
                continue
            if node in self._silent and self._silent[node] == revision:
                continue
            missing[node] = revision
        return missing

    @staticmethod
    def _note(lines: dict[str, Entry], key: str, entry: Entry | None) -> None:
        node = keys.parse_applied_key(key)
        if node is None:
            return
        if entry is None:
            lines.pop(node, None)
        else:
            lines[node] = entry


class Announcer:
    """Writes the latest publication in a thread of its own; several in a row become one write."""

    def __init__(self, publisher: Publisher, draw: Draw) -> None:
        self._publisher = publisher
        self._draw = draw
        self._offered: Line | None = None
        self._wanted = threading.Event()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to write."""
        threading.Thread(target=self._run, name="announce", daemon=True).start()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()
        self._wanted.set()

    def offer(self, line: Line) -> None:
        """This is the truth now; an older one that is not written yet never will be."""
        self._offered = line
        self._wanted.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            offered = self._offered
            if offered is None or self._stopped.is_set():
                continue
            try:
                self._publisher.publish(offered)
                failures = 0
            except PodwireError:
                failures += 1
                self._stopped.wait(delay_s(failures, self._draw))
                self._wanted.set()
