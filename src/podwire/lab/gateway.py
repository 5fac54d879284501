"""The gateway's routes where nothing is encapsulated.

The router between the subnets must know which node holds which block, as a real one would by BGP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.drivers.store import open_store
from podwire.errors import Compacted, DatastoreUnavailable
from podwire.lab.entry import enter_place, rename_process
from podwire.lab.fabric import bridge_of
from podwire.lab.state import DATASTORE
from podwire.lab.topology import UNDERLAY
from podwire.model import keys
from podwire.model.block import AffinityState
from podwire.model.codec import decode_affinity
from podwire.model.config import DatastoreConfig
from podwire.model.route import PROTOCOL_STATIC, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podwire.boundary import Entry
    from podwire.lab.topology import Topology
    from podwire.model.addressing import IPNetwork


def explain_gateway(topology: Topology) -> Iterator[str]:
    """What a person would type for the blocks known from the start; the rest is followed."""
    yield "\n# the gateway learns which node holds which block, now and later"
    for name, block in topology.story_blocks.items():
        node = topology.node(name)
        yield (
            f"ip -n {UNDERLAY} route replace {block} via {node.address.ip} "
            f"dev {bridge_of(topology, node)}"
        )


def follow_blocks(topology: Topology) -> int:
    """Keep the gateway's block routes as the datastore has them; does not return."""
    rename_process("gateway")
    enter_place(f"/run/netns/{UNDERLAY}", UNDERLAY, keep_names=True)
    store = open_store(DatastoreConfig(path=str(DATASTORE)))
    with Session.open() as session:
        routes = GatewayRoutes(session, topology)
        while True:
            listing = store.list(keys.AFFINITIES)
            routes.replace_all(listing.entries)
            watch = store.watch(keys.AFFINITIES, listing.revision)
            try:
                while True:
                    if watch.wait():
                        routes.replace_all(store.list(keys.AFFINITIES).entries)
            except (Compacted, DatastoreUnavailable):
                watch.close()


class GatewayRoutes:
    """The routes of the gateway that lead to pods."""

    def __init__(self, session: Session, topology: Topology) -> None:
        self._session = session
        self._topology = topology
        self._bridges = {
            node.name: session.link(bridge_of(topology, node)) for node in topology.nodes
        }
        self._written: dict[IPNetwork, Route] = {}

    def replace_all(self, entries: Iterable[Entry]) -> None:
        """Make the routes those of the confirmed affinities, and no others."""
        wanted = {}
        for entry in entries:
            affinity = decode_affinity(entry.key, entry.value)
            if affinity.state is AffinityState.CONFIRMED and affinity.node in self._bridges:
                wanted[affinity.block] = self._route(affinity.block, affinity.node)
        writes = [
            requests.replace_route(route)
            for block, route in wanted.items()
            if self._written.get(block) != route
        ]
        deletes = [
            requests.delete_route(route)
            for block, route in self._written.items()
            if block not in wanted
        ]
        self._session.apply([*writes, *deletes])
        self._written = wanted

    def _route(self, block: IPNetwork, node: str) -> Route:
        bridge = self._bridges[node]
        assert bridge is not None
        hop = NextHop(device=bridge.index, gateway=self._topology.node(node).address.ip)
        return Route(key=RouteKey(destination=block), protocol=PROTOCOL_STATIC, hops=(hop,))
