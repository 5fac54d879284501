"""Here: this node as its own routes see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.addressing import contains
from podwire.model.link import IPIP_DEVICE, VXLAN_DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.link import Address, Link
    from podwire.model.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The device that carries the node's own address: the way to other nodes."""

    device: int
    name: str
    mtu: int


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


def find_underlay(
    address: IPAddress, addresses: Iterable[Address], links: Mapping[str, Link]
) -> Underlay | None:
    """The device that carries the node's address; None while no device does."""
    by_index = {link.index: link for link in links.values()}
    for candidate in addresses:
        link = by_index.get(candidate.device)
        if candidate.interface.ip == address and link is not None and link.name not in TUNNELS:
            return Underlay(device=link.index, name=link.name, mtu=link.mtu)
    return None


TUNNELS = frozenset({IPIP_DEVICE, VXLAN_DEVICE})


def find_address(
    device: str, addresses: Iterable[Address], links: Mapping[str, Link], gateway: IPAddress | None
) -> IPInterface | None:
    """The IPv4 address by which a device's subnet knows this node; None when it has none.

    Of several the one whose subnet holds the gateway; else the first with a global scope.
    """
    link = links.get(device)
    if link is None:
        return None
    found = [
        address.interface
        for address in addresses
        if address.device == link.index and address.interface.version == 4 and address.scope == 0
    ]
    if gateway is not None:
        found.sort(key=lambda interface: not contains(interface.network, gateway))
    return found[0] if found else None
