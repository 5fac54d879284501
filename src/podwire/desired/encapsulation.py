"""How packets of one pool cross from here to there: on the wire as they are, or in a tunnel."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from podwire.model.node import same_subnet
from podwire.model.pool import Encapsulation, Mode

if TYPE_CHECKING:
    from podwire.model.node import Node
    from podwire.model.pool import IPPool


class Way(Enum):
    """The way from this node to another one, for the packets of one pool."""

    PLAIN = "plain"
    """The pool has no tunnel and the other node is our neighbour on the underlay."""
    DIRECT = "direct"
    """The pool has a tunnel, which is not used inside our own subnet (CrossSubnet)."""
    FABRIC = "fabric"
    """No tunnel and another subnet: the routers in between know the way; we add no route."""
    IPIP = "ipip"
    VXLAN = "vxlan"


def way(pool: IPPool, here: Node, there: Node) -> Way:
    """Decide for one pool and one other node; CrossSubnet looks at our own node's subnet."""
    near = same_subnet(here, there)
    if pool.encapsulation is Encapsulation.NONE:
        return Way.PLAIN if near else Way.FABRIC
    if pool.mode is Mode.CROSS_SUBNET and near:
        return Way.DIRECT
    return Way.IPIP if pool.encapsulation is Encapsulation.IPIP else Way.VXLAN
