"""Fabric: a topology as an ordered list of operations, each of which can say itself in `ip`.

The same list is carried out by `lab.build` and printed by `lab up --explain`, so that what the lab
teaches is what it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from podwire.lab.topology import (
    NODE_INTERFACE,
    OUTSIDE,
    OUTSIDE_HOST,
    OUTSIDE_ROUTER,
    UNDERLAY,
    gateway_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface

    from podwire.lab.topology import LabNode, Topology


@dataclass(frozen=True, slots=True)
class AddNamespace:
    """A network namespace, kept alive by its name below /run/netns."""

    name: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip netns add {self.name}"


@dataclass(frozen=True, slots=True)
class AddBridge:
    """A switch."""

    namespace: str
    name: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip -n {self.namespace} link add {self.name} type bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVeth:
    """A cable: two devices, what goes into one comes out of the other."""

    namespace: str
    name: str
    peer_namespace: str
    peer_name: str

    def describe(self) -> str:
        """The command a person would type."""
        return (
            f"ip -n {self.namespace} link add {self.name} type veth "
            f"peer name {self.peer_name} netns {self.peer_namespace}"
        )


@dataclass(frozen=True, slots=True)
class AddPort:
    """Plug a device into a bridge."""

    namespace: str
    name: str
    bridge: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip -n {self.namespace} link set {self.name} master {self.bridge}"


@dataclass(frozen=True, slots=True)
class SetUp:
    """Switch a device on; new ones are down, the loopback of a new namespace too."""

    namespace: str
    name: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip -n {self.namespace} link set {self.name} up"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """An address; the kernel adds the route to its subnet by itself."""

    namespace: str
    name: str
    address: IPv4Interface

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip -n {self.namespace} addr add {self.address} dev {self.name}"


@dataclass(frozen=True, slots=True)
class AddDefaultRoute:
    """Where everything else goes."""

    namespace: str
    gateway: IPv4Address
    name: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip -n {self.namespace} route add default via {self.gateway} dev {self.name}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """A kernel setting of one namespace, in slash form as below /proc/sys."""

    namespace: str
    setting: str
    value: str

    def describe(self) -> str:
        """The command a person would type."""
        return f"ip netns exec {self.namespace} sysctl -qw {self.setting}={self.value}"


Operation: TypeAlias = (
    AddNamespace | AddBridge | AddVeth | AddPort | SetUp | AddAddress | AddDefaultRoute | SetSysctl
)


@dataclass(frozen=True, slots=True)
class Step:
    """Operations that belong together, and why they are there."""

    reason: str
    operations: tuple[Operation, ...]


def compute_fabric(topology: Topology) -> tuple[Step, ...]:
    """All steps, in the order in which they can be carried out."""
    return (
        Step("the network between the nodes: switches and their gateway", tuple(_switch(topology))),
        *(
            [Step(f"a host behind the router, {OUTSIDE_HOST}", tuple(_outside()))]
            if topology.tor
            else []
        ),
        *(
            Step(f"node {node.name}, {node.address}", tuple(_node(topology, node)))
            for node in topology.nodes
        ),
    )


def bridge_of(topology: Topology, node: LabNode) -> str:
    """Name of the switch a node is plugged into."""
    return f"br{topology.networks.index(node.address.network)}"


def _switch(topology: Topology) -> Iterator[Operation]:
    yield AddNamespace(UNDERLAY)
    yield SetUp(UNDERLAY, "lo")
    yield SetSysctl(UNDERLAY, "net/ipv4/ip_forward", "1")
    # The gateway would otherwise tell the nodes of shorter ways, and they would remember them.
    yield SetSysctl(UNDERLAY, "net/ipv4/conf/all/send_redirects", "0")
    for number, network in enumerate(topology.networks):
        name = f"br{number}"
        yield AddBridge(UNDERLAY, name)
        yield SetSysctl(UNDERLAY, f"net/ipv4/conf/{name}/send_redirects", "0")
        yield AddAddress(UNDERLAY, name, gateway_of(network))
        yield SetUp(UNDERLAY, name)


def _outside() -> Iterator[Operation]:
    yield AddNamespace(OUTSIDE)
    yield SetUp(OUTSIDE, "lo")
    yield AddVeth(namespace=OUTSIDE, name="eth0", peer_namespace=UNDERLAY, peer_name=OUTSIDE)
    yield AddAddress(UNDERLAY, OUTSIDE, OUTSIDE_ROUTER)
    yield SetUp(UNDERLAY, OUTSIDE)
    yield AddAddress(OUTSIDE, "eth0", OUTSIDE_HOST)
    yield SetUp(OUTSIDE, "eth0")
    yield AddDefaultRoute(OUTSIDE, OUTSIDE_ROUTER.ip, "eth0")


def _node(topology: Topology, node: LabNode) -> Iterator[Operation]:
    yield AddNamespace(node.name)
    yield SetUp(node.name, "lo")
    yield AddVeth(
        namespace=node.name, name=NODE_INTERFACE, peer_namespace=UNDERLAY, peer_name=node.name
    )
    yield AddPort(UNDERLAY, node.name, bridge_of(topology, node))
    yield SetUp(UNDERLAY, node.name)
    yield AddAddress(node.name, NODE_INTERFACE, node.address)
    yield SetUp(node.name, NODE_INTERFACE)
    # Only now: the kernel refuses a gateway on a device that is down.
    yield AddDefaultRoute(node.name, node.gateway, NODE_INTERFACE)
