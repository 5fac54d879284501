"""Incremental: desired state kept up to date, at a cost that follows the change.

Every entry is wanted by a *source*: a block, another node, a local endpoint, a borrowed address, or
this node itself. A change names the sources it touches; each is then computed anew by the same pure
functions that `compute` uses, and only entries that differ afterwards are told.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, assert_never

from podwire.desired import blocks, overlay, workloads
from podwire.desired.entries import Entry, Key, RouteClass, Sysctl, Want, key_of
from podwire.desired.sysctls import OF_NODE, of_tunnel
from podwire.desired.tunnel import tunnels
from podwire.model.addressing import POD_GATEWAY, host_network, parse_interface
from podwire.model.felix import settings_for
from podwire.model.link import IPIP_DEVICE, VXLAN_DEVICE, Address
from podwire.model.route import SCOPE_LINK, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from podwire.desired.here import Here
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
    from podwire.model.link import Link
    from podwire.model.pool import IPPool
    from podwire.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class HereSource:
    """This node itself."""


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """A pod of this node."""

    key: AttachmentKey


@dataclass(frozen=True, slots=True)
class NodeSource:
    """The existence of another node."""

    name: str


@dataclass(frozen=True, slots=True)
class BlockSource:
    """A claim on a block."""

    block: IPNetwork


@dataclass(frozen=True, slots=True)
class BorrowedSource:
    """An address used outside the node that holds its block."""

    address: IPAddress


Source: TypeAlias = HereSource | EndpointSource | NodeSource | BlockSource | BorrowedSource
"""Who wants an entry."""

Change: TypeAlias = tuple[Key, Entry | None]
"""An entry that is now wanted so, or no longer (None)."""


def _none() -> Mapping[AttachmentKey, WorkloadEndpoint]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything desired state is computed from.

    The mappings may be views that change underneath, if every change is told to `Incremental`.
    """

    snapshot: Snapshot
    here: Here
    links: Mapping[str, Link]
    """This node's devices by name."""
    endpoints: Mapping[AttachmentKey, WorkloadEndpoint] = field(default_factory=_none)
    """The pods of this node."""


def of_source(source: Source, inputs: Inputs, pools: Collection[IPPool]) -> tuple[Want, ...]:
    """What one source wants now; nothing once it is gone."""
    snapshot, here = inputs.snapshot, inputs.here
    match source:
        case HereSource():
            return of_here(here, pools)
        case EndpointSource(key):
            endpoint = inputs.endpoints.get(key)
            link = None if endpoint is None else inputs.links.get(endpoint.interface)
            if endpoint is None or link is None:
                return ()
            felix = settings_for(here.node.name, snapshot.felix)
            may = bool(felix.source_spoofing)
            return workloads.of_endpoint(endpoint, link.index, may_spoof=may)
        case NodeSource(name):
            node = snapshot.nodes.get(name)
            return () if node is None else overlay.of_node(node, here, snapshot.affinities, pools)
        case BlockSource(block):
            affinity = snapshot.affinities.get(block)
            if affinity is None:
                return ()
            return blocks.of_affinity(affinity, here, snapshot.nodes, pools)
        case BorrowedSource(address):
            user = snapshot.borrowed.get(address)
            there = None if user is None else snapshot.nodes.get(user)
            if there is None or there.name == here.node.name:
                return ()
            return blocks.towards(host_network(address), here, there, pools)
        case _:
            assert_never(source)


def of_here(here: Here, pools: Collection[IPPool]) -> tuple[Want, ...]:
    """What the node itself needs: forwarding, its tunnels' addresses, a way for proxy ARP."""
    switches = dict(OF_NODE)
    entries: list[Entry] = []
    indexes = {IPIP_DEVICE: here.ipip, VXLAN_DEVICE: here.vxlan}
    for tunnel in tunnels(here, pools):
        device = indexes[tunnel.name]
        if device is None:
            continue
        switches |= of_tunnel(tunnel.name)
        if tunnel.address is not None:
            interface = parse_interface(str(host_network(tunnel.address)))
            entries.append(Address(device=device, interface=interface))
    if not here.default_route:
        entries.append(gateway_route(here.underlay.device))
    entries += (Sysctl(name=name, value=value) for name, value in switches.items())
    return tuple(Want(entry, RouteClass.NODE) for entry in entries)


def gateway_route(device: int) -> Route:
    """`169.254.1.1 dev <underlay> scope link`, for a node without a default route.

    Proxy ARP answers a pod's question for its gateway only if this node would forward to that
    address through another device (arp_process in net/ipv4/arp.c).
    """
    return Route(
        key=RouteKey(destination=host_network(POD_GATEWAY)),
        scope=SCOPE_LINK,
        hops=(NextHop(device=device),),
    )


class Incremental:
    """Desired state, source by source.

    Invariant: once `work` has no more to tell, the told entries equal those of a fresh instance.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._pools = tuple(inputs.snapshot.pools.values())
        self._dirty: dict[Source, None] = {}
        self._by_source: dict[Source, tuple[Want, ...]] = {}
        self._rivals: dict[Key, dict[Source, Want]] = {}
        self._blocks_of: defaultdict[str, set[IPNetwork]] = defaultdict(set)
        self._node_of: dict[IPNetwork, str] = {}
        self._tunnels_in: defaultdict[IPNetwork, set[str]] = defaultdict(set)
        self._tunnel_blocks: dict[str, frozenset[IPNetwork]] = {}
        self.on_everything(inputs)

    @property
    def is_complete(self) -> bool:
        """Whether every change told so far is worked in; before that nothing may be deleted."""
        return not self._dirty

    @property
    def inputs(self) -> Inputs:
        """What it is computed from."""
        return self._inputs

    def on_everything(self, inputs: Inputs) -> None:
        """The node itself or a pool changed: every source is computed again."""
        self._inputs = inputs
        self._pools = tuple(inputs.snapshot.pools.values())
        self._dirty |= dict.fromkeys(self._by_source)
        self._dirty[HereSource()] = None
        for name in inputs.snapshot.nodes:
            self._index_tunnels(name)
            self._dirty[NodeSource(name)] = None
        for block in inputs.snapshot.affinities:
            self._index_block(block)
            self._dirty[BlockSource(block)] = None
        for key in inputs.endpoints:
            self._dirty[EndpointSource(key)] = None
        for address in inputs.snapshot.borrowed:
            self._dirty[BorrowedSource(address)] = None

    def on_block(self, block: IPNetwork) -> None:
        """A claim on the block came, changed or went."""
        self._index_block(block)
        self._dirty[BlockSource(block)] = None
        for name in self._tunnels_in.get(block, ()):
            self._dirty[NodeSource(name)] = None

    def on_node(self, name: str) -> None:
        """A Node came, changed or went; with it every route that leads there."""
        self._index_tunnels(name)
        self._dirty[NodeSource(name)] = None
        for block in self._blocks_of.get(name, ()):
            self._dirty[BlockSource(block)] = None
        for address, user in self._inputs.snapshot.borrowed.items():
            if user == name:
                self._dirty[BorrowedSource(address)] = None

    def on_borrowed(self, address: IPAddress) -> None:
        """An address began or ceased to be used outside its block's node."""
        self._dirty[BorrowedSource(address)] = None

    def on_endpoints(self, keys: Iterable[AttachmentKey]) -> None:
        """Local endpoints came, changed or went, or their links did."""
        for key in keys:
            self._dirty[EndpointSource(key)] = None

    def work(self) -> Iterator[tuple[Change, ...]]:
        """Compute one dirty source after the other; yields for each what differs afterwards.

        May be left at any point and taken up again later: that is how bulk work is cut in pieces.
        """
        while self._dirty:
            source = next(iter(self._dirty))
            del self._dirty[source]
            yield tuple(self._put(source, of_source(source, self._inputs, self._pools)))

    def entries(self) -> Iterator[Entry]:
        """Every entry wanted by the sources worked in so far, each key once."""
        for rivals in self._rivals.values():
            yield _winner(rivals)

    def keys_of(self, source: Source) -> tuple[Key, ...]:
        """Keys one source wants: to tell when a block is applied."""
        return tuple(key_of(want.entry) for want in self._by_source.get(source, ()))

    def blocks_of(self, node: str) -> frozenset[IPNetwork]:
        """Blocks a node has a claim on."""
        return frozenset(self._blocks_of.get(node, ()))

    def _put(self, source: Source, wants: tuple[Want, ...]) -> Iterator[Change]:
        before = self._by_source.get(source, ())
        if wants == before:
            return
        if wants:
            self._by_source[source] = wants
        else:
            del self._by_source[source]
        after = {key_of(want.entry): want for want in wants}
        for key in after.keys() | {key_of(want.entry) for want in before}:
            yield from self._settle(key, source, after.get(key))

    def _settle(self, key: Key, source: Source, want: Want | None) -> Iterator[Change]:
        rivals = self._rivals.setdefault(key, {})
        before = _winner(rivals) if rivals else None
        if want is None:
            rivals.pop(source, None)
        else:
            rivals[source] = want
        after = _winner(rivals) if rivals else None
        if not rivals:
            del self._rivals[key]
        if after != before:
            yield key, after

    def _index_block(self, block: IPNetwork) -> None:
        before = self._node_of.pop(block, None)
        if before is not None:
            self._blocks_of[before].discard(block)
        affinity = self._inputs.snapshot.affinities.get(block)
        if affinity is not None:
            self._node_of[block] = affinity.node
            self._blocks_of[affinity.node].add(block)

    def _index_tunnels(self, name: str) -> None:
        for block in self._tunnel_blocks.pop(name, frozenset()):
            self._tunnels_in[block].discard(name)
        node = self._inputs.snapshot.nodes.get(name)
        if node is None:
            return
        found = {
            overlay.tunnel_block(address, self._pools)
            for address in (node.ipip_tunnel, node.vxlan_tunnel)
            if address is not None
        }
        self._tunnel_blocks[name] = frozenset(block for block in found if block is not None)
        for block in self._tunnel_blocks[name]:
            self._tunnels_in[block].add(name)


def _winner(rivals: Mapping[Source, Want]) -> Entry:
    """The entry of the strongest class; among equals always the same one, whatever came first."""
    if len(rivals) == 1:
        return next(iter(rivals.values())).entry
    chosen = min(rivals, key=lambda source: (rivals[source].route_class, str(source)))
    return rivals[chosen].entry
