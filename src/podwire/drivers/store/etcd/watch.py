"""Following what is written to etcd."""

from __future__ import annotations

import queue
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc

from podwire.boundary import Change
from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.client import WATCH, Client
from podwire.drivers.store.etcd.transaction import entry_of
from podwire.errors import Compacted, DatastoreUnavailable, PodwireError, Restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Position:
    """From where a watch misses nothing: a revision, and which etcd of ours gave it out."""

    revision: int
    lineage: int = 0

    def __str__(self) -> str:
        return f"{self.revision}@{self.lineage}" if self.lineage else str(self.revision)


def parse_position(text: str) -> Position | None:
    """Read what a Position wrote; None when it is no position of etcd."""
    found = re.fullmatch(r"([0-9]+)(?:@([0-9]+))?", text, re.ASCII)
    return None if found is None else Position(int(found[1]), int(found[2] or 0))


def restored(client: Client) -> Restored:
    """The etcd behind the client is not the one that gave out what we know."""
    return Restored(
        f"{client.name} was restored from a backup, or replaced: revisions of before mean nothing",
        fix="list again",
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """All changes up to there have been told."""

    revision: int


class EtcdWatch:
    """Follows one prefix over one stream.

    A stream that breaks is not mended: from the last change seen a new watch misses nothing, and
    whoever watches wants to know that the datastore was away.
    """

    def __init__(self, client: Client, keys: tuple[bytes, bytes], position: Position) -> None:
        self._client = client
        self._began = position
        self._closed = threading.Event()
        self._arrived: queue.SimpleQueue[Sequence[Change] | Progress | PodwireError]
        self._arrived = queue.SimpleQueue()
        self._failure: PodwireError | None = None
        self.position = str(position)
        create = pb.WatchCreateRequest(
            key=keys[0],
            range_end=keys[1],
            start_revision=position.revision + 1,
            # Told now and then how far it is, a watch of what never changes need not begin where
            # nothing is known any more. Asking for it oneself is no help: etcd before 3.4.25 and
            # 3.5.8 may then answer ahead of changes that are still on their way.
            progress_notify=True,
        )
        self._done = threading.Event()
        self._place, self._stream = client.stream(WATCH, self._requests(create))
        threading.Thread(target=self._read, name="etcd watch", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> Sequence[Change]:
        """See `Watch.wait`."""
        if self._failure is not None:
            raise self._failure
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                found = self._arrived.get(rest != 0 and not self._closed.is_set(), rest)
            except queue.Empty:
                return ()
            if isinstance(found, PodwireError):
                self._failure = found
                raise found
            if isinstance(found, Progress):
                self.position = self._at(found.revision)
                continue
            if found:
                self.position = self._at(int(found[-1].revision))
            return found

    def close(self) -> None:
        """See `Watch.close`."""
        self._closed.set()
        self._stream.cancel()
        self._arrived.put(())  # wakes who waits

    def _at(self, revision: int) -> str:
        return str(replace(self._began, revision=revision))

    def _lineage_hears(self, revision: int) -> None:
        self._client.lineage.heard(self._began.lineage, revision)

    def _doubt(self, told: pb.Header) -> None:
        """Raise when the member that serves the watch is of another etcd than the position.

        One that is merely behind the others is not: it tells what comes when it has it, too. A
        restored one would be silent until it has counted that far.
        """
        if told.revision < self._began.revision:
            self._client.look_back()
        if self._client.lineage.known.number != self._began.lineage:
            raise restored(self._client)

    def _requests(self, create: pb.WatchCreateRequest) -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(create_request=create)
        self._done.wait()  # the stream lasts as long as its requests do

    def _read(self) -> None:
        try:
            for answer in self._stream:
                if answer.canceled:
                    self._arrived.put(_reason(answer))
                    return
                if answer.created:
                    self._doubt(answer.header)
                elif answer.events:
                    changes = tuple(map(change_of, answer.events))
                    self._lineage_hears(answer.events[-1].kv.mod_revision)
                    self._arrived.put(changes)
                else:
                    self._lineage_hears(answer.header.revision)
                    self._arrived.put(Progress(answer.header.revision))
        except PodwireError as error:
            self._arrived.put(error)
        except grpc.RpcError as error:
            if not self._closed.is_set():
                self._client.leave(self._place)
                self._arrived.put(self._client.refusal(error))
        finally:
            self._done.set()
            if not self._closed.is_set():  # whatever ended it, nobody may wait for ever
                self._arrived.put(DatastoreUnavailable(f"{self._client.name} ended a watch"))


def change_of(event: pb.Event) -> Change:
    """One event as a change."""
    entry = entry_of(event.kv)
    there = event.type == pb.Event.PUT
    return Change(key=entry.key, entry=entry if there else None, revision=entry.revision)


def _reason(answer: pb.WatchResponse) -> PodwireError:
    if answer.compact_revision:
        return Compacted("changes were forgotten", fix="list again")
    return DatastoreUnavailable(f"etcd ended a watch: {answer.cancel_reason}", fix="see its log")
