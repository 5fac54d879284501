"""Node and ClusterInformation: who takes part, and the cluster's own choices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.model.addressing import contains
from podwire.model.resource import Stored

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.resource import Metadata

IPIP_TUNNEL_HANDLE = "ipip-tunnel-addr-{node}"
VXLAN_TUNNEL_HANDLE = "vxlan-tunnel-addr-{node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Stored):
    """A machine, or a network namespace of a lab, that runs the agent."""

    metadata: Metadata
    address: IPInterface | None = None
    """BGP address with the prefix length of its subnet; what other nodes send to."""
    address6: IPInterface | None = None
    ipip_tunnel: IPAddress | None = None
    vxlan_tunnel: IPAddress | None = None
    vxlan_mac: str | None = None
    """Set only when it differs from `overlay.vtep_mac(name)`."""
    underlay_mtu: int | None = None
    """Annotation `podwire.io/underlay-mtu`: bytes its way to other nodes carries, as its own agent
    says; None when it says nothing one can read."""
    as_number: int | None = None
    route_reflector_cluster_id: str | None = None

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name


class Routing(StrEnum):
    """Who writes the routes to other nodes' blocks; one value for the whole cluster."""

    AGENT = "agent"
    BIRD = "bird"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInformation(Stored):
    """Facts about the whole cluster (the object is named `default`)."""

    metadata: Metadata
    guid: str
    ready: bool = True
    """datastoreReady; False freezes ADD and DEL."""
    cluster_type: str = "podwire"
    version: str | None = None
    routing: Routing = Routing.AGENT
    """Annotation `podwire.io/routing`; absent means agent."""
    next_routing: Routing | None = None
    """Annotation `podwire.io/next-routing`: during a switch, who is to write the routes after it.
    Until then both do, the agent's routes counting."""
    undecided: bool = False
    """Calico made the cluster, and nobody has said who writes the routes: `routing` is a default
    that its nodes know nothing of."""

    @property
    def wants_bird(self) -> bool:
        """Whether BIRD has work to do, now or soon."""
        return Routing.BIRD in {self.routing, self.next_routing}

    @property
    def wants_agent_routes(self) -> bool:
        """Whether the agents write the routes to other nodes' blocks, alone or during a switch."""
        return Routing.AGENT in {self.routing, self.next_routing}


def same_subnet(here: Node, there: Node) -> bool:
    """Whether `there`'s address lies in our own node's subnet, as Calico decides CrossSubnet.

    A node address with /32 therefore never shares a subnet.
    """
    if here.address is None or there.address is None:
        return False
    return contains(here.address.network, there.address.ip)
