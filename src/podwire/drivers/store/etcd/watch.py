"""Following what is written to etcd."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import grpc

from podwire.boundary import Change
from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.client import WATCH, Client
from podwire.drivers.store.etcd.transaction import entry_of
from podwire.errors import Compacted, DatastoreUnavailable, PodwireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class EtcdWatch:
    """Follows one prefix over one stream.

    A stream that breaks is not mended: from the last change seen a new watch misses nothing, and
    whoever watches wants to know that the datastore was away.
    """

    def __init__(self, client: Client, keys: tuple[bytes, bytes], revision: int) -> None:
        self._client = client
        self._closed = threading.Event()
        self._arrived: queue.SimpleQueue[Sequence[Change] | PodwireError] = queue.SimpleQueue()
        self._failure: PodwireError | None = None
        create = pb.WatchCreateRequest(key=keys[0], range_end=keys[1], start_revision=revision + 1)
        self._done = threading.Event()
        self._place, self._stream = client.stream(WATCH, self._requests(create))
        threading.Thread(target=self._read, name="etcd watch", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """See `Watch.wait`."""
        if self._failure is not None:
            raise self._failure
        block = timeout_s != 0 and not self._closed.is_set()
        try:
            found = self._arrived.get(block, timeout_s)
        except queue.Empty:
            return ()
        if isinstance(found, PodwireError):
            self._failure = found
            raise found
        return found

    def close(self) -> None:
        """See `Watch.close`."""
        self._closed.set()
        self._stream.cancel()
        self._arrived.put(())  # wakes who waits

    def _requests(self, create: pb.WatchCreateRequest) -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(create_request=create)
        self._done.wait()  # the stream lasts as long as its requests do

    def _read(self) -> None:
        try:
            for answer in self._stream:
                if answer.canceled:
                    self._arrived.put(_reason(answer))
                    return
                if answer.events:
                    self._arrived.put(tuple(map(change_of, answer.events)))
            self._arrived.put(DatastoreUnavailable(f"{self._client.name} ended a watch"))
        except grpc.RpcError as error:
            if not self._closed.is_set():
                self._client.leave(self._place)
                self._arrived.put(self._client.refusal(error))
        finally:
            self._done.set()


def change_of(event: pb.Event) -> Change:
    """One event as a change."""
    entry = entry_of(event.kv)
    there = event.type == pb.Event.PUT
    return Change(key=entry.key, entry=entry if there else None, revision=entry.revision)


def _reason(answer: pb.WatchResponse) -> PodwireError:
    if answer.compact_revision:
        return Compacted("changes were forgotten", fix="list again")
    return DatastoreUnavailable(f"etcd ended a watch: {answer.cancel_reason}", fix="see its log")
