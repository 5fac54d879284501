"""The cluster of the story as a Snapshot: six nodes, one pool, one block a node."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from podwire.model.block import Affinity
from podwire.model.node import Node
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

BLOCKS = {
    "vms100": "10.244.239.128/26",
    "vms101": "10.244.198.0/26",
    "vms102": "10.244.63.64/26",
    "vms103": "10.244.38.128/26",
    "vms105": "10.244.169.64/26",
    "vms106": "10.244.31.64/26",
}


def story_cluster() -> Snapshot:
    nodes, affinities = {}, {}
    for name, text in BLOCKS.items():
        block = ip_network(text)
        affinities[block] = Affinity(node=name, block=block)
        nodes[name] = Node(
            metadata=Metadata(name=name),
            address=ip_interface(f"192.168.26.{name.removeprefix('vms')}/24"),
            ipip_tunnel=ip_address(int(block.network_address)),
        )
    pool = IPPool(
        metadata=Metadata(name="default-ipv4-ippool"),
        cidr=ip_network("10.244.0.0/16"),
        ipip_mode=Mode.ALWAYS,
    )
    return Snapshot(in_sync=True, nodes=nodes, affinities=affinities, pools={pool.name: pool})
