"""Writes as etcd's transactions, and what its answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.boundary import Entry, Verb, Write
from podwire.drivers.store.etcd import etcd_pb2 as pb
from podwire.drivers.store.jsontext import from_stored, to_text
from podwire.errors import AlreadyExists, Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Revision
    from podwire.model.resource import Wire

# Whoever shares the etcd may have written bytes that are no text: they are kept as they are.
FOREIGN = "surrogateescape"


def key_bytes(key: str) -> bytes:
    """A key as it goes over the wire."""
    return key.encode(errors=FOREIGN)


def transaction(writes: Sequence[Write]) -> pb.TxnRequest:
    """All writes or none; when a condition does not hold it answers with what is there."""
    request = pb.TxnRequest()
    for write in writes:
        key = key_bytes(write.key)
        if write.verb is Verb.CREATE:
            request.compare.add(target=pb.Compare.VERSION, key=key, version=0)
        elif write.verb is Verb.UPDATE or write.revision is not None:
            revision = write.revision or ""
            number = int(revision) if revision.isdecimal() else -1  # no object has that one
            request.compare.add(target=pb.Compare.MOD, key=key, mod_revision=number)
        if write.verb is Verb.DELETE:
            request.success.add(request_delete_range=pb.DeleteRangeRequest(key=key))
        else:
            made = pb.PutRequest(key=key, value=value_bytes(content_of(write)))
            request.success.add(request_put=made)
        request.failure.add(request_range=pb.RangeRequest(key=key))
    return request


def entry_of(kv: pb.KeyValue) -> Entry:
    """One object as etcd tells it."""
    key = kv.key.decode(errors=FOREIGN)
    value = from_stored(key, kv.value.decode(errors=FOREIGN))
    return Entry(key=key, value=value, revision=str(kv.mod_revision))


def written(write: Write, revision: Revision) -> Entry | None:
    """What a write left behind."""
    if write.verb is Verb.DELETE:
        return None
    value = from_stored(write.key, to_text(content_of(write)))
    return Entry(key=write.key, value=value, revision=revision)


def content_of(write: Write) -> Wire:
    """What a write puts there."""
    return {} if write.value is None else write.value


def value_bytes(value: Wire) -> bytes:
    """A value as it goes over the wire."""
    return to_text(value).encode(errors=FOREIGN)


def is_carried_out(write: Write, there: Entry | None) -> bool:
    """Whether what stands there is what the write would have left behind."""
    if there is None:
        return write.verb is Verb.DELETE
    return write.verb is not Verb.DELETE and to_text(there.value) == to_text(content_of(write))


def refusal(writes: Sequence[Write], there: Sequence[Entry | None]) -> AlreadyExists | Conflict:
    """Which write's condition did not hold."""
    for write, entry in zip(writes, there, strict=True):
        if write.verb is Verb.CREATE and entry is not None:
            return AlreadyExists(f"{write.key} exists already")
        found = None if entry is None else entry.revision
        conditional = write.verb is Verb.UPDATE or write.revision is not None
        if write.verb is not Verb.CREATE and conditional and found != write.revision:
            return Conflict(f"{write.key} was changed or deleted since it was read")
    return Conflict(f"{writes[0].key} was changed at the same time")
