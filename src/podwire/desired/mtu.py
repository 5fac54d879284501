"""MTU: what is left for a pod's packet once the tunnels have taken their headers.

What counts is the narrowest underlay of the whole cluster. A packet that fits into the sender's
tunnel and not through the receiver's wire would be lost without a word; so every agent publishes
what its underlay carries, and tunnels and new pods everywhere keep to the smallest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.link import LARGEST_MTU
from podwire.model.overlay import IPIP_OVERHEAD, VXLAN_OVERHEAD
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.model.node import Node
    from podwire.model.pool import IPPool

OVERHEAD = {
    Encapsulation.NONE: 0,
    Encapsulation.IPIP: IPIP_OVERHEAD,
    Encapsulation.VXLAN: VXLAN_OVERHEAD,
}
"""Bytes each encapsulation adds to a packet."""


def tunnel_mtu(encapsulation: Encapsulation, host_mtu: int) -> int:
    """Largest packet that fits into the tunnel when the underlay carries `host_mtu` bytes."""
    return host_mtu - OVERHEAD[encapsulation]


def pod_mtu(pools: Iterable[IPPool], host_mtu: int) -> int:
    """MTU of a new pod's veth; the smallest over all enabled pools.

    A pod may talk to pods of every pool, so the pool its own address is from does not decide.
    """
    enabled = (pool.encapsulation for pool in pools if not pool.disabled)
    return min((tunnel_mtu(kind, host_mtu) for kind in enabled), default=host_mtu)


def narrowest(nodes: Iterable[Node]) -> tuple[int, str | None]:
    """The smallest underlay MTU among nodes, and whose it is; None where no node says anything."""
    said = [
        (node.underlay_mtu, node.name)
        for node in nodes
        if node.underlay_mtu is not None and node.address is not None
    ]
    return min(said, default=(LARGEST_MTU, None))
