"""What nobody will come back for: handles without addresses, and what deleted nodes left.

A node is gone when its Node object is deleted, never because it is silent. Any live node may then
clear up after it, and two that do so at once do each other no harm: every write is
compare-and-swap, and a block, an address or a handle can be given back only once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.errors import BadInput, Conflict, InUse
from podwire.ipam.allocation import live
from podwire.ipam.leaks import is_pod_of
from podwire.ipam.records import Records
from podwire.ipam.request import Release
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.addressing import address_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from podwire.boundary import Clock, Dice, Entry, Revision, Store
    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Allocation

TUNNEL_TYPES = frozenset(
    {
        *("ipipTunnelAddress", "vxlanTunnelAddress", "vxlanV6TunnelAddress"),
        *("wireguardTunnelAddress", "wireguardV6TunnelAddress"),
    }
)
"""Allocation attribute `type` of a node's own addresses."""
PIECE = 50
"""Addresses released at once: with their handles they have to fit into one transaction."""


class Rota:
    """In which order the nodes may see to a matter; all that know the same nodes agree on it.

    Each matter begins somewhere in the list of nodes: so work is spread, and the next in line can
    step in for one that does not act.
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        self._places = {node: place for place, node in enumerate(sorted(nodes))}

    def turn(self, node: str, about: str) -> int:
        """The node's place in the order for a matter; 0 is the first."""
        digest = hashlib.blake2s(about.encode(), digest_size=8).digest()
        return (self._places[node] - int.from_bytes(digest)) % len(self._places)


def belongs_to(allocation: Allocation, node: str) -> bool:
    """Whether an allocation goes when the node does: its pods' and its tunnels', nobody else's."""
    owner = allocation.attributes
    tunnel = owner.get("node") == node and owner.get("type") in TUNNEL_TYPES
    return tunnel or is_pod_of(allocation, node)


def objectors(objection: Entry) -> int:
    """How many pods an objection speaks for; 0 when it does not say, which does not undo it."""
    pods = dict(objection.value).get("pods")
    return pods if isinstance(pods, int) else 0


# --- handles --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a look at all handles, and at the blocks they name, came to."""

    empty: Mapping[str, Revision] = field(default_factory=dict)
    """Handles no address belongs to, with the revision they were read at."""
    users: Mapping[str, frozenset[IPNetwork]] = field(default_factory=dict)
    """Nodes that have addresses, and in which blocks."""


def survey(store: Store, rest: Callable[[], object] = tuple) -> Survey:
    """Look at all handles; blocks are read one by one, so that it needs little memory.

    `rest` is called after each, to let others work.
    """
    records = Records(store)
    waiting: defaultdict[IPNetwork, set[str]] = defaultdict(set)
    empty: dict[str, Revision] = {}
    for record in records.handles():
        empty[record.value.id] = record.revision
        for cidr in record.value.blocks:
            waiting[cidr].add(record.value.id)
    users: defaultdict[str, set[IPNetwork]] = defaultdict(set)
    for cidr, handles in waiting.items():
        rest()
        try:
            block = records.block(cidr)
        except BadInput:
            for handle in handles:  # nobody knows what is in it
                empty.pop(handle, None)
            continue
        for allocation in () if block is None else block.value.allocations.values():
            if allocation.handle is not None:
                empty.pop(allocation.handle, None)
            node = allocation.attributes.get("node")
            if node and belongs_to(allocation, node):
                users[node].add(cidr)
    return Survey(empty=empty, users={node: frozenset(found) for node, found in users.items()})


def drop_handle(store: Store, ipam: IPAM, handle: str, revision: Revision) -> bool:
    """Delete a handle that has no address and has not moved since; whether it was deleted."""
    key = keys.handle_key(handle)
    entry = store.get(key)
    if entry is None or entry.revision != revision:
        return False
    ipam.release_handle(handle, seen={})
    return store.get(key) is None


# --- nodes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What was given back of a node that is gone."""

    addresses: int = 0
    blocks: int = 0
    endpoints: int = 0

    def __bool__(self) -> bool:
        return bool(self.addresses or self.blocks or self.endpoints)


class Farewell:
    """Gives back what one deleted node left.

    Endpoints first, then addresses, then blocks: an endpoint must never outlive its address, and
    as long as an affinity is left others see that there is work to do.
    """

    def __init__(self, store: Store, node: str, clock: Clock, dice: Dice) -> None:
        self._store = store
        self._node = node
        self._records = Records(store)
        self._ipam = IPAM(store, node, clock, dice, node_labels={})

    def clear(
        self, blocks: Iterable[IPNetwork] = (), endpoints: Iterable[Entry] | None = None
    ) -> Cleared:
        """Give everything back; what is gone already is success.

        Args:
            blocks: where it may have addresses besides its own blocks.
            endpoints: those that may be its; None finds them by the owners of its addresses.

        Raises:
            InUse: the Node object is back.
            DatastoreUnavailable: away; call again.
        """
        claims = [record.value.block for record in self._records.affinities(self._node)]
        cidrs = tuple(dict.fromkeys((*claims, *blocks)))
        releases = list(self._releases(cidrs))
        if endpoints is None:
            namespaces = {namespace for _, namespace in releases if namespace}
            endpoints = [e for each in sorted(namespaces) for e in self._endpoints_in(each)]
        gone = sum(self._delete_endpoint(entry) for entry in endpoints)
        given = 0
        for start in range(0, len(releases), PIECE):
            self._refuse_when_back()
            piece = [release for release, _ in releases[start : start + PIECE]]
            given += len(self._ipam.release_addresses(piece).released)
        for cidr in claims:
            self._refuse_when_back()
            self._ipam.release_affinity(cidr, must_be_empty=False)
        for key in (keys.applied_key(self._node), keys.affinity_prefix(self._node).rstrip("/")):
            self._refuse_when_back()
            self._store.delete(key)
        return Cleared(addresses=given, blocks=len(claims), endpoints=gone)

    def _releases(self, cidrs: Iterable[IPNetwork]) -> Iterator[tuple[Release, str | None]]:
        """Its addresses, each with the namespace of the pod that had it."""
        for cidr in cidrs:
            record = self._records.block(cidr)
            for ordinal, taken in {} if record is None else live(record.value).items():
                if belongs_to(taken, self._node):
                    release = Release(
                        address=address_at(cidr, ordinal),
                        handle=taken.handle,
                        sequence=taken.sequence,
                    )
                    yield release, taken.attributes.get("namespace")

    def _endpoints_in(self, namespace: str) -> tuple[Entry, ...]:
        return self._store.list(keys.node_endpoint_prefix(namespace, self._node)).entries

    def _delete_endpoint(self, entry: Entry) -> bool:
        try:
            if codec.decode_endpoint(entry.key, entry.value).node != self._node:
                return False
            self._refuse_when_back()
            self._store.delete(entry.key, entry.revision)
        except (BadInput, Conflict):
            return False
        return True

    def _refuse_when_back(self) -> None:
        if self._store.get(keys.node_key(self._node)) is not None:
            raise InUse(f"Node {self._node} exists: what it has is its own")
