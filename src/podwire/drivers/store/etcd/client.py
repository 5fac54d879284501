"""Calls to an etcd cluster: several endpoints, TLS, a user's token, and what each error means.

A call goes to the endpoint that answered last, and to the others in turn when that one does not.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from podwire.drivers.privatefile import read_private
from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.etcd.certificates import Identity
from podwire.drivers.store.etcd.handshake import handshake_fault
from podwire.drivers.store.etcd.lineage import Lineage
from podwire.drivers.store.etcd.silence import FIX, Silence
from podwire.errors import (
    BadInput,
    Compacted,
    Conflict,
    DatastoreUnavailable,
    PodwireError,
    Rejected,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from podwire.model.config import EtcdConfig

ATTEMPT_S = 2.0
"""How long one endpoint may take; etcd itself gives a write up after 7 s without a leader."""
TIMEOUT_S = 5.0
"""How long a call may take in all."""
OPTIONS = (
    # A peer that is cut off without a word is found out by a ping; etcd refuses pings that come
    # more often than every 5 s (--grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # How long the answer to a ping may take; gRPC itself would wait a minute, whatever the other.
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Else gRPC ends its pings after the second one that finds nothing else sent: a watch of what
    # never changes would not notice that its peer has gone.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    # Repeating is ours: it must be known whether a write may have been carried out.
    ("grpc.enable_retries", 0),
    # A proxy of the environment is for the web, and must not see the cluster's secrets.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
TOO_LARGE = ("too large", "larger than max")
"""Of an answer of etcd, or of gRPC, to a value of more than 1.5 MB."""
_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,  # refused, cut off, no leader
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # the server is going down
    grpc.StatusCode.UNKNOWN,
}

Q = TypeVar("Q", bound="Message")
A = TypeVar("A", bound="Message")


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """A method of etcd's API: where it is, and what it answers with."""

    path: str
    answer: type[A]
    request: type[Q]


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse, pb.RangeRequest)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse, pb.TxnRequest)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse, pb.CompactionRequest)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchResponse, pb.WatchRequest)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse, pb.LeaseGrantRequest)
LEASE_REVOKE = Method(
    "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse, pb.LeaseRevokeRequest
)
KEEP_ALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse, pb.LeaseKeepAliveRequest
)
AUTHENTICATE = Method(
    "/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse, pb.AuthenticateRequest
)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusResponse, pb.StatusRequest)


class Client:
    """A connection to an etcd cluster; for any number of threads."""

    def __init__(self, config: EtcdConfig) -> None:
        if not config.endpoints:
            raise BadInput("datastore etcd has no endpoints", fix="name one: https://HOST:2379")
        self._config = config
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._retired: list[grpc.Channel] = []
        self._identity = Identity(config)
        self._current = 0
        self._silence = Silence(TIMEOUT_S)
        self.lineage = Lineage()
        self._token: str | None = None
        self._password: str | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """For messages: `datastore etcd HOST:PORT[,…]`."""
        return f"datastore etcd {','.join(self._config.endpoints)}"

    def call(self, method: Method[Q, A], request: Q) -> A:
        """Ask, at every endpoint once if need be.

        Raises:
            DatastoreUnavailable: no endpoint answered, or etcd refuses.
            Unsupported: it is more than etcd takes at once.
            Compacted: the revision asked for is not kept.
        """
        return self.ask(method, request)[0]

    def ask(self, method: Method[Q, A], request: Q) -> tuple[A, bool]:
        """As `call`; also tells whether an earlier try may have been carried out unheard."""
        self._silence.respect()
        began = time.monotonic()
        deadline = began + TIMEOUT_S
        failure: grpc.RpcError | None = None
        renewed = False
        tries = len(self._config.endpoints)
        while tries and (left := deadline - time.monotonic()) > 0:
            token = self._authenticated(deadline)
            place = self._current
            known = self.lineage.known
            try:
                answer = self._once(place, method, request, token, min(ATTEMPT_S, left))
            except grpc.RpcError as error:
                if _token_is_old(error) and not renewed and self._config.username:
                    renewed = True
                    self._forget(token)
                    continue
                if error.code() not in _ELSEWHERE:
                    self._silence.answered()
                    raise self._refused(error, request) from None
                failure = error
                tries -= 1
                self.leave(place)
            else:
                self._silence.answered()
                if isinstance(answer, pb.RangeResponse | pb.TxnResponse):
                    self.lineage.look(known, answer.header)
                return answer, failure is not None
        away = self._away(failure)
        self._silence.unanswered(began, away)
        raise away

    def look_back(self) -> None:
        """See whether etcd still is the one we spoke with; `lineage` tells."""
        self.call(RANGE, pb.RangeRequest(key=b"\0", count_only=True))
        self.look_at_log()

    def look_at_log(self) -> None:
        """See whether a member's log has become shorter; `lineage` tells.

        To be asked after an answer through consensus: a member that was just started does not know
        yet how long its log is.
        """
        known, place = self.lineage.known, self._current
        answer, elsewhere = self.ask(STATUS, pb.StatusRequest())
        if not elsewhere and place == self._current:
            self.lineage.look_at_log(known, answer.header, answer.raft_index)

    def stream(
        self, method: Method[Q, A], requests: Iterator[Q], timeout_s: float | None = None
    ) -> tuple[int, grpc._CallIterator[A]]:
        """Open a stream in both directions at the endpoint in use; which one it is, and the stream.

        Raises:
            DatastoreUnavailable: it was closed, or nobody gives us a token.
        """
        token = self._authenticated(time.monotonic() + TIMEOUT_S)
        place = self._current
        open_stream = self._channel(place).stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        # A member cut off from the others would stay silent for ever.
        metadata = (*_metadata(token), ("hasleader", "true"))
        return place, open_stream(requests, timeout=timeout_s, metadata=metadata)

    def leave(self, place: int) -> None:
        """That endpoint did not answer: use the next one from now on."""
        with self._lock:
            if self._current == place:
                self._current = (place + 1) % len(self._config.endpoints)

    def refusal(self, error: grpc.RpcError) -> PodwireError:
        """What an error of a stream means."""
        if error.code() in _ELSEWHERE:
            return self._away(error)
        if _token_is_old(error):
            self._forget(self._token)
        return self._refused(error)

    def close(self) -> None:
        """Let go of the connections; every later call is refused."""
        with self._lock:
            self._closed = True
            channels, self._channels = [*self._retired, *self._channels.values()], {}
        for channel in channels:
            channel.close()

    def _once(
        self, place: int, method: Method[Q, A], request: Q, token: str | None, timeout_s: float
    ) -> A:
        call = self._channel(place).unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        return call(request, timeout=timeout_s, metadata=_metadata(token))

    def _channel(self, place: int) -> grpc.Channel:
        url = self._config.endpoints[place]
        with self._lock:
            if self._closed:
                raise DatastoreUnavailable("the datastore was closed by this program")
            if url.startswith("https://") and self._identity.look():
                # Certificates were renewed. Streams end with their channel, so the old one stays.
                self._retired += self._channels.values()
                self._channels = {}
            if url not in self._channels:
                self._channels[url] = self._connect(url)
            return self._channels[url]

    def _connect(self, url: str) -> grpc.Channel:
        scheme, _, target = url.rpartition("://")
        if scheme != "https":
            target = f"unix:{target}" if scheme == "unix" else target
            return grpc.insecure_channel(target, options=OPTIONS)
        credentials = self._identity.credentials
        assert credentials is not None, "looked at before"
        return grpc.secure_channel(target, credentials, options=OPTIONS)

    def _authenticated(self, deadline: float) -> str | None:
        """The token of the configured user; got once, and again when etcd has forgotten it."""
        config = self._config
        if not config.username or self._token is not None:
            return self._token
        request = pb.AuthenticateRequest(name=config.username, password=self._known_password())
        failure: grpc.RpcError | None = None
        for _ in config.endpoints:
            place, left = self._current, max(0.1, deadline - time.monotonic())
            try:
                answer = self._once(place, AUTHENTICATE, request, None, min(ATTEMPT_S, left))
            except grpc.RpcError as error:
                if error.code() not in _ELSEWHERE:
                    raise self._refused(error) from None
                failure = error
                self.leave(place)
                continue
            self._token = str(answer.token)
            return self._token
        raise self._away(failure)

    def _known_password(self) -> str:
        """As it is now; as it was while the file cannot be used, for it may be just being written.

        Raises:
            NotFound, BadInput: it cannot be used, nor could it ever before.
        """
        try:
            self._password = _password(self._config)
        except Rejected:
            if self._password is None:
                raise
        return self._password

    def _forget(self, token: str | None) -> None:
        with self._lock:
            if self._token == token:
                self._token = None

    def _away(self, error: grpc.RpcError | None) -> DatastoreUnavailable:
        if self._closed:
            return DatastoreUnavailable("the datastore was closed by this program")
        reason, fix = "no answer in time" if error is None else _words(error), FIX
        if error is not None:
            details = str(error.details() or "")
            reason, fix = handshake_fault(details, self._config) or (reason, fix)
        return DatastoreUnavailable(f"{self.name} does not answer: {reason}", fix=fix)

    def _refused(self, error: grpc.RpcError, request: Message | None = None) -> PodwireError:
        words = _words(error)
        match error.code():
            case grpc.StatusCode.OUT_OF_RANGE:
                return Compacted(f"{self.name}: {words}", fix="list again")
            case grpc.StatusCode.NOT_FOUND:
                return Conflict(f"{self.name}: {words}")  # a lease that has ended
            case _ if any(sign in words for sign in TOO_LARGE):
                return _too_large(f"{self.name} refuses: {words}", request)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                fix = "give etcd room: compact, defrag, then etcdctl alarm disarm"
            case grpc.StatusCode.PERMISSION_DENIED:
                fix = "grant the user a role that may read and write /calico/ and /podwire/"
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.INVALID_ARGUMENT:
                fix = "check username, passwordFile (or ETCD_PASSWORD) and client certificate"
            case _:
                fix = "see etcd's log"
        return DatastoreUnavailable(f"{self.name} refuses: {words}", fix=fix)


def _too_large(refused: str, request: Message | None) -> Unsupported:
    """The answer to a write of more bytes than etcd takes; names the object that has most."""
    fix = "write less at once, or raise etcd's --max-request-bytes"
    if not isinstance(request, pb.TxnRequest):
        return Unsupported(refused, fix=fix)
    puts = [each.request_put for each in request.success]
    largest = max(puts, key=lambda put: len(put.value), default=pb.PutRequest())
    where = f"{largest.key.decode(errors='replace')} has {len(largest.value)} bytes"
    if len(puts) == 1:
        fix = "make that object smaller, or raise etcd's --max-request-bytes"
    return Unsupported(f"{refused}: {where}", fix=fix)


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("token", token),)


def _words(error: grpc.RpcError) -> str:
    """What happened, without gRPC's own path to it."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    details = str(error.details() or error.code().name.lower().replace("_", " "))
    if details.startswith("failed to connect"):
        # The operating system's word, or that of the TLS library with the system's "OK" behind it.
        return details.removesuffix(": OK").rpartition(": ")[2]
    return details.removeprefix("etcdserver: ").partition("\n")[0]


def _token_is_old(error: grpc.RpcError) -> bool:
    """Whether etcd has forgotten the token, or its users have changed since it was given."""
    words = str(error.details())
    return "invalid auth token" in words or "revision of auth store is old" in words


def _password(config: EtcdConfig) -> str:
    if config.password_file is None:
        return config.password or ""
    title = f"password of etcd's user {config.username}"
    # Named by whom it belongs to, and by way of a link where secrets are mounted.
    text = read_private(Path(config.password_file), title, follow=True)
    if not text:
        raise BadInput(f"{title}: {config.password_file} is empty", fix="write it into the file")
    return text
