"""Leases: what is written under one vanishes by itself when nobody renews it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.client import (
    KEEP_ALIVE,
    LEASE_GRANT,
    LEASE_REVOKE,
    TXN,
    Client,
)
from podwire.drivers.store.etcd.transaction import key_bytes, value_bytes
from podwire.errors import Conflict, PodwireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.boundary import Revision
    from podwire.model.resource import Wire

RENEWAL_S = 5.0
"""How long etcd may take to renew a lease."""


class Lease:
    """One key's lease: granted with the first write, renewed with each, granted anew once lost.

    It is lost when etcd was out of reach for longer than it lasts, or was made anew. Thread-safe.
    """

    def __init__(self, client: Client, ttl_s: int) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._id = 0

    def write(self, key: str, value: Wire, also: Mapping[str, Wire], seen: Revision | None) -> None:
        """Write a value under the lease, and others that stay, all or none.

        Raises:
            Conflict: the key has not the revision that was seen any more.
            DatastoreUnavailable: no endpoint answered, or etcd refuses.
        """
        with self._lock:
            if self._id and not self._renew():
                self._id = 0
            try:
                done = self._write(key, value, also, seen)
            except Conflict:  # it ended between the two
                self._id = 0
                done = self._write(key, value, also, seen)
        if not done:
            raise Conflict(f"{key} was changed or deleted since it was read")

    def revoke(self) -> None:
        """End it now, and with it what was written under it; what fails ends by itself."""
        with self._lock:
            number, self._id = self._id, 0
            if number:
                with suppress(PodwireError):
                    self._client.call(LEASE_REVOKE, pb.LeaseRevokeRequest(id=number))

    def _write(
        self, key: str, value: Wire, also: Mapping[str, Wire], seen: Revision | None
    ) -> bool:
        """Whether the key was as it was seen, and so all was written."""
        if not self._id:
            granted = self._client.call(LEASE_GRANT, pb.LeaseGrantRequest(ttl=self._ttl_s))
            self._id = granted.id
        request = pb.TxnRequest()
        if seen is not None:
            request.compare.add(target=pb.Compare.MOD, key=key_bytes(key), mod_revision=int(seen))
        passing = pb.PutRequest(key=key_bytes(key), value=value_bytes(value), lease=self._id)
        request.success.add(request_put=passing)
        for each, lasting in also.items():
            pair = pb.PutRequest(key=key_bytes(each), value=value_bytes(lasting))
            request.success.add(request_put=pair)
        return bool(self._client.call(TXN, request).succeeded)

    def _renew(self) -> bool:
        """Whether etcd still knows the lease, and has renewed it."""
        done = threading.Event()

        def ask() -> Iterator[pb.LeaseKeepAliveRequest]:
            yield pb.LeaseKeepAliveRequest(id=self._id)
            done.wait(RENEWAL_S)  # the stream lasts as long as its requests do

        place, stream = self._client.stream(KEEP_ALIVE, ask(), timeout_s=RENEWAL_S)
        try:
            return bool(next(stream).ttl > 0)
        except StopIteration:
            return False
        except grpc.RpcError as error:
            self._client.leave(place)
            raise self._client.refusal(error) from None
        finally:
            done.set()
            stream.cancel()
