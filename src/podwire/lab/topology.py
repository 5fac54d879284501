"""Topology: what a lab is to be, as one value that checks itself."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.addressing import block_count, contains
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.router import Make

DEFAULT_POOL = IPv4Network("10.244.0.0/16")
DEFAULT_BLOCK_SIZE = 26
SUBNETS = (IPv4Network("192.168.26.0/24"), IPv4Network("192.168.27.0/24"))
GATEWAY_HOST = 2
"""Last byte of the gateway's address in each subnet."""
FIRST_NODE = 100
LAST_NODE = 254
ABSENT = frozenset({104})
"""The story's cluster has no vms104."""
NODE_INTERFACE = "ens32"
UNDERLAY = "underlay"
"""Network namespace of the gateway and of the switch between the nodes."""
OUTSIDE = "outside"
"""Network namespace of a host behind the router."""
OUTSIDE_ROUTER = IPv4Interface("198.51.100.1/24")
OUTSIDE_HOST = IPv4Interface("198.51.100.10/24")

STORY_BLOCKS = {
    "vms100": IPv4Network("10.244.239.128/26"),
    "vms101": IPv4Network("10.244.198.0/26"),
    "vms102": IPv4Network("10.244.63.64/26"),
    "vms103": IPv4Network("10.244.38.128/26"),
    "vms105": IPv4Network("10.244.169.64/26"),
    "vms106": IPv4Network("10.244.31.64/26"),
}
"""Which block each node of the story holds, in the default pool with the default block size."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabNode:
    """One node: its name and where it sits on the underlay."""

    name: str
    address: IPv4Interface
    """With the prefix length of its subnet."""
    gateway: IPv4Address

    @property
    def labels(self) -> dict[str, str]:
        """What a nodeSelector or a spread constraint can ask for."""
        return {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": f"subnet-{self.address.network.network_address}",
        }


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A whole lab: nodes, subnets, and how packets cross from node to node.

    Raises:
        BadInput: on construction, when the parts do not fit together.
    """

    name: str = "lab"
    size: int = 6
    """Number of nodes."""
    encapsulation: Encapsulation = Encapsulation.VXLAN
    mode: Mode = Mode.ALWAYS
    subnets: int = 1
    """Nodes alternate between the subnets; a gateway routes between them."""
    pool: IPv4Network = DEFAULT_POOL
    block_size: int = DEFAULT_BLOCK_SIZE
    routing: Routing = Routing.AGENT
    """Who writes the routes to other nodes' blocks."""
    tor: Make | None = None
    """A real router instead of the gateway: it learns the blocks by BGP."""
    reflectors: int = 0
    """How many nodes reflect routes to the others; none: every node peers with every other."""

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_size()
        self._check_pool()
        self._check_bgp()
        if (self.encapsulation is Encapsulation.NONE) is not (self.mode is Mode.NEVER):
            raise BadInput(
                f"mode {self.mode} does not go with encapsulation {self.encapsulation}:"
                " a mode says between which nodes packets are encapsulated, none means nowhere",
                fix="leave out --mode (the gateway then routes the blocks between subnets),"
                " or choose --encapsulation ipip or vxlan",
            )

    def _check_size(self) -> None:
        most = LAST_NODE - FIRST_NODE + 1 - len(ABSENT)
        if not 1 <= self.size <= most:
            raise BadInput(f"--nodes {self.size} is out of range", fix=f"ask for 1 to {most} nodes")
        if not 1 <= self.subnets <= len(SUBNETS):
            raise BadInput(f"--subnets {self.subnets} is out of range", fix="ask for 1 or 2")

    def _check_bgp(self) -> None:
        for option, given in (("--tor", self.tor), ("--reflectors", self.reflectors)):
            if given and self.routing is not Routing.BIRD:
                raise BadInput(
                    f"{option} needs nodes that speak BGP",
                    fix="add --routing bird, or leave it out",
                )
        if not 0 <= self.reflectors <= self.size:
            raise BadInput(
                f"--reflectors {self.reflectors} is out of range",
                fix=f"ask for up to {self.size}, the number of nodes",
            )

    def _check_pool(self) -> None:
        if not max(20, self.pool.prefixlen) <= self.block_size <= 32:
            raise BadInput(
                f"--block-size {self.block_size} does not fit the pool {self.pool}",
                fix=f"choose {max(20, self.pool.prefixlen)} to 32",
            )
        unroutable = [IPv4Network(one) for one in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")]
        for network in (*SUBNETS, OUTSIDE_HOST.network, *unroutable):
            if self.pool.overlaps(network):
                why = "which the lab needs itself"
                if network in unroutable:
                    why = "where no pod can have an address"
                raise BadInput(
                    f"--pool {self.pool} overlaps {network}, {why}",
                    fix=f"choose another one, for instance {DEFAULT_POOL}",
                )
        blocks = block_count(self.pool, self.block_size)
        if blocks < self.size:
            raise BadInput(
                f"--pool {self.pool} holds {blocks} blocks of /{self.block_size}, "
                f"fewer than the {self.size} nodes",
                fix="choose a larger pool, a longer --block-size or fewer --nodes",
            )

    @cached_property
    def nodes(self) -> tuple[LabNode, ...]:
        """All nodes, in order of their names."""
        return tuple(
            _node(number, SUBNETS[position % self.subnets])
            for position, number in enumerate(itertools.islice(_numbers(), self.size))
        )

    @cached_property
    def networks(self) -> tuple[IPv4Network, ...]:
        """The subnets in use."""
        return SUBNETS[: self.subnets]

    @cached_property
    def story_blocks(self) -> dict[str, IPv4Network]:
        """Which block is to be whose from the start: the story's, where its pool is used."""
        if self.pool != DEFAULT_POOL or self.block_size != DEFAULT_BLOCK_SIZE:
            return {}
        names = {node.name for node in self.nodes}
        return {name: block for name, block in STORY_BLOCKS.items() if name in names}

    def node(self, name: str) -> LabNode:
        """The node of that name.

        Raises:
            BadInput: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise BadInput(f"lab {self.name!r} has no node {name!r}", fix=f"its nodes are {names}")


def check_name(name: str) -> None:
    """Refuse what cannot name a lab (it becomes part of a file name).

    Raises:
        BadInput: the name has other characters, or is too long.
    """
    if _NAME.fullmatch(name) is None:
        raise BadInput(
            f"{name!r} cannot name a lab",
            fix="use up to 32 small letters, digits and dashes, like lab or two-subnets",
        )


def default_mode(encapsulation: Encapsulation, subnets: int) -> Mode:
    """When to encapsulate, if nobody said: always, or only between subnets where there are two."""
    if encapsulation is Encapsulation.NONE:
        return Mode.NEVER
    return Mode.ALWAYS if subnets == 1 else Mode.CROSS_SUBNET


def gateway_of(network: IPv4Network) -> IPv4Interface:
    """The gateway's own address on a subnet."""
    return IPv4Interface(f"{network.network_address + GATEWAY_HOST}/{network.prefixlen}")


def _numbers() -> Iterator[int]:
    return (number for number in range(FIRST_NODE, LAST_NODE + 1) if number not in ABSENT)


def _node(number: int, network: IPv4Network) -> LabNode:
    address = IPv4Interface(f"{network.network_address + number}/{network.prefixlen}")
    assert contains(network, address.ip)
    return LabNode(name=f"vms{number}", address=address, gateway=gateway_of(network).ip)
