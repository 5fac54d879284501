"""What a check looks at: everything in the datastore at one moment, decoded. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from podwire.errors import BadInput
from podwire.ipam.allocation import live
from podwire.ipam.leftovers import belongs_to, objectors
from podwire.ipam.problem import REPAIR, Problem, Trouble, User
from podwire.ipam.soundness import faults, lost_owners, mended
from podwire.model import codec, keys
from podwire.model.addressing import address_at
from podwire.model.block import Affinity, Block, Handle
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import ClusterInformation, Node
from podwire.model.pool import IPPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from podwire.boundary import Entry
    from podwire.model.addressing import IPAddress
    from podwire.model.resource import Wire

T = TypeVar("T")

KNOWN_TUNNELS = ("ipipTunnelAddress", "vxlanTunnelAddress")
"""Types whose user we can name; the other TUNNEL_TYPES are Calico's."""
READABLE_FIRST = "mend the endpoint or Node that cannot be read, then check again"
BY_HAND = "set datastoreReady: false, and put it right with the datastore's own tools"
_USERS = (keys.NODES, keys.ENDPOINTS)
_MENDED = (keys.AFFINITIES, keys.HANDLES)
_WATCHED = (keys.POOLS, *_USERS, keys.BLOCKS, *_MENDED)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A user of an address, and the attributes its allocation should have."""

    user: User
    expected: Mapping[str, str]


class World:
    """Everything of interest, decoded."""

    def __init__(self, entries: Iterable[Entry], now: datetime | None) -> None:
        self.now = now
        self.unreadable: list[Problem] = []
        self.users_unreadable = False
        self.node_names: set[str] = set()
        self.objections: dict[str, int] = {}
        found: list[object] = []
        self.entries = {entry.key: entry for entry in entries}
        broken: list[tuple[Entry, BadInput]] = []
        for entry in self.entries.values():
            self._take(entry, found, broken)
        self.unreadable += [
            broken_block(entry, error, now, users_known=not self.users_unreadable)
            for entry, error in broken
        ]
        self.pools = _of(found, IPPool)
        self.nodes = _of(found, Node)
        self.endpoints = _of(found, WorkloadEndpoint)
        self.blocks = [each for each in _of(found, Block) if not each.deleted]
        self.affinities = [each for each in _of(found, Affinity) if not each.deleted]
        self.handles = {each.id: each for each in _of(found, Handle) if not each.deleted}
        self.guid = next((each.guid for each in _of(found, ClusterInformation)), None)
        self.claimed = {claim for key in self.entries if (claim := keys.parse_affinity_key(key))}
        """Node and block of every affinity, also of those that cannot be read."""
        self.unsure = {each.block for each in self.unreadable if each.block is not None}
        """Blocks that cannot be read: nobody knows what is in them."""
        self.taken = {
            address_at(block.cidr, ordinal): allocation
            for block in self.blocks
            for ordinal, allocation in live(block).items()
        }
        self.users = self._users()
        self.lost = self._lost()

    def _take(
        self, entry: Entry, found: list[object], broken: list[tuple[Entry, BadInput]]
    ) -> None:
        key = entry.key
        if (name := keys.parse_node_key(key)) is not None:
            self.node_names.add(name)  # also one that cannot be read is there
        if key.startswith(keys.OBJECTIONS):
            node = keys.parse_objection_key(key)
            if node is not None:
                self.objections[node] = objectors(entry)
            return
        if key.startswith(keys.AFFINITIES) and keys.parse_affinity_key(key) is None:
            return  # the bare marker of a host
        try:
            found.append(codec.decode(key, entry.value))
        except BadInput as error:
            if key.startswith(keys.BLOCKS):
                broken.append((entry, error))
            elif key.startswith(_WATCHED):
                self.users_unreadable |= key.startswith(_USERS)
                self.unreadable.append(
                    Problem(
                        trouble=Trouble.UNREADABLE,
                        subject=key,
                        sentence=error.message,
                        fix=REPAIR if key.startswith(_MENDED) else "apply it anew, or delete it",
                    )
                )

    def _users(self) -> Mapping[IPAddress, list[Claimed]]:
        found: defaultdict[IPAddress, list[Claimed]] = defaultdict(list)
        for endpoint in self.endpoints:
            owner = {
                "node": endpoint.node,
                "namespace": endpoint.metadata.namespace or "default",
                "pod": endpoint.pod or endpoint.container_id,
            }
            for interface in endpoint.addresses:
                user = User(f"pod {endpoint.title}", endpoint.node)
                found[interface.ip].append(Claimed(user, owner))
        for node in self.nodes:
            tunnels = zip((node.ipip_tunnel, node.vxlan_tunnel), KNOWN_TUNNELS, strict=True)
            for address, type_ in tunnels:
                if address is not None:
                    user = User(f"the tunnel of node {node.name}", node.name)
                    found[address].append(Claimed(user, {"node": node.name, "type": type_}))
        return found

    def _lost(self) -> dict[str, Counter[str]]:
        """Nodes that are named and are none, and how much is left of them."""
        left: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for claim in self.affinities:
            left[claim.node]["affinity"] += 1
        for block in self.blocks:
            if block.node is not None:
                left[block.node]["block"] += 1
        for allocation in self.taken.values():
            node = allocation.attributes.get("node")
            if node and belongs_to(allocation, node):
                left[node]["address"] += 1
        for endpoint in self.endpoints:
            left[endpoint.node]["endpoint"] += 1
        return {node: counts for node, counts in left.items() if node not in self.node_names}


def broken_block(
    entry: Entry, error: BadInput, now: datetime | None, *, users_known: bool
) -> Problem:
    """A block that cannot be read as one.

    It is mended only where all users of addresses are known: what has lost its owner becomes free.
    """
    cidr = keys.parse_block_key(entry.key)
    size = 0 if cidr is None else cidr.num_addresses
    wire: Wire = dict(entry.value)  # what is no JSON object has no fields, and does not say so
    said = "; ".join(faults(wire, size, now)) or error.message
    lost = [] if cidr is None else [address_at(cidr, o) for o in lost_owners(wire) if o < size]
    mendable = cidr is not None and (now is None or _can_be_mended(entry.key, wire, size, now))
    repairable = mendable and (users_known or not lost)
    return Problem(
        trouble=Trouble.BROKEN_BLOCK,
        subject=str(cidr or entry.key),
        sentence=f"block {cidr or entry.key}: {said}"
        + (f" ({', '.join(map(str, lost))} would become free)" if lost and repairable else ""),
        fix=REPAIR if repairable else READABLE_FIRST if mendable else BY_HAND,
        block=cidr,
        sequence=_number(wire.get("sequenceNumber")),
    )


def _can_be_mended(key: str, wire: Wire, size: int, now: datetime) -> bool:
    whole = mended(wire, size, now)
    try:
        if whole is not None:
            codec.decode_block(key, whole)
    except BadInput:
        return False
    return whole is not None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _of(found: Iterable[object], kind: type[T]) -> list[T]:
    return [each for each in found if isinstance(each, kind)]
