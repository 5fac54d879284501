"""What a lab's datastore holds before the first agent starts: cluster, pool, the story's blocks."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from podwire.boundary import Verb, Write
from podwire.drivers.store import ensure_cluster
from podwire.ipam.allocation import new_block
from podwire.lab.router import ROUTER_AS
from podwire.model.bgp import BGPConfiguration, BGPPeer
from podwire.model.block import Affinity
from podwire.model.codec import encode, key_of
from podwire.model.node import Node
from podwire.model.pool import Encapsulation, IPPool, Mode
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.boundary import Store
    from podwire.lab.topology import Topology
    from podwire.model.resource import Stored

POOL_NAME = "default-ipv4-ippool"
REFLECTOR_LABEL = "route-reflector"
CLUSTER_ID = "224.0.0.1"


def seed(store: Store, topology: Topology) -> None:
    """Write the first objects, all or nothing."""
    ensure_cluster(store, routing=topology.routing)
    now, now_ns = datetime.now(UTC), time.time_ns()
    objects: list[Stored] = [pool_of(topology, created=now)]
    for node, block in topology.story_blocks.items():
        # What IPAM would choose from a hash of the host's name; the story's hosts hold these.
        objects.append(Affinity(node=node, block=block))
        objects.append(new_block(block, node, now=now, now_ns=now_ns))
    objects += bgp_of(topology, created=now)
    writes = [Write(verb=Verb.CREATE, key=key_of(one), value=encode(one)) for one in objects]
    if store.can_batch:
        store.batch(writes)
    else:
        for one in objects:
            store.create(key_of(one), encode(one))


def pool_of(topology: Topology, created: datetime) -> IPPool:
    """The lab's pool."""

    def mode_of(encapsulation: Encapsulation) -> Mode:
        return topology.mode if topology.encapsulation is encapsulation else Mode.NEVER

    return IPPool(
        metadata=Metadata(name=POOL_NAME).born(uuid.uuid4(), created),
        cidr=topology.pool,
        block_size=topology.block_size,
        ipip_mode=mode_of(Encapsulation.IPIP),
        vxlan_mode=mode_of(Encapsulation.VXLAN),
    )


def bgp_of(topology: Topology, created: datetime) -> Iterator[Stored]:
    """Who peers with whom, besides the mesh of all nodes that is there by itself."""

    def named(name: str, labels: Mapping[str, str] | None = None) -> Metadata:
        return Metadata(name=name, labels=labels or {}).born(uuid.uuid4(), created)

    if topology.tor is not None:
        for node in topology.nodes:
            yield BGPPeer(
                metadata=named(f"tor-{node.name}"),
                node=node.name,
                address=node.gateway,
                as_number=ROUTER_AS,
            )
    if topology.reflectors:
        for node in topology.nodes[: topology.reflectors]:
            yield Node(
                metadata=named(node.name, {REFLECTOR_LABEL: "true"}),
                route_reflector_cluster_id=CLUSTER_ID,
            )
        yield BGPPeer(
            metadata=named("reflectors"),
            node_selector="all()",
            peer_selector=f"has({REFLECTOR_LABEL})",
        )
        yield BGPConfiguration(metadata=named("default"), mesh=False)
