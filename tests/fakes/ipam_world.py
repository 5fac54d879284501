"""A small world for IPAM tests: a datastore, several nodes, a clock set by hand, and the rules that
must hold in the datastore at every moment, between any two writes too."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from podwire.agent.endpoints import NETWORK_ANNOTATION
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.ipam.allocation import live
from podwire.ipam.records import Records
from podwire.ipam.service import IPAM, AssignRequest
from podwire.ipam.soundness import faults
from podwire.model import keys
from podwire.model.block import AffinityState, IPAMConfig
from podwire.model.codec import decode_handle, encode, key_of
from podwire.model.endpoint import KUBERNETES, WorkloadEndpoint, endpoint_name
from podwire.model.node import Node
from podwire.model.pool import IPPool, IPReservation
from podwire.model.resource import Metadata, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from podwire.boundary import Entry, Listing, Revision, Store, Watch, Write
    from podwire.model.addressing import IPAddress
    from podwire.model.block import Block, Handle
    from podwire.model.resource import Wire


class HandClock:
    """Time that moves only when told to, and by what is slept."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def now_ns(self) -> int:
        return int(self.now().timestamp()) * 1_000_000_000

    def monotonic(self) -> float:
        # Rules are remembered for a moment; here every look is a moment later.
        self.seconds += 0.000_001
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class MiddleDice:
    """Always the middle."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


class WatchedStore:
    """A store seen through two hooks: one before each call, one after each write that was tried."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.before: Callable[[], None] = nothing
        self.after_write: Callable[[], None] = nothing
        self.reads = 0

    @property
    def can_batch(self) -> bool:
        return self.inner.can_batch

    @property
    def can_expire(self) -> bool:
        return self.inner.can_expire

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        self.inner.keep(key, value, ttl_s, also, seen)

    def let_go(self, key: str) -> None:
        self.inner.let_go(key)

    def get(self, key: str) -> Entry | None:
        self._read()
        return self.inner.get(key)

    def list(self, prefix: str) -> Listing:
        self._read()
        return self.inner.list(prefix)

    def create(self, key: str, value: Wire) -> Entry:
        with self._write():
            return self.inner.create(key, value)

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        with self._write():
            return self.inner.update(key, value, revision)

    def delete(self, key: str, revision: Revision | None = None) -> None:
        with self._write():
            self.inner.delete(key, revision)

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        with self._write():
            return self.inner.batch(writes)

    def together(self) -> AbstractContextManager[None]:
        return self.inner.together()

    def check_writable(self) -> None:
        self.inner.check_writable()

    def watch(self, prefix: str, revision: Revision) -> Watch:
        return self.inner.watch(prefix, revision)

    def close(self) -> None:
        self.inner.close()

    def _read(self) -> None:
        self.before()
        self.reads += 1

    @contextmanager
    def _write(self) -> Iterator[None]:
        self.before()
        try:
            yield
        finally:
            self.after_write()


def nothing() -> None:
    """Do nothing."""


def pool(name: str, cidr: str, **fields: object) -> IPPool:
    """An IPPool of /30 blocks, unless told otherwise."""
    fields = {"block_size": 30, **fields}
    return IPPool(metadata=Metadata(name=name), cidr=ip_network(cidr), **fields)  # type: ignore[arg-type]


def pod_endpoint(
    pod: str, address: str, node: str = "a", namespace: str = "demo", container: str | None = None
) -> WorkloadEndpoint:
    """A Kubernetes pod's endpoint, of an ADD of network `net`; the container's ID is its name."""
    return WorkloadEndpoint(
        metadata=Metadata(
            name=endpoint_name(node, KUBERNETES, pod, "eth0"),
            namespace=namespace,
            annotations={NETWORK_ANNOTATION: "net"},
        ),
        orchestrator=KUBERNETES,
        node=node,
        container_id=pod if container is None else container,
        pod=pod,
        endpoint="eth0",
        interface="cali1",
        mac="02:00:00:00:00:01",
        addresses=(ip_interface(f"{address}/32"),),
    )


def reservation(name: str, *cidrs: str) -> IPReservation:
    """An IPReservation."""
    return IPReservation(
        metadata=Metadata(name=name), reserved=tuple(ip_network(cidr) for cidr in cidrs)
    )


class World:
    """A datastore with a strict IPAM configuration, and as many nodes as are asked for."""

    def __init__(self, *values: Stored, batches: bool = True, **config: object) -> None:
        self.clock = HandClock()
        self.fake = SingleObjectStore(batches=batches)
        self.store = WatchedStore(self.fake)
        self.configure(**config)
        for each in values:
            self.put(each)

    def configure(self, **config: object) -> None:
        """Write the IPAM configuration: strict unless told otherwise."""
        self.put(IPAMConfig(**{"strict_affinity": True, **config}))  # type: ignore[arg-type]

    def put(self, value: Stored) -> None:
        """Create or replace an object."""
        self.store.delete(key_of(value))
        self.store.create(key_of(value), encode(value))
        self.later(1)

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.seconds += seconds

    def node(
        self, name: str, labels: Mapping[str, str] | None = None, store: Store | None = None
    ) -> IPAM:
        """IPAM of a node, as a process that was just started."""
        if labels is not None:
            self.put(Node(metadata=Metadata(name=name, labels=labels)))
        return IPAM(self.store if store is None else store, name, self.clock, MiddleDice())

    def blocks(self) -> tuple[Block, ...]:
        """All blocks."""
        return tuple(record.value for record in Records(self.fake).blocks())

    def handles(self) -> dict[str, Handle]:
        """All handles by ID."""
        entries = self.fake.list(keys.HANDLES).entries
        found = (decode_handle(entry.key, entry.value) for entry in entries)
        return {handle.id: handle for handle in found}

    def confirmed(self) -> dict[str, list[str]]:
        """The blocks of each node whose affinity is confirmed."""
        found: dict[str, list[str]] = {}
        for record in Records(self.fake).affinities():
            if record.value.state is AffinityState.CONFIRMED:
                found.setdefault(record.value.node, []).append(str(record.value.block))
        return found

    def users(self) -> dict[IPAddress, str | None]:
        """Who has which address, according to the blocks."""
        return {
            block.cidr.network_address + ordinal: allocation.handle
            for block in self.blocks()
            for ordinal, allocation in live(block).items()
        }

    def check(self) -> None:
        """What must hold between any two writes of anybody."""
        handles = self.handles()
        held: Counter[str] = Counter()
        for node, blocks in self.confirmed().items():
            for cidr in blocks:
                held[cidr] += 1
                block = next((b for b in self.blocks() if str(b.cidr) == cidr), None)
                assert block is not None, f"{node} has confirmed {cidr}, which does not exist"
                assert block.node == node, f"{node} has confirmed {cidr} of {block.node}"
        assert all(count == 1 for count in held.values()), held
        for block in self.blocks():
            assert faults(block.wire, block.size) == (), block.wire
            sequences = [allocation.sequence for allocation in block.allocations.values()]
            assert len(set(sequences)) == len(sequences), (block.cidr, sequences)
            assert all(sequence < block.sequence for sequence in sequences)
            for handle, count in Counter(a.handle for a in live(block).values()).items():
                assert handle in handles, f"an address of {block.cidr} lacks its handle {handle}"
                counted = handles[handle].blocks.get(block.cidr, 0)
                assert counted >= count, (handle, counted, count)


def asked(handle: str, node: str = "a", **fields: object) -> AssignRequest:
    """A request of a pod on a node."""
    attributes = {"node": node, "namespace": "demo", "pod": handle}
    return AssignRequest(handle=handle, attributes=attributes, **fields)  # type: ignore[arg-type]
