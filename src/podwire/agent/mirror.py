"""Mirror: the agent's own copy of the datastore, as far as routing is concerned.

It survives the datastore: while that is away, the copy keeps the node's network as it was. It is
told of complete listings and of changes, and keeps a list of what moved.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.errors import PodwireError
from podwire.model import keys
from podwire.model.addressing import address_at
from podwire.model.blockcodec import decode_block
from podwire.model.codec import (
    decode_affinity,
    decode_bgp_configuration,
    decode_bgp_filter,
    decode_bgp_peer,
    decode_cluster,
    decode_ipam_config,
    decode_node,
    decode_pool,
    decode_reservation,
)
from podwire.model.felix import decode_felix
from podwire.model.snapshot import Snapshot, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from podwire.boundary import Change, Entry
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.bgp import BGPConfiguration, BGPPeer
    from podwire.model.bgpfilter import BGPFilter
    from podwire.model.block import Affinity, IPAMConfig
    from podwire.model.felix import FelixSettings
    from podwire.model.node import ClusterInformation, Node
    from podwire.model.pool import IPPool, IPReservation
    from podwire.model.resource import Wire

NEEDED = (
    keys.POOLS,
    keys.NODES,
    keys.CLUSTER,
    keys.AFFINITIES,
    keys.FELIX_CONFIGURATIONS,
    keys.IPAM_CONFIG_KEY,
)
"""Prefixes that must be listed before the copy counts as complete."""
FOR_IPAM = (keys.RESERVATIONS,)
"""Followed by every agent, though no route waits for it."""
WHILE_BORROWING = keys.BLOCKS4
"""Foreign blocks are followed only while addresses may be borrowed from them."""
FOR_BIRD = (keys.BGP_CONFIGURATIONS, keys.BGP_PEERS, keys.BGP_FILTERS)
"""Followed only where BIRD writes routes."""

TUNNEL_ATTRIBUTE = "type"
"""Allocation attribute that only tunnel addresses carry; their routes follow from the Node."""


@dataclass(slots=True)
class Moved:
    """What changed in the copy since it was last asked."""

    blocks: set[IPNetwork] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    borrowed: set[IPAddress] = field(default_factory=set)
    pools: bool = False
    cluster: bool = False
    bgp: bool = False
    felix: bool = False

    def __bool__(self) -> bool:
        anything = self.blocks or self.nodes or self.borrowed or self.felix
        return bool(anything or self.pools or self.cluster or self.bgp)


class Mirror:
    """The copy; owned by the loop's thread.

    Other threads may ask for `in_sync`, `node_names`, `claimants` and `lent_to`.
    """

    def __init__(self) -> None:
        self.pools: dict[str, IPPool] = {}
        self.reservations: dict[str, IPReservation] = {}
        """Of no concern to routes; IPAM takes its rules from here."""
        self.nodes: dict[str, Node] = {}
        self.affinities: dict[IPNetwork, Affinity] = {}
        self.borrowed: dict[IPAddress, str] = {}
        self.bgp_configurations: dict[str, BGPConfiguration] = {}
        self.bgp_peers: dict[str, BGPPeer] = {}
        self.bgp_filters: dict[str, BGPFilter] = {}
        self.felix: dict[str, FelixSettings] = {}
        self.cluster: ClusterInformation | None = None
        self.ipam: IPAMConfig | None = None
        self.unreadable: dict[str, str] = {}
        """Key → why its object cannot be read. The rest is not harmed by it."""
        self.away: dict[str, str] = {}
        """Prefix → why the datastore does not tell of it at present."""
        self.waiting: str | None = None
        """What a human has to decide before the datastore is followed."""
        self._listed: set[str] = set()
        self._revisions: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._claims: defaultdict[IPNetwork, dict[str, Affinity]] = defaultdict(dict)
        self._borrowed_in: dict[IPNetwork, dict[IPAddress, str]] = {}
        self._moved = Moved()

    @property
    def in_sync(self) -> bool:
        """Whether every needed prefix was listed once."""
        needed = set(NEEDED)
        if self.borrowing:
            needed.add(WHILE_BORROWING)
        if self.wants_bird:
            needed.update(FOR_BIRD)
        return needed <= self._listed

    def vouches_for(self, prefixes: AbstractSet[str]) -> bool:
        """Whether these were listed once, and the datastore tells of all of them at present."""
        return prefixes <= self._listed and prefixes.isdisjoint(self.away)

    def needed_besides(self) -> Iterator[str]:
        """Prefixes to follow besides those every agent follows, as far as is known yet."""
        if keys.IPAM_CONFIG_KEY in self._listed and self.borrowing:
            yield WHILE_BORROWING
        if self.wants_bird:
            yield from FOR_BIRD

    @property
    def wants_bird(self) -> bool:
        """Whether BIRD writes routes in this cluster, or soon will."""
        return self.cluster is not None and self.cluster.wants_bird

    @property
    def borrowing(self) -> bool:
        """Whether nodes may use addresses of each other's blocks.

        Without a configuration Calico's default counts, which allows it.
        """
        return self.ipam is None or not self.ipam.strict_affinity

    def snapshot(self) -> Snapshot:
        """The copy as a value of live views: one cost however large the cluster is."""
        return Snapshot(
            in_sync=self.in_sync,
            pools=frozen(self.pools),
            nodes=frozen(self.nodes),
            affinities=frozen(self.affinities),
            borrowed=frozen(self.borrowed),
            bgp_configurations=frozen(self.bgp_configurations),
            bgp_peers=frozen(self.bgp_peers),
            bgp_filters=frozen(self.bgp_filters),
            felix=frozen(self.felix),
            cluster=self.cluster,
            ipam=self.ipam,
        )

    def node_names(self) -> list[str]:
        """All nodes that have a Node object; may be called from any thread."""
        return list(self.nodes)

    def claimants(self) -> set[str]:
        """All nodes that claim blocks; may be called from any thread."""
        return {affinity.node for affinity in list(self.affinities.values())}

    def lent_to(self, node: str) -> list[IPNetwork]:
        """Blocks of others the node has pod addresses in, known only while borrowing is allowed.

        May be called from any thread.
        """
        lent = list(self._borrowed_in.items())
        return [block for block, users in lent if node in tuple(users.values())]

    def take_moved(self) -> Moved:
        """What moved since the last call."""
        moved, self._moved = self._moved, Moved()
        return moved

    def on_listing(
        self, prefix: str, entries: Iterable[Entry], *, is_restored: bool = False
    ) -> None:
        """Everything below the prefix, as it is now; what is not in it is gone.

        Of a datastore that was restored even what has the revision it had is read anew.
        """
        known = self._revisions[prefix]
        gone = set(known)
        for entry in entries:
            gone.discard(entry.key)
            if is_restored or known.get(entry.key) != entry.revision:
                known[entry.key] = entry.revision
                self._put(entry.key, entry.value)
        for key in gone:
            del known[key]
            self._drop(key)
        self._listed.add(prefix)
        self.away.pop(prefix, None)

    def on_changes(self, prefix: str, changes: Iterable[Change]) -> None:
        """Objects below the prefix were written or deleted, in this order."""
        known = self._revisions[prefix]
        for change in changes:
            if change.entry is None:
                known.pop(change.key, None)
                self._drop(change.key)
            else:
                known[change.key] = change.entry.revision
                self._put(change.key, change.entry.value)
        self.away.pop(prefix, None)

    def on_away(self, prefix: str, reason: str) -> None:
        """The datastore does not answer; what is known stays."""
        self.away[prefix] = reason

    def _put(self, key: str, value: Wire) -> None:
        try:
            self._decode(key, value)
        except PodwireError as error:
            # Keep what was known of it: a typo in one object must not cut off a node.
            self.unreadable[key] = error.message
        else:
            self.unreadable.pop(key, None)

    def _decode(self, key: str, value: Wire) -> None:
        if (name := keys.parse_pool_key(key)) is not None:
            self.pools[name] = decode_pool(key, value)
            self._moved.pools = True
        elif (name := keys.parse_reservation_key(key)) is not None:
            self.reservations[name] = decode_reservation(key, value)
        elif (name := keys.parse_node_key(key)) is not None:
            self.nodes[name] = decode_node(key, value)
            self._moved.nodes.add(name)
        elif (claim := keys.parse_affinity_key(key)) is not None:
            node, block = claim
            self._claims[block][node] = decode_affinity(key, value)
            self._choose(block)
        elif (block_cidr := keys.parse_block_key(key)) is not None:
            self._set_borrowed(block_cidr, borrowed_in(key, value))
        elif self._decode_bgp(key, value):
            self._moved.bgp = True
        elif (name := keys.parse_felix_key(key)) is not None:
            self.felix[name] = decode_felix(key, value)
            self._moved.felix = True
        elif key == keys.IPAM_CONFIG_KEY:
            self.ipam = decode_ipam_config(key, value)
            self._moved.cluster = True
        elif keys.parse_cluster_key(key) == "default":
            self.cluster = decode_cluster(key, value)
            self._moved.cluster = True

    def _decode_bgp(self, key: str, value: Wire) -> bool:
        if (name := keys.parse_bgp_configuration_key(key)) is not None:
            self.bgp_configurations[name] = decode_bgp_configuration(key, value)
        elif (name := keys.parse_bgp_peer_key(key)) is not None:
            self.bgp_peers[name] = decode_bgp_peer(key, value)
        elif (name := keys.parse_bgp_filter_key(key)) is not None:
            self.bgp_filters[name] = decode_bgp_filter(key, value)
        else:
            return False
        return True

    def _drop_bgp(self, key: str) -> bool:
        if (name := keys.parse_bgp_configuration_key(key)) is not None:
            self.bgp_configurations.pop(name, None)
        elif (name := keys.parse_bgp_peer_key(key)) is not None:
            self.bgp_peers.pop(name, None)
        elif (name := keys.parse_bgp_filter_key(key)) is not None:
            self.bgp_filters.pop(name, None)
        else:
            return False
        return True

    def _drop(self, key: str) -> None:
        self.unreadable.pop(key, None)
        if (name := keys.parse_pool_key(key)) is not None:
            self.pools.pop(name, None)
            self._moved.pools = True
        elif (name := keys.parse_reservation_key(key)) is not None:
            self.reservations.pop(name, None)
        elif (name := keys.parse_node_key(key)) is not None:
            self.nodes.pop(name, None)
            self._moved.nodes.add(name)
        elif (claim := keys.parse_affinity_key(key)) is not None:
            node, block = claim
            self._claims[block].pop(node, None)
            self._choose(block)
        elif (block_cidr := keys.parse_block_key(key)) is not None:
            self._set_borrowed(block_cidr, {})
        elif self._drop_bgp(key):
            self._moved.bgp = True
        elif (name := keys.parse_felix_key(key)) is not None:
            self.felix.pop(name, None)
            self._moved.felix = True
        elif key == keys.IPAM_CONFIG_KEY:
            self.ipam = None
            self._moved.cluster = True
        elif keys.parse_cluster_key(key) == "default":
            self.cluster = None
            self._moved.cluster = True

    def _choose(self, block: IPNetwork) -> None:
        """Of the claims on one block the confirmed one counts; two nodes may be racing for it."""
        claims = self._claims[block]
        self._moved.blocks.add(block)
        if not claims:
            del self._claims[block]
            self.affinities.pop(block, None)
            return
        self.affinities[block] = min(
            claims.values(), key=lambda claim: (claim.deleted, _ORDER[claim.state], claim.node)
        )

    def _set_borrowed(self, block: IPNetwork, borrowed: dict[IPAddress, str]) -> None:
        before = self._borrowed_in.pop(block, {})
        if borrowed:
            self._borrowed_in[block] = borrowed
        for address in before.keys() | borrowed.keys():
            if before.get(address) == borrowed.get(address):
                continue
            self.borrowed.pop(address, None)
            if address in borrowed:
                self.borrowed[address] = borrowed[address]
            self._moved.borrowed.add(address)


_ORDER: Mapping[str, int] = {"confirmed": 0, "pending": 1, "pendingDeletion": 2}


def borrowed_in(key: str, value: Wire) -> dict[IPAddress, str]:
    """Addresses of a block that are used on another node than the one that holds it.

    Raises:
        BadInput: the block cannot be read.
    """
    block = decode_block(key, value)
    found: dict[IPAddress, str] = {}
    for ordinal, allocation in block.allocations.items():
        user = allocation.attributes.get("node")
        if user is None or user == block.node or allocation.released_at is not None:
            continue
        if TUNNEL_ATTRIBUTE not in allocation.attributes:
            found[address_at(block.cidr, ordinal)] = user
    return found
