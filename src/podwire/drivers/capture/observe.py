"""Observe: arm the taps, send the probes, gather what was seen of them."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.capture.filters import probe_filter
from podwire.drivers.capture.probe import Prober
from podwire.drivers.capture.taps import RING_BYTES, SNAP_BYTES, Taps
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import BadInput, Unsupported
from podwire.trace.coldarp import learnt
from podwire.trace.flow import Protocol
from podwire.trace.observation import Observation, Role, Seen, Sent, Sighting
from podwire.trace.probe import MARK_BYTES, Series
from podwire.trace.recognise import Recogniser, in_order, numbered, recognise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address

    from podwire.model.addressing import IPAddress
    from podwire.trace.flow import Flow
    from podwire.trace.observation import TapReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much an observation may take."""

    interval_s: float = 0.2
    """The longest wait for an answer before the next probe goes out."""
    timeout_s: float = 0.5
    """The longest wait for an answer to the last one."""
    arp_timeout_s: float = 3.8
    """The same while ARP asks in vain: the kernel asks three times, a second apart, before it
    gives up and tells the sender."""
    frames: int = 1 << 14
    """Frames that are kept."""


def new_series(
    source: IPAddress,
    destination: IPAddress,
    flow: Flow,
    *,
    count: int = 3,
    ttl: int | None = None,
) -> Series:
    """A series of probes with fresh cookies for a flow.

    Raises:
        BadInput: the flow cannot be made into a packet.
        Unsupported: it is IPv6.
    """
    if source.version != 4 or destination.version != 4:
        raise Unsupported("no IPv6 probe can be made", fix="use IPv4 addresses")
    if flow.protocol is not Protocol.ICMP and flow.port is None:
        raise BadInput(f"a {flow.protocol} probe needs a port")
    return Series(
        protocol=flow.protocol,
        source=source,
        destination=destination,
        length=flow.length,
        mark=secrets.token_bytes(MARK_BYTES),
        seed=secrets.randbits(32),
        source_port=0 if flow.port is None else flow.source_port,
        port=flow.port or 0,
        df=flow.df,
        ttl=ttl,
        count=count,
    )


def observe(
    spaces: Mapping[int, int],
    inode: int,
    series: Series,
    *,
    path: Sequence[tuple[int, str | None, str]] = (),
    limits: Limits | None = None,
    forget: Mapping[int, frozenset[IPAddress]] | None = None,
) -> Observation:
    """Send a series of probes from one namespace and say where each of them was seen.

    `spaces`: descriptors by inode of all namespaces to watch, the sending one among them.
    `path`: the places (inode, interface, side) in the order in which the packet should pass them;
    it decides between equal times only. `forget`: by inode the neighbours that ARP has learnt and
    that are forgotten before the first probe, so that the question is seen too.

    Raises:
        BadInput: the sending namespace is not among `spaces`.
        Forbidden: packets may not be watched or sent.
    """
    if inode not in spaces:
        raise BadInput(f"netns:[{inode}] sends the probes and is not watched")
    run = _Run(inode=inode, series=series, limits=limits or Limits())
    # A big probe passes each place in many pieces, all of them at once.
    ring_bytes = RING_BYTES + 32 * series.length
    start = time.time_ns()
    with Taps.open(spaces, probe_filter(series, SNAP_BYTES), ring_bytes=ring_bytes) as taps:
        for each in (forget or {}).keys() & spaces.keys():
            namespaces.call_in(spaces[each], _forget_here, (forget or {})[each])
        with Prober.open(spaces[inode], series) as prober:
            for number in range(series.count):
                run.sent.append(prober.send(number))
                last = number == series.count - 1
                run.gather(taps, run.limits.timeout_s if last else run.limits.interval_s)
            run.keep(taps.read())
            reports, end = taps.reports(), time.time_ns()
    return run.observation(path, reports, (start, end))


@dataclass(slots=True, kw_only=True)
class _Run:
    """One observation under way."""

    inode: int
    series: Series
    limits: Limits
    sent: list[Sent] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    complete: bool = True
    pending_arp: set[IPv4Address] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    recogniser: Recogniser = field(init=False)

    def __post_init__(self) -> None:
        self.recogniser = Recogniser(self.series)

    def gather(self, taps: Taps, wait_s: float) -> None:
        """Take in sightings until every probe sent so far has its end, or time is over."""
        start = time.monotonic()
        while not self.finished():
            arp = self.pending_arp and self.last
            limit = max(wait_s, self.limits.arp_timeout_s) if arp else wait_s
            left = start + limit - time.monotonic()
            if left <= 0:
                return
            self.keep(taps.read(min(left, 0.1)))

    @property
    def last(self) -> bool:
        return len(self.sent) == self.series.count

    def finished(self) -> bool:
        """Whether nothing more is to come of the probes sent so far."""
        waited_for = {each.probe for each in self.sent if each.errno is None}
        return waited_for <= self.done

    def keep(self, found: list[Sighting]) -> None:
        """Store sightings, and notice what tells that a probe is over."""
        room = self.limits.frames - len(self.sightings)
        if len(found) > room:
            self.complete = False
            found = found[:room]
        self.sightings += found
        for sighting in found:
            seen = self.recogniser.recognise(sighting)
            if seen is not None:
                self._notice(seen)

    def _notice(self, seen: Seen) -> None:
        arp = seen.frame.arp
        if arp is not None:
            if arp.answer:
                self.pending_arp.discard(arp.sender)
            elif arp.sender != arp.target:
                self.pending_arp.add(arp.target)
            return
        home = seen.sighting.inode == self.inode and seen.sighting.side == "in"
        if not home or seen.role not in {Role.REPLY, Role.ERROR} or seen.about_reply:
            return
        packet = seen.packet
        if packet is None or packet.inner is not None or packet.destination != self.series.source:
            return
        if seen.frame.ip is not None and seen.frame.ip.more_fragments:
            return
        # An answer without a number ends the oldest that waits.
        number = seen.probe
        if number is None:
            waiting = [each.probe for each in self.sent if each.probe not in self.done]
            number = waiting[0] if waiting else None
        if number is not None:
            self.done.add(number)

    def observation(
        self,
        path: Sequence[tuple[int, str | None, str]],
        reports: tuple[TapReport, ...],
        window: tuple[int, int],
    ) -> Observation:
        """Everything in order."""
        start, end = window
        ordered = in_order(self.sightings, path)
        return Observation(
            series=self.series,
            inode=self.inode,
            sent=tuple(self.sent),
            seen=numbered(recognise(ordered, self.series), self.sent),
            taps=reports,
            complete=self.complete,
            unordered=sum(not start <= each.timestamp_ns <= end for each in ordered),
        )


def _forget_here(targets: frozenset[IPAddress]) -> None:
    """Delete what ARP has learnt of them; permanent entries are somebody's configuration."""
    with Session.open() as session:
        found = [each for each in session.neighbours() if learnt(each) and each.address in targets]
        session.apply([requests.delete_neighbour(each) for each in found])
