"""Here: this node as its own routes see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.model.link import INTERFACE_PREFIX, IPIP_DEVICE, LARGEST_MTU, VXLAN_DEVICE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.link import Address, Link
    from podwire.model.node import Node
    from podwire.model.route import NextHop

TUNNELS = frozenset({IPIP_DEVICE, VXLAN_DEVICE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The way to other nodes: the device that carries the node's own address."""

    device: int
    name: str
    mtu: int
    routed: bool = False
    """The address is on no wire (lo, dummy): any device may lead to other nodes, as the kernel's
    routes say."""


def _no_ways() -> Mapping[IPAddress, tuple[NextHop, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What every route of this node depends on; when it changes, all are computed again."""

    node: Node
    underlay: Underlay
    ipip: int | None = None
    """Index of tunl0, when it is there."""
    vxlan: int | None = None
    """Index of vxlan.calico, when it is there."""
    agent_routes: bool = True
    """Whether the agent writes the routes to other nodes' blocks; else BIRD does, VXLAN apart."""
    default_route: bool = True
    """Whether some route leads everywhere: proxy ARP answers for 169.254.1.1 only then."""
    ways: Mapping[IPAddress, tuple[NextHop, ...]] = field(default_factory=_no_ways)
    """Next hops towards each other node's address, where the underlay is routed."""
    others_mtu: int = LARGEST_MTU
    """The smallest MTU that another node's underlay has."""

    @property
    def mtu(self) -> int:
        """Bytes that get through between any two nodes, outer headers included."""
        return min(self.underlay.mtu, self.others_mtu)


def find_underlay(
    address: IPAddress, addresses: Iterable[Address], links: Mapping[str, Link]
) -> Underlay | None:
    """The device that carries the node's address; None while no device does.

    Of two devices (an address is moved from one to the other) the one that is up. A routed underlay
    has the MTU of its device here: `routed_mtu` says what its wires carry.
    """
    by_index = {link.index: link for link in links.values()}
    found = [
        link
        for candidate in addresses
        if candidate.interface.ip == address
        and (link := by_index.get(candidate.device)) is not None
        and link.name not in TUNNELS
    ]
    link = next((link for link in found if link.up), found[0] if found else None)
    if link is None:
        return None
    return Underlay(device=link.index, name=link.name, mtu=link.mtu, routed=is_without_wire(link))


def is_without_wire(link: Link) -> bool:
    """Whether nothing is behind the device, so that packets to other nodes never leave by it."""
    return link.loopback or link.kind == "dummy"


def routed_mtu(devices: Collection[int], links: Mapping[str, Link]) -> int:
    """The smallest MTU of the devices that lead to other nodes; of all that could, when none do."""
    able = [
        link
        for link in links.values()
        if not is_without_wire(link)
        and link.name not in TUNNELS
        and not link.name.startswith(INTERFACE_PREFIX)
    ]
    leading = [link.mtu for link in able if link.index in devices]
    return min(leading or [link.mtu for link in able if link.up], default=LARGEST_MTU)
