"""From documents to writes: check everything against the datastore first, then write at once."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from podwire.boundary import Verb, Write
from podwire.cli.guards import Guards, takes
from podwire.cli.kinds import find_kind
from podwire.cli.policy_names import stored_name
from podwire.cli.writing import write_all
from podwire.cli.yamlfile import refuse
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.secrets import read_secret
from podwire.errors import BadInput, Conflict, InUse, NotFound, Stale
from podwire.model import codec, keys
from podwire.model.bgp import BGPPeer, SecretKey
from podwire.model.bgpfilter import BGPFilter
from podwire.model.bgpvalidate import check_node_address, check_peer
from podwire.model.block import IPAMConfig
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.kept import POLICIES
from podwire.model.labels import label_faults
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Stored
from podwire.model.shape import Fault
from podwire.model.validate import (
    build,
    check_change,
    check_document,
    check_overlap,
    document_key,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Entry, Store
    from podwire.cli.yamlfile import Document
    from podwire.model.addressing import IPNetwork

S = TypeVar("S", bound=Stored)

TRIES = 20
PAUSE_S = 0.02
"""The longest pause after the first try that others came before; it grows with every one."""


class Intent(StrEnum):
    """What may become of a document."""

    APPLY = "applied"
    CREATE = "created"
    REPLACE = "replaced"


AGAIN = {
    Intent.APPLY: "apply again: what was written is found as it should be",
    Intent.CREATE: "create again with --skip-exists",
    Intent.REPLACE: "replace again",
}
"""How to go on where only a part could be written."""
FIRST = (keys.POOLS, keys.BGP_FILTERS, keys.NODES)
"""What other kinds rely on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One document and what it does."""

    document: Document
    key: str
    entry: Entry | None
    """What is stored."""
    value: Stored


def check_documents(documents: Sequence[Document], namespace: str, *, alone: bool = False) -> None:
    """Everything that can be said without a datastore.

    `alone`: there is none, and so no label of others that may stay as it is.

    Raises:
        BadInput: with all faults of all documents.
    """
    faults: list[tuple[Document, Fault]] = []
    seen: dict[str, Document] = {}
    for document in documents:
        found = [*document.faults, *([] if document.unread else check_document(document.value))]
        if not found and alone:
            found = label_faults(document.value)
        if not found:
            first = seen.setdefault(document_key(document.value, namespace), document)
            if first is not document:
                name = document.value["metadata"]["name"]
                problem = f"{name} was given before, at {first.place(('metadata', 'name'))}"
                found = [Fault(("metadata", "name"), problem, "keep one of them")]
        faults += [(document, fault) for fault in found]
    refuse(faults)


def apply_documents(
    store: Store,
    documents: Sequence[Document],
    namespace: str,
    intent: Intent = Intent.APPLY,
    *,
    skip_exists: bool = False,
) -> Counter[str]:
    """Create or replace what the documents describe; returns how many of each kind.

    Raises:
        BadInput: a label that is no label; nothing was written, as with all of these.
        InUse: something does not go together with what is stored, or to create exists.
        NotFound: something to replace does not exist.
        Conflict: an object was changed since the document was read from the datastore.
        DatastoreUnavailable: it went away; more than etcd takes at once may be written in part.
    """
    kinds = {document.value["kind"] for document in documents}
    for number in range(TRIES):
        SystemClock().sleep(SystemDice().uniform(0, number * PAUSE_S))
        guards = Guards(store, kinds)
        changes = plan_changes(store, documents, namespace, intent, skip_exists=skip_exists)
        guarding = guards.writes((_decoded(change.entry), change.value) for change in changes)
        try:
            write_all(store, _in_order(changes), guards=guarding, again=AGAIN[intent])
        except Stale:
            continue
        return Counter(change.document.value["kind"] for change in changes)
    raise Conflict("others keep changing the same resources", fix="apply again")


def check_passwords(documents: Sequence[Document], folder: str) -> None:
    """Whether this machine has the passwords that the documents name.

    Raises:
        BadInput: one is missing, or unusable.
    """
    faults: list[tuple[Document, Fault]] = []
    for document in documents:
        if not document.value["kind"].startswith("BGP"):
            continue
        for field in ("password", "nodeMeshPassword"):
            reference = (document.value["spec"].get(field) or {}).get("secretKeyRef")
            if reference is None:
                continue
            try:
                read_secret(folder, SecretKey(name=reference["name"], key=reference["key"]))
            except (NotFound, BadInput) as error:
                path = ("spec", field, "secretKeyRef")
                faults.append((document, Fault(path, f": {error.message}", error.fix)))
    refuse(faults)


def plan_changes(
    store: Store,
    documents: Sequence[Document],
    namespace: str,
    intent: Intent = Intent.APPLY,
    *,
    skip_exists: bool = False,
) -> list[Change]:
    """What applying would write; with `skip_exists` nothing of what is there.

    Raises:
        BadInput, InUse, NotFound, Conflict: as `apply_documents`.
    """
    changes = [_change(store, document, namespace) for document in documents]
    if skip_exists:
        changes = [change for change in changes if change.entry is None]
    _check_intent(changes, intent)
    odd: list[tuple[Document, Fault]] = []
    refused: list[tuple[Document, Fault]] = []
    for change in changes:
        before = _decoded(change.entry)
        stored = None if change.entry is None else change.entry.value
        odd += [(change.document, fault) for fault in label_faults(change.document.value, stored)]
        if before is not None:
            found = check_change(before, change.value)
            refused += [(change.document, fault) for fault in found]
    refused += _collisions(store, changes)
    # What is wrong by itself, and what only the state of the cluster refuses, end differently.
    refuse([*odd, *refused], BadInput if odd else InUse)
    return changes


def _change(store: Store, document: Document, namespace: str) -> Change:
    document = _as_stored(store, document, namespace)
    key = document_key(document.value, namespace)
    entry = store.get(key)
    wanted = document.value["metadata"].get("resourceVersion")
    if wanted and (entry is None or entry.revision != wanted):
        what = f"{document.value['kind']} {document.value['metadata']['name']}"
        raise Conflict(
            f"{document.place(('metadata', 'resourceVersion'))}: {what} was changed since it was"
            f" read (resourceVersion {wanted})",
            fix="get it again and repeat your change, or leave resourceVersion out",
        )
    before: Any = _decoded(entry)
    stored = None if entry is None or before is None else entry.value
    value: Any = build(document.value, stored, namespace)
    if isinstance(value, IPAMConfig):
        return Change(document=document, key=key, entry=entry, value=value)
    if before is None:
        metadata = value.metadata.born(uuid.uuid4(), datetime.now(UTC))
    else:
        metadata = replace(value.metadata, uid=before.metadata.uid, created=before.metadata.created)
    return Change(document=document, key=key, entry=entry, value=replace(value, metadata=metadata))


def _as_stored(store: Store, document: Document, namespace: str) -> Document:
    """The document under the name its object has: a policy shown by calicoctl may lack its tier."""
    value = document.value
    metadata, tier = value["metadata"], (value.get("spec") or {}).get("tier")
    if value["kind"] not in POLICIES or tier not in (None, "", "default"):
        return document
    place = metadata.get("namespace") or namespace
    name = stored_name(store, find_kind(value["kind"]), place, metadata["name"])
    return replace(document, value={**value, "metadata": {**metadata, "name": name}})


def _check_intent(changes: Sequence[Change], intent: Intent) -> None:
    there = [_title(change) for change in changes if change.entry is not None]
    missing = [_title(change) for change in changes if change.entry is None]
    if intent is Intent.CREATE and there:
        raise InUse(
            "\n".join(f"{title} exists already" for title in there),
            fix="use apply or replace to change it, or create --skip-exists",
        )
    if intent is Intent.REPLACE and missing:
        raise NotFound(
            "\n".join(f"{title} does not exist" for title in missing),
            fix="use apply or create",
        )


def _title(change: Change) -> str:
    document = change.document
    name = document.value["metadata"]["name"]
    return f"{document.place(())}: {document.value['kind']} {name}"


def _decoded(entry: Entry | None) -> Stored | None:
    """What is stored; None also when it cannot be read: applying then repairs it."""
    try:
        return None if entry is None else codec.decode(entry.key, entry.value)
    except BadInput:
        return None


def _collisions(store: Store, changes: Sequence[Change]) -> list[tuple[Document, Fault]]:
    """What the documents collide with: what is stored, and each other."""
    kinds = {change.document.value["kind"] for change in changes}
    faults: list[tuple[Document, Fault]] = []
    if "IPPool" in kinds:
        faults += _pool_collisions(store, changes)
    if "WorkloadEndpoint" in kinds:
        faults += _endpoint_collisions(store, changes)
    if kinds & {"Node", "BGPPeer"}:
        nodes = _after(store, keys.NODES, changes, Node)
        filters = {each.name for each in _after(store, keys.BGP_FILTERS, changes, BGPFilter)}
        for change in changes:
            match change.value:
                case Node() as node:
                    found = check_node_address(node, nodes)
                case BGPPeer() as peer:
                    found = check_peer(peer, nodes, filters)
                case _:
                    continue
            faults += [(change.document, fault) for fault in found]
    return faults


def _after(store: Store, prefix: str, changes: Sequence[Change], kind: type[S]) -> list[S]:
    """All objects of a kind, as they will be when the changes are written."""
    new = {change.key: change.value for change in changes}
    stored = {entry.key: _decoded(entry) for entry in store.list(prefix).entries}
    return [value for value in {**stored, **new}.values() if isinstance(value, kind)]


def _endpoint_collisions(store: Store, changes: Sequence[Change]) -> list[tuple[Document, Fault]]:
    """An address is one endpoint's; what had it before keeps it."""
    new = [change for change in changes if takes(_decoded(change.entry), change.value)]
    new = [change for change in new if isinstance(change.value, WorkloadEndpoint)]
    all_ = _after(store, keys.ENDPOINTS, changes, WorkloadEndpoint) if new else []
    users = [(each.ip, codec.key_of(endpoint)) for endpoint in all_ for each in endpoint.addresses]
    faults = []
    for change in new:
        assert isinstance(change.value, WorkloadEndpoint)
        for each in change.value.addresses:
            other = next((k for ip, k in users if ip == each.ip and k != change.key), None)
            if other is not None:
                name = "/".join(keys.parse_endpoint_key(other) or (other,))
                problem = f": {each.ip} is the address of WorkloadEndpoint {name} already"
                fix = "give each endpoint addresses of its own"
                faults.append((change.document, Fault(("spec", "ipNetworks"), problem, fix)))
    return faults


def _pool_collisions(store: Store, changes: Sequence[Change]) -> list[tuple[Document, Fault]]:
    """New pools must not overlap stored ones, nor each other."""
    new = [
        change
        for change in changes
        if isinstance(change.value, IPPool) and _decoded(change.entry) is None
    ]
    if not new:
        return []
    stored = map(_decoded, store.list(keys.POOLS).entries)
    pools = [pool for pool in stored if isinstance(pool, IPPool)]
    blocks: list[IPNetwork] = [
        block
        for prefix in (keys.BLOCKS4, keys.BLOCKS6)
        for entry in store.list(prefix).entries
        if (block := keys.parse_block_key(entry.key)) is not None
    ]
    faults = []
    for change in new:
        assert isinstance(change.value, IPPool)
        found = check_overlap(change.value, pools, blocks)
        faults += [(change.document, fault) for fault in found]
        pools.append(change.value)
    return faults


def _in_order(changes: Sequence[Change]) -> list[Write]:
    """The writes, what others rely on first: they may have to be written in pieces."""

    def rank(write: Write) -> int:
        found = (number for number, each in enumerate(FIRST) if write.key.startswith(each))
        return next(found, len(FIRST))

    return sorted(map(_write_of, changes), key=rank)


def _write_of(change: Change) -> Write:
    value = codec.encode(change.value)
    if change.entry is None:
        return Write(verb=Verb.CREATE, key=change.key, value=value)
    return Write(verb=Verb.UPDATE, key=change.key, value=value, revision=change.entry.revision)
