"""Collector: reads the agent's parts at a scrape and has their figures exposed.

Called in a thread of the health endpoint. It asks nobody but nftables, for its counters: what other
threads change it copies in one step (`list` and `dict` of a dict cannot be interrupted). What costs
more the larger the cluster is may use one hundredth of a processor.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder

from podwire import __version__
from podwire.agent import exposition as out
from podwire.bgp.state import STATES
from podwire.desired.blocks import pool_of
from podwire.desired.entries import Table
from podwire.errors import PodwireError
from podwire.model.addressing import contains
from podwire.model.route import PROTOCOL_BIRD, PROTOCOL_PODWIRE, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from podwire.agent.sources import Sources
    from podwire.model.addressing import IPNetwork
    from podwire.model.pool import IPPool

T = TypeVar("T")

REST = 100
"""A costly figure stands for this many times what it took to find out."""
NO_POOL = "none"
OWNERS = {PROTOCOL_PODWIRE: "podwire", PROTOCOL_BIRD: "bird"}


class Remembered(Generic[T]):
    """A costly figure, found out anew when the last one is old enough."""

    def __init__(self, find_out: Callable[[], T]) -> None:
        self._find_out = find_out
        self._found: T | None = None
        self._not_before = 0.0

    def read(self) -> T:
        """The figure."""
        if self._found is None or time.monotonic() >= self._not_before:
            # The processor's time, not the clock's: a busy machine makes nothing old.
            began = time.thread_time()
            self._found = self._find_out()
            self._not_before = time.monotonic() + REST * (time.thread_time() - began)
        return self._found


class Collector:
    """All metrics of one agent; one scrape at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = ProcessCollector(registry=None)
        self._routes = Remembered(self._count_routes)
        self._claimed = Remembered(self._count_claimed)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """The text for a scraper that accepts that, and its type."""
        encode, kind = encoder(accept)
        return encode(self), kind

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield from self._node()
        yield from self._cni()
        yield from self._loop()
        yield from self._kernel()
        yield from self._ipam()
        yield from self._datastore()
        yield from self._spool()
        yield from self._publish()
        yield from self._leaks()
        yield from self._firewall()
        yield from self._bgp()
        yield from self._process.collect()

    def _node(self) -> Iterator[Metric]:
        sources = self._sources
        cluster = sources.loop.picture.mirror.cluster
        yield from out.node_metrics(
            out.NodeFigures(
                version=__version__,
                node=sources.config.node,
                routing="" if cluster is None else str(cluster.routing),
                datastore=sources.config.datastore.type,
                ready=not sources.readiness.reasons(),
                held=sources.hold.is_asked(),
                concerns=len(sources.loop.status.concerns),
                failing=sources.loop.failing(),
                endpoints=len(sources.endpoints.all()),
                nodes=len(sources.loop.picture.mirror.nodes),
            )
        )

    def _cni(self) -> Iterator[Metric]:
        calls = self._sources.calls
        return out.cni_metrics(calls.durations.read(), calls.in_flight.value)

    def _loop(self) -> Iterator[Metric]:
        loop = self._sources.loop
        overruns = loop.picture.kernel.overruns
        return out.loop_metrics(loop.pace.turns.read(), loop.pace.repairs.read(), overruns)

    def _kernel(self) -> Iterator[Metric]:
        loop = self._sources.loop
        trackers = loop.picture.kernel.trackers
        pending = {table: tracker.pending for table, tracker in trackers.items()}
        return out.kernel_metrics(
            out.KernelFigures(
                outcomes=dict(loop.applier.outcomes),
                desired={table: len(tracker.desired) for table, tracker in trackers.items()},
                pending={t: len(plan.writes) + len(plan.deletes) for t, plan in pending.items()},
                conflicts={table: len(plan.conflicts) for table, plan in pending.items()},
                unannounced=loop.applier.counters.drift,
                retaken=loop.applier.counters.retaken,
                routes=self._routes.read(),
            )
        )

    def _count_routes(self) -> dict[str, int]:
        actual = self._sources.loop.picture.kernel.trackers[Table.ROUTES].actual
        pools = self._pools()
        counts = Counter(dict.fromkeys((*OWNERS.values(), "foreign"), 0))
        for route in list(actual.values()):
            assert isinstance(route, Route)
            owner = OWNERS.get(route.protocol)
            if owner is not None or pool_of(route.key.destination, pools) is not None:
                counts[owner or "foreign"] += 1
        return dict(counts)

    def _pools(self) -> list[IPPool]:
        return list(self._sources.loop.picture.mirror.pools.values())

    def _ipam(self) -> Iterator[Metric]:
        sources, pools = self._sources, self._pools()
        incremental = sources.loop.picture.incremental
        held = frozenset() if incremental is None else incremental.blocks_of(sources.config.node)
        usages = sources.ipam.own_usage().pools
        own = [(each.pool, block) for each in usages for block in each.blocks if block.cidr in held]
        addresses: Counter[tuple[str, str]] = Counter()
        for pool, block in own:
            for state in ("in_use", "resting", "reserved", "free"):
                addresses[pool_name(pool), state] += getattr(block.count, state)
        used = [
            address.ip
            for local in sources.endpoints.all().values()
            for address in local.endpoint.addresses
        ]
        return out.ipam_metrics(
            out.IPAMFigures(
                blocks=Counter(pool_name(pool_of(block, pools)) for block in held),
                addresses=addresses,
                borrowed=sum(not any(contains(block, ip) for block in held) for ip in used),
                lent=sum(block.borrowed for _, block in own),
                sizes={pool.metadata.name: pool.cidr.num_addresses for pool in pools},
                claimed=self._claimed.read(),
            )
        )

    def _count_claimed(self) -> dict[str, int]:
        blocks: Iterable[IPNetwork] = list(self._sources.loop.picture.mirror.affinities)
        return claimed(self._pools(), blocks)

    def _datastore(self) -> Iterator[Metric]:
        sources, mirror = self._sources, self._sources.loop.picture.mirror
        observers = sources.observers()
        return out.datastore_metrics(
            out.DatastoreFigures(
                up=mirror.in_sync and not mirror.away,
                lag_s=sources.datastore_lag_s(),
                losses=sum(each.losses for each in observers),
                relists=sum(each.relists for each in observers),
                # Each observer finds it out for itself.
                restores=max((each.restores for each in observers), default=0),
                unreadable=len(mirror.unreadable),
                durations=sources.store.durations.read(),
            )
        )

    def _spool(self) -> Iterator[Metric]:
        spool = self._sources.spool
        pending = spool.pending()
        return out.spool_metrics(len(pending), spool.age_s(pending))

    def _publish(self) -> Iterator[Metric]:
        publisher = self._sources.publisher
        return out.publish_metrics(publisher.writes, publisher.waits, publisher.timeouts)

    def _leaks(self) -> Iterator[Metric]:
        sweep = self._sources.sweep
        return out.leak_metrics(
            out.LeakFigures(
                scans=sweep.looks,
                suspected=len(sweep.leaks.suspicions),
                released=sweep.leaks.released,
                handles=sweep.leftovers.handles_collected,
                nodes=sweep.leftovers.nodes_cleared,
            )
        )

    def _firewall(self) -> Iterator[Metric]:
        firewall = self._sources.loop.firewall
        try:
            counted = firewall.counters()
        except PodwireError:
            return iter(())  # a figure that cannot be had is absent, not 0
        packets = {name: each["packets"] for name, each in counted.items()}
        return out.firewall_metrics(packets, firewall.writes, firewall.element_changes)

    def _bgp(self) -> Iterator[Metric]:
        wish, report = self._sources.bird.wish, self._sources.bird.report
        if wish is None or wish.config is None:
            return iter(())
        states = {state: report.states.get(state, 0) for state in STATES}
        return out.bgp_metrics(report.version is not None and report.told is wish, states)


def claimed(pools: Sequence[IPPool], blocks: Iterable[IPNetwork]) -> dict[str, int]:
    """How many addresses of each pool lie in these blocks.

    In numbers: networks are compared ten times as slowly, and there may be thousands.
    """
    counts = {pool.metadata.name: 0 for pool in pools}
    known = sorted((*span(pool.cidr), pool.metadata.name) for pool in pools)
    for block in blocks:
        version, first, last = span(block)
        place = bisect_right(known, (version, first, float("inf"))) - 1
        if place >= 0 and known[place][0] == version and last <= known[place][2]:
            counts[known[place][3]] += last - first + 1
    return counts


def span(network: IPNetwork) -> tuple[int, int, int]:
    """Version, first and last address."""
    first = int(network.network_address)
    return network.version, first, first + (1 << network.max_prefixlen - network.prefixlen) - 1


def encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """What makes text of families, for a scraper that accepts that; and the text's type."""
    try:
        return choose_encoder(accept)
    except (ValueError, TypeError):  # it asks for a version that is none
        return choose_encoder("")


def pool_name(pool: IPPool | None) -> str:
    """The label of a block's IPPool; a block may have outlived it."""
    return NO_POOL if pool is None else pool.metadata.name
