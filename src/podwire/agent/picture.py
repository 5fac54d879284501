"""Picture: both copies side by side, the datastore's and the kernel's, and what follows from them.

The loop's memory. Everything in it can be read again from the world; nothing is kept across runs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from podwire.agent.endpoints import LocalEndpoint, own_mtu
from podwire.agent.kernel import Kernel
from podwire.agent.mirror import Mirror, Moved
from podwire.agent.place import Place
from podwire.agent.publish import Publication
from podwire.agent.resize import Size
from podwire.desired.bgp import KERNEL_METRIC
from podwire.desired.blocks import is_reachable, is_routed, pool_of
from podwire.desired.entries import Table, table_of_key
from podwire.desired.here import Here
from podwire.desired.incremental import BlockSource, BorrowedSource, Incremental, Inputs
from podwire.desired.mtu import pod_mtu
from podwire.desired.tunnel import TunnelLink, tunnels
from podwire.desired.workloads import route
from podwire.model.addressing import contains, host_network
from podwire.model.endpoint import parse_link_alias
from podwire.model.link import HOST_MAC, IPIP_DEVICE, VXLAN_DEVICE
from podwire.model.pool import Encapsulation
from podwire.model.route import PROTOCOL_BIRD, PROTOCOL_PODWIRE, Route, RouteKey, RouteKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podwire.model.addressing import IPNetwork
    from podwire.model.config import AgentConfig
    from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
    from podwire.model.link import Link
    from podwire.model.node import Node

T = TypeVar("T")

STRAY_GRACE_S = 5.0
"""How long a veth with our mark may be unexplained before it is deleted."""
USUAL_MTU = 1500
"""Until the underlay is known; no pod is attached before."""
DOWN_GRACE_S = 0.2
"""How long a pod's host side may be down before it is set up: an ADD sets it up itself."""


class Picture:
    """What the agent knows; owned by the loop's thread, `pod_mtu` apart."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self.mirror = Mirror()
        self.kernel = Kernel()
        self.place = Place(config, self.kernel, self.mirror)
        self.here: Here | None = None
        self.incremental: Incremental | None = None
        self.publication = Publication()
        self._local: Mapping[AttachmentKey, LocalEndpoint] = {}
        self._endpoints: dict[AttachmentKey, WorkloadEndpoint] = {}
        self._keys_on: defaultdict[str, set[AttachmentKey]] = defaultdict(set)
        self._unpublished: set[IPNetwork] = set()
        self._down_since: dict[str, float | None] = {}
        self._stray_since: dict[int, float | None] = {}
        self._path_mtu = USUAL_MTU
        self._lost = False
        self._news = True
        self._pods_came = False
        self._bgp_news = True
        self._moved_nodes: set[str] = set()
        self.standing_in = False
        """Whether our routes stand in for BIRD's for a while; the loop's BGP part says so."""

    # --- look -----------------------------------------------------------------------------------

    def look(self, local: Mapping[AttachmentKey, LocalEndpoint]) -> bool:
        """Take in what moved since the last look; whether anything did."""
        seen, moved = self.kernel.take_seen(), self.mirror.take_moved()
        self._lost |= seen.lost
        self.place.look(seen, moved)
        changed = self._look_at_endpoints(local) | self._endpoints_on(seen.links)
        own = self._config.node in moved.nodes
        self._moved_nodes |= moved.nodes
        # Ours to repair: the address may have moved, a pool may want a tunnel address, or the last
        # pod that needed one may have gone.
        self._news |= moved.pools or own or self.place.concerns_address(seen)
        self._news |= any(key not in local for key in changed)
        self._pods_came |= bool(changed)
        self._bgp_news |= bool(moved.nodes or moved.pools or moved.bgp or moved.cluster)
        self._bgp_news |= bool(moved.borrowed) or IPIP_DEVICE in seen.links
        self._bgp_news |= self._is_own(moved.blocks)
        if changed or seen.links:
            self._look_at_links()
        if moved.pools:
            self._look_at_pools()
        here = self._find_here()
        # The first time is when all of it is known at last, whichever part came latest.
        anew = moved.pools or moved.felix
        if here != self.here or anew or self.incremental is None:
            self.here = here
            # Away for a moment, the node's address takes no MTU along.
            self._path_mtu = self._path_mtu if here is None else here.mtu
            self._look_at_everything()
        if self.incremental is not None:
            self._tell(self.incremental, moved, changed)
        moves = seen.links or seen.addresses or seen.default_route
        if here is not None and here.underlay.routed:
            moves = moves or seen.foreign_routes
        return bool(moves or moved or changed)

    def take_lost(self) -> bool:
        """Whether events were lost since the last call: then every table is to be listed."""
        lost, self._lost = self._lost, False
        return lost

    def take_news(self) -> bool:
        """Whether something moved that concerns this node's own objects in the datastore."""
        if not self.mirror.in_sync:
            return False  # kept for later: until then nobody knows what our objects look like
        news, self._news = self._news, False
        return news

    def take_pods_came(self) -> bool:
        """Whether pods came or changed: an ADD may have taken the block's last quarter."""
        pods_came, self._pods_came = self._pods_came, False
        return pods_came

    def take_bgp_news(self) -> bool:
        """Whether something moved that BIRD may have to be told."""
        news, self._bgp_news = self._bgp_news, False
        return news

    def take_moved_nodes(self) -> set[str]:
        """Names of the nodes that came, changed or went since the last call."""
        moved, self._moved_nodes = self._moved_nodes, set()
        return moved

    def _is_own(self, blocks: set[IPNetwork]) -> bool:
        """Whether a claim of this node's is among them, or was."""
        if not blocks:
            return False
        name, affinities = self._config.node, self.mirror.affinities
        if self.incremental is not None and blocks & self.incremental.blocks_of(name):
            return True
        claims = (affinities.get(block) for block in blocks)
        return any(claim is not None and claim.node == name for claim in claims)

    def _tell(self, incremental: Incremental, moved: Moved, changed: set[AttachmentKey]) -> None:
        for block in moved.blocks:
            incremental.on_block(block)
        for name in moved.nodes:
            incremental.on_node(name)
            self._unpublished |= incremental.blocks_of(name)
        for address in moved.borrowed:
            incremental.on_borrowed(address)
            self._unpublished.add(host_network(address))
        self._unpublished |= moved.blocks
        incremental.on_endpoints(changed)

    def _look_at_everything(self) -> None:
        if self.here is None or not self.mirror.in_sync:
            return
        inputs = Inputs(
            snapshot=self.mirror.snapshot(),
            here=self.here,
            links=self.kernel.links,
            endpoints=self._endpoints,
        )
        if self.incremental is None:
            self.incremental = Incremental(inputs)
        else:
            self.incremental.on_everything(inputs)
        self._unpublished.update(self.mirror.affinities)
        self._unpublished.update(map(host_network, self.mirror.borrowed))

    def _look_at_endpoints(
        self, local: Mapping[AttachmentKey, LocalEndpoint]
    ) -> set[AttachmentKey]:
        if local is self._local:
            return set()
        changed = {
            key
            for key in local.keys() | self._local.keys()
            if local.get(key) is not self._local.get(key)
        }
        self._local = local
        for key in changed:
            before, now = self._endpoints.pop(key, None), local.get(key)
            if before is not None:
                self._keys_on[before.interface].discard(key)
            if now is not None:
                self._endpoints[key] = now.endpoint
                self._keys_on[now.endpoint.interface].add(key)
        return changed

    def _endpoints_on(self, names: set[str]) -> set[AttachmentKey]:
        return {key for name in names for key in self._keys_on.get(name, ())}

    def _look_at_pools(self) -> None:
        kinds = {pool.encapsulation for pool in self.mirror.pools.values()}
        manages = Encapsulation.IPIP in kinds
        if manages != self.kernel.manages_ipip:
            self.kernel.manages_ipip = manages
            self.kernel.judge_addresses_again()

    def _find_here(self) -> Here | None:
        node = self.own_node()
        underlay = None if node is None else self.place.underlay(node.address)
        if node is None or underlay is None:
            return None
        return Here(
            node=node,
            underlay=underlay,
            ipip=self.kernel.index_of(IPIP_DEVICE),
            vxlan=self.kernel.index_of(VXLAN_DEVICE),
            agent_routes=self._writes_routes(),
            default_route=self.kernel.default_route,
            ways=self.place.ways(underlay),
            others_mtu=self.place.others_mtu,
        )

    def _writes_routes(self) -> bool:
        """Whether the routes to other nodes' blocks are ours to write now."""
        cluster = self.mirror.cluster
        return self.standing_in or cluster is None or cluster.wants_agent_routes

    # --- what follows ---------------------------------------------------------------------------

    def own_node(self) -> Node | None:
        """This node's own object."""
        return self.place.own_node()

    def why_blocked(self) -> str | None:
        """Why nothing may be changed at all; None when all is known that must be."""
        mirror = self.mirror
        if mirror.waiting is not None:
            return mirror.waiting
        if not mirror.in_sync:
            reason = next(iter(mirror.away.values()), None)
            return f"the datastore has not been read yet{f': {reason}' if reason else ''}"
        node = self.own_node()
        if node is None:
            if self.place.own_address() is None:
                return f"no address for this node: {self.place.why_none()}"
            return f"Node {self._config.node} is not registered"
        if node.address is None:
            return f"Node {node.name} has no address"
        if self.place.underlay(node.address) is None or self.incremental is None:
            return f"no device carries the address {node.address.ip} of Node {node.name}"
        return None

    def pod_mtu(self) -> int:
        """MTU of a new pod's veth; may be called from any thread."""
        return self._config.mtu or self.fitting_mtu()

    def fitting_mtu(self) -> int:
        """The largest packet of a pod that gets through between all nodes, by every pool."""
        return pod_mtu(tuple(self.mirror.pools.values()), self._path_mtu)

    def tunnels(self) -> tuple[TunnelLink, ...]:
        """The tunnel devices this node needs."""
        if self.here is None:
            return ()
        return tunnels(self.here, tuple(self.mirror.pools.values()))

    def way_out(self) -> str:
        """Name of a device that leads to other nodes' pods."""
        tunnels = self.tunnels()
        if tunnels:
            return tunnels[0].name
        link = None if self.here is None else self.kernel.by_index.get(self.here.underlay.device)
        return "" if link is None else link.name

    def decide(self, deadline: float, monotonic: Callable[[], float]) -> bool:
        """Work changes into desired state until the deadline; whether all are worked in."""
        incremental = self.incremental
        if incremental is None:
            return False  # nothing is desired yet, which is not the same as desiring nothing
        trackers = self.kernel.trackers
        for changes in incremental.work():
            for key, entry in changes:
                tracker = trackers[table_of_key(key)]
                if entry is None:
                    tracker.unwant(key)
                    self.kernel.forget_unwanted(key)
                else:
                    tracker.want(key, entry)
            if monotonic() >= deadline:
                break
        return incremental.is_complete

    # --- pods' links ----------------------------------------------------------------------------

    def _look_at_links(self) -> None:
        down, strays = set(), set()
        owned = {(key.container_id, key.interface) for key in self._endpoints}
        for endpoint in self._endpoints.values():
            link = self.kernel.links.get(endpoint.interface)
            if link is not None and (not link.up or link.mac != HOST_MAC):
                down.add(link.name)
        for link in self.kernel.links.values():
            owner = parse_link_alias(link.alias)
            if owner is not None and (owner.container_id, owner.interface) not in owned:
                strays.add(link.index)
        self._down_since = {name: self._down_since.get(name) for name in down}
        self._stray_since = {index: self._stray_since.get(index) for index in strays}

    def pod_links_down(self, now: float) -> list[str]:
        """Host sides of known pods that have been down for a while, or lost their MAC."""
        return _ripe(self._down_since, now, DOWN_GRACE_S)

    def sizes(self) -> tuple[Size, ...]:
        """Known pods whose MTU is not the one a new pod would get, and how it would be."""
        usual = self.pod_mtu()
        return tuple(
            Size(
                host=link,
                mtu=mtu,
                routes=tuple(
                    route(address.ip, link.index)
                    for address in endpoint.addresses
                    if address.version == 4
                ),
            )
            for endpoint in self._endpoints.values()
            if (link := self.kernel.links.get(endpoint.interface)) is not None
            and link.mtu != (mtu := own_mtu(endpoint) or usual)
        )

    def stray_links(self, now: float) -> list[Link]:
        """Veths with our mark that no endpoint has explained for a while."""
        found = _ripe(self._stray_since, now, STRAY_GRACE_S)
        return [self.kernel.by_index[index] for index in found if index in self.kernel.by_index]

    def spare(self, link: Link) -> None:
        """The stray was explained after all: look at it again after another grace period."""
        self._stray_since[link.index] = None

    def next_wait_s(self, now: float) -> float | None:
        """Seconds until a grace period ends; None when none runs."""
        moments = [s + DOWN_GRACE_S for s in self._down_since.values() if s is not None]
        moments += [s + STRAY_GRACE_S for s in self._stray_since.values() if s is not None]
        waits = [moment - now for moment in moments if moment > now]
        moving = self.place.next_wait_s(now)
        return min(waits if moving is None else [*waits, moving], default=None)

    # --- tell -----------------------------------------------------------------------------------

    def settle_publication(self) -> Publication:
        """Bring the publication up to date, once nothing is pending any more."""
        for prefix in tuple(self._unpublished):
            verdict = self._is_applied(prefix)
            if verdict is None:
                self.publication.drop(prefix)
                self._unpublished.discard(prefix)
            elif verdict:
                self.publication.add((prefix,))
                self._unpublished.discard(prefix)
        return self.publication

    def _is_applied(self, prefix: IPNetwork) -> bool | None:
        """Whether a remote prefix is reachable from here; None when it is none of those."""
        if self.here is None or self.incremental is None:
            return False
        affinity = self.mirror.affinities.get(prefix)
        if affinity is not None and is_routed(affinity):
            user: str | None = affinity.node
        else:
            user = self.mirror.borrowed.get(prefix.network_address)
        there = None if user is None else self.mirror.nodes.get(user)
        if there is None or there.name == self._config.node:
            return None
        if not self.here.agent_routes and self.is_birds(prefix):
            return self.has_bird_route(prefix)
        sources = (BlockSource(prefix), BorrowedSource(prefix.network_address))
        keys = [key for source in sources for key in self.incremental.keys_of(source)]
        # Something wanted is a way; nothing wanted may mean that none is needed.
        if not keys and not is_reachable(
            prefix, self.here, there, tuple(self.mirror.pools.values())
        ):
            return False
        for key in keys:
            pending = self.kernel.trackers[table_of_key(key)].pending
            if key in pending.writes or key in pending.conflicts:
                return False
        return True

    # --- BIRD's routes --------------------------------------------------------------------------

    def is_birds(self, prefix: IPNetwork) -> bool:
        """Whether the way to a prefix is BIRD's to write, where BIRD does."""
        pool = pool_of(prefix, self.mirror.pools.values())
        return pool is not None and pool.encapsulation is not Encapsulation.VXLAN

    def has_bird_route(self, prefix: IPNetwork) -> bool:
        """Whether BIRD's route to a prefix is in the kernel."""
        key = RouteKey(destination=prefix, metric=KERNEL_METRIC)
        route = self.kernel.trackers[Table.ROUTES].actual.get(key)
        usable = isinstance(route, Route) and route.kind is RouteKind.UNICAST
        return usable and isinstance(route, Route) and route.protocol == PROTOCOL_BIRD

    def blocks_without_bird(self) -> Iterator[IPNetwork]:
        """Blocks of other nodes that BIRD should lead to and does not."""
        for block, affinity in self.mirror.affinities.items():
            there = self.mirror.nodes.get(affinity.node)
            if there is None or there.address is None or there.name == self._config.node:
                continue
            ours = block.version == 4 and is_routed(affinity) and self.is_birds(block)
            if ours and not self.has_bird_route(block):
                yield block

    def leads_elsewhere(self) -> bool:
        """Whether a route of ours to a block of another node is in the kernel."""
        actual = self.kernel.trackers[Table.ROUTES].actual
        for block, affinity in self.mirror.affinities.items():
            route = actual.get(RouteKey(destination=block))
            ours = isinstance(route, Route) and route.protocol == PROTOCOL_PODWIRE
            if ours and affinity.node != self._config.node and self.is_birds(block):
                return True
        return False

    def stale_bird_routes(self) -> list[Route]:
        """What BIRD has written into our pools or through tunl0."""
        tunnel = self.kernel.index_of(IPIP_DEVICE)
        pools = [pool.cidr for pool in self.mirror.pools.values()]
        return [
            route
            for route in self.kernel.trackers[Table.ROUTES].actual.values()
            if isinstance(route, Route)
            and route.protocol == PROTOCOL_BIRD
            and (
                any(contains(cidr, route.key.destination) for cidr in pools)
                or any(hop.device == tunnel for hop in route.hops if tunnel is not None)
            )
        ]

    def routes_of_older_bird(self) -> list[Route]:
        """Those of them that ours cannot have written: all of its own have one metric."""
        return [route for route in self.stale_bird_routes() if route.key.metric != KERNEL_METRIC]

    def has_successor(self, route: Route) -> bool:
        """Whether ours, our BIRD's or the blackhole of our block, stands for its destination."""
        key = RouteKey(destination=route.key.destination)
        own = self.kernel.trackers[Table.ROUTES].actual.get(key)
        ours = isinstance(own, Route) and own.protocol == PROTOCOL_PODWIRE
        return ours or self.has_bird_route(route.key.destination)


def _ripe(since: dict[T, float | None], now: float, grace_s: float) -> list[T]:
    """What has been out of order for the whole grace period; the period begins at the first ask."""
    ripe: list[T] = []
    for name, start in since.items():
        if start is None:
            since[name] = now
        elif now >= start + grace_s:
            ripe.append(name)
    return ripe
