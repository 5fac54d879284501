"""Moving all objects from one datastore to another, by way of text: one JSON object a line.

The first line says what follows; each further one is `{"key": …, "value": …}`, or has `text` for
a value that is no JSON object. Kinds that this version does not know travel like all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from podwire.boundary import Entry, Verb, Write
from podwire.drivers.store.jsontext import Opaque, from_stored, from_text, to_text
from podwire.drivers.store.pieces import pieces
from podwire.errors import AlreadyExists, BadInput, InUse
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podwire.boundary import Store
    from podwire.model.resource import Wire

FORMAT = "podwire.datastore.v1"
SHOWN = 5
"""Keys named in an error."""
PREFIXES = ("/calico/", "/podwire/")
"""What is moved; an etcd may serve other programs besides."""
PASSING = (keys.APPLIED, keys.OBJECTIONS, keys.FELIX)
"""What running agents say of themselves: it would be untrue elsewhere."""


def export_lines(store: Store) -> Iterator[str]:
    """Everything that lasts.

    Raises:
        BadInput: something is no text; names the key.
    """
    entries = [entry for entry in _entries(store) if not entry.key.startswith(PASSING)]
    yield to_text({"format": FORMAT, "objects": len(entries)})
    for entry in entries:
        yield _line(entry)


def _entries(store: Store) -> list[Entry]:
    return [entry for prefix in PREFIXES for entry in store.list(prefix).entries]


def _line(entry: Entry) -> str:
    opaque = isinstance(entry.value, Opaque)
    value = {"text": to_text(entry.value)} if opaque else {"value": entry.value}
    try:
        return to_text({"key": entry.key, **value})
    except UnicodeEncodeError:
        raise BadInput(
            f"{entry.key!a} or its value is no text and cannot be exported",
            fix="it is not Calico's: delete it, or move it with etcdctl",
        ) from None


def parse_lines(lines: Iterable[str], source: str) -> dict[str, Wire]:
    """The objects of an export by key.

    Raises:
        BadInput: it is no export, or not the whole of one, or holds what is not Calico's or ours;
            names the line.
    """
    found: dict[str, Wire] = {}
    head: Wire = {}
    for number, line in enumerate(_text(lines, source), start=1):
        try:
            value = from_text(line)
            if number == 1:
                head = value
            else:
                key = _ours(str(value["key"]), f"{source}:{number}")
                text = value.get("text")
                found[key] = value["value"] if text is None else from_stored(key, str(text))
        except (msgspec.DecodeError, KeyError) as error:
            raise BadInput(f"{source}:{number}: is no line of an export: {error}") from None
        if head.get("format") != FORMAT:
            raise BadInput(
                f"{source}:1: is no export of a datastore", fix="podwire datastore export"
            )
    if len(found) != head.get("objects", -1):
        raise BadInput(
            f"{source} is cut off: {head.get('objects', 0)} objects announced, {len(found)} there"
        )
    return found


def _text(lines: Iterable[str], source: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError:
        raise BadInput(
            f"{source} is not UTF-8 text", fix="name a file of podwire datastore export"
        ) from None


def _ours(key: str, place: str) -> str:
    if not key.startswith(PREFIXES):
        raise BadInput(
            f"{place}: the key {key} is not below {' or '.join(PREFIXES)}",
            fix="take the line out (and count it off in the first), or move it with etcdctl",
        )
    return key


def import_objects(store: Store, objects: dict[str, Wire]) -> int:
    """Write objects into a datastore that holds nothing else; how many were not there yet.

    Cut off, it can be called again: what stands there already is left alone.

    Raises:
        InUse: it holds other objects, or has other values under these keys; nothing was written.
    """
    there = {entry.key: entry for entry in _entries(store)}
    other = [key for key, entry in there.items() if not _is_same(entry, objects)]
    if other:
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise InUse(
            f"the datastore holds other objects: {', '.join(other[:SHOWN])}{more}",
            fix="import into an empty datastore",
        )
    # Whoever finds the cluster's information takes the rest for complete.
    missing = sorted(
        objects.keys() - there.keys(), key=lambda key: (key.startswith(keys.CLUSTER), key)
    )
    writes = [Write(verb=Verb.CREATE, key=key, value=objects[key]) for key in missing]
    for piece in pieces(writes):
        _write(store, piece)
    return len(writes)


def _is_same(entry: Entry, objects: dict[str, Wire]) -> bool:
    return entry.key in objects and to_text(entry.value) == to_text(objects[entry.key])


def _write(store: Store, writes: Sequence[Write]) -> None:
    try:
        if store.can_batch:
            store.batch(writes)
            return
        for write in writes:
            assert write.value is not None
            store.create(write.key, write.value)
    except AlreadyExists as error:
        raise InUse(
            f"somebody else writes into this datastore: {error.message}",
            fix="stop the agents, empty it and import again",
        ) from None
