"""The datastore of many hosts: etcd v3, in Calico's layout.

Revisions are etcd's modification revisions, so an object has the same one for every client.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from podwire.boundary import Listing, Verb, Write
from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.client import COMPACT, RANGE, STATUS, TXN, Client
from podwire.drivers.store.etcd.lease import Lease
from podwire.drivers.store.etcd.transaction import (
    entry_of,
    is_carried_out,
    key_bytes,
    refusal,
    transaction,
    written,
)
from podwire.drivers.store.etcd.watch import EtcdWatch, Position, parse_position, restored
from podwire.errors import Compacted, Conflict, DatastoreUnavailable, Unsupported
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from podwire.boundary import Entry, Revision
    from podwire.model.config import EtcdConfig
    from podwire.model.resource import Wire

PAGE = 1_000
"""Objects asked for at once; etcd answers nobody else while it gathers them, and a few megabytes
come through a slow line before an endpoint's time is over."""
LISTINGS = 5
"""How often a listing is begun when what it began with is forgotten before it has ended."""
NO_KEYS_REVISION = "1"
"""An empty etcd begins with it, so no key was ever written at it."""
MOST_WRITES = 128
"""Writes in one transaction (etcd's --max-txn-ops)."""


class EtcdStore:
    """A Store in an etcd cluster (3.4 or later)."""

    def __init__(self, config: EtcdConfig) -> None:
        self._client = Client(config)
        self._leases: dict[str, Lease] = {}

    @property
    def can_batch(self) -> bool:
        """Yes: transactions."""
        return True

    @property
    def can_expire(self) -> bool:
        """Yes: leases."""
        return True

    def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        answer = self._client.call(RANGE, pb.RangeRequest(key=key_bytes(key)))
        return entry_of(answer.kvs[0]) if answer.kvs else None

    def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        for _ in range(LISTINGS):
            with suppress(Compacted):
                return self._list(prefix)
        raise DatastoreUnavailable(
            f"{self._client.name} forgets what is below {prefix} faster than it can be read",
            fix="let it be compacted less often",
        )

    def _list(self, prefix: str) -> Listing:
        start, end = prefix_range(prefix)
        lineage = self._client.lineage.known.number
        found: list[Entry] = []
        revision = 0
        while True:
            answer = self._client.call(
                RANGE,
                pb.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision),
            )
            # All pages show the moment of the first.
            revision = revision or answer.header.revision
            found += map(entry_of, answer.kvs)
            if self._client.lineage.known.number != lineage:
                raise restored(self._client)
            if not answer.more:
                position = Position(revision, lineage)
                return Listing(entries=tuple(found), revision=str(position))
            start = bytes(answer.kvs[-1].key) + b"\0"

    def create(self, key: str, value: Wire) -> Entry:
        """See `Store.create`."""
        return self._one(Write(verb=Verb.CREATE, key=key, value=value))

    def update(self, key: str, value: Wire, revision: Revision) -> Entry:
        """See `Store.update`."""
        return self._one(Write(verb=Verb.UPDATE, key=key, value=value, revision=revision))

    def delete(self, key: str, revision: Revision | None = None) -> None:
        """See `Store.delete`."""
        self.batch((Write(verb=Verb.DELETE, key=key, revision=revision),))

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """See `Store.batch`.

        Raises:
            Unsupported: there are more writes, or bytes, than etcd takes in one transaction.
        """
        if len(writes) > MOST_WRITES:
            raise Unsupported(
                f"{len(writes)} writes at once: etcd takes at most {MOST_WRITES}",
                fix=f"write at most {MOST_WRITES} objects at once",
            )
        answer, repeated = self._client.ask(TXN, transaction(writes))
        if answer.succeeded:
            revision = str(answer.header.revision)
            return [written(write, revision) for write in writes]
        there = [
            entry_of(each.response_range.kvs[0]) if each.response_range.kvs else None
            for each in answer.responses
        ]
        # The first try may have been carried out, and only its answer was lost. What it compared
        # with is then gone, so the second fails; but what stands there is what was to be written.
        if repeated and all(map(is_carried_out, writes, there)):
            return there
        raise refusal(writes, there)

    def keep(
        self,
        key: str,
        value: Wire,
        ttl_s: int,
        also: Mapping[str, Wire],
        seen: Revision | None = None,
    ) -> None:
        """See `Store.keep`."""
        self._leases.setdefault(key, Lease(self._client, ttl_s)).write(key, value, also, seen)
        # Nobody has to hear of it here, the next watch does; but the longer etcd's log is known to
        # be, the longer a restored one is told by its own.
        self._client.look_at_log()

    def let_go(self, key: str) -> None:
        """See `Store.let_go`."""
        lease = self._leases.pop(key, None)
        if lease is not None:
            lease.revoke()

    def together(self) -> AbstractContextManager[None]:
        """See `Store.together`; etcd has every write on disk before it answers."""
        return nullcontext()

    def check_writable(self) -> None:
        """See `Store.check_writable`.

        A write on a condition that never holds: it goes through consensus and is refused on a full
        disk like any other, and leaves neither a revision nor history behind, however many nodes
        ask however often.
        """
        with suppress(Conflict):
            self.update(keys.PROBE, {}, NO_KEYS_REVISION)

    def watch(self, prefix: str, revision: Revision) -> EtcdWatch:
        """See `Store.watch`."""
        position = parse_position(revision)
        if position is None:
            raise Compacted(f"{revision!r} is no revision of etcd", fix="list again")
        # Asking for anything as it was then tells whether what came later is still known. A watch
        # would tell only later, and would wait for a revision of another cluster for ever.
        probe = pb.RangeRequest(key=b"\0", revision=position.revision, count_only=True)
        try:
            self._client.call(RANGE, probe)
        except Compacted:
            # A revision that etcd has not come to yet is refused like one that it has forgotten.
            self._client.look_back()
            self._refuse_when_restored(position)
            raise
        self._client.look_at_log()
        self._refuse_when_restored(position)
        return EtcdWatch(self._client, prefix_range(prefix), position)

    def _refuse_when_restored(self, position: Position) -> None:
        if self._client.lineage.known.number != position.lineage:
            raise restored(self._client)

    def compact(self) -> None:
        """Make etcd forget everything but the present (a duty of one program in a cluster)."""
        revision = self._client.call(RANGE, pb.RangeRequest(key=b"\0")).header.revision
        self._client.call(COMPACT, pb.CompactionRequest(revision=revision))

    def version(self) -> str:
        """The server's version."""
        return str(self._client.call(STATUS, pb.StatusRequest()).version)

    def close(self) -> None:
        """See `Store.close`."""
        self._client.close()

    def _one(self, write: Write) -> Entry:
        (entry,) = self.batch((write,))
        assert entry is not None
        return entry


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """First key below a prefix and the first one behind; a zero byte is either end of all keys."""
    start = prefix.encode()
    if not start:
        return b"\0", b"\0"
    # UTF-8 has no byte 255, so the last one can always be raised.
    return start, start[:-1] + bytes([start[-1] + 1])
