"""IPPool and IPReservation: where addresses may come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.model.resource import Stored

if TYPE_CHECKING:
    from podwire.model.addressing import IPNetwork
    from podwire.model.resource import Metadata


class Mode(StrEnum):
    """When a pool's packets are encapsulated."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"
    """Only when the other node is outside our own subnet."""


class Use(StrEnum):
    """What an address is for."""

    WORKLOAD = "Workload"
    TUNNEL = "Tunnel"
    LOAD_BALANCER = "LoadBalancer"


DEFAULT_USES = (Use.WORKLOAD, Use.TUNNEL)


def default_block_size(cidr: IPNetwork) -> int:
    """Prefix length of the blocks of a pool that names none."""
    return 26 if cidr.version == 4 else 122


class Encapsulation(StrEnum):
    """How packets cross from node to node."""

    NONE = "none"
    IPIP = "ipip"
    VXLAN = "vxlan"


@dataclass(frozen=True, slots=True, kw_only=True)
class IPPool(Stored):
    """A CIDR addresses may come from."""

    metadata: Metadata
    cidr: IPNetwork
    block_size: int = 26
    """Prefix length of a block: 20 … 32 for IPv4, 116 … 128 for IPv6; fixed at creation."""
    ipip_mode: Mode = Mode.NEVER
    vxlan_mode: Mode = Mode.NEVER
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = False
    node_selector: str = "all()"
    namespace_selector: str | None = None
    allowed_uses: tuple[Use, ...] = DEFAULT_USES
    automatic: bool = True
    """assignmentMode Automatic; False (Manual): only explicit requests take from it."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name

    @property
    def encapsulation(self) -> Encapsulation:
        """Which tunnel the pool uses, whenever it uses one."""
        if self.ipip_mode is not Mode.NEVER:
            return Encapsulation.IPIP
        return Encapsulation.NONE if self.vxlan_mode is Mode.NEVER else Encapsulation.VXLAN

    @property
    def mode(self) -> Mode:
        """When it uses that tunnel."""
        return self.vxlan_mode if self.ipip_mode is Mode.NEVER else self.ipip_mode


@dataclass(frozen=True, slots=True, kw_only=True)
class IPReservation(Stored):
    """Addresses that are never handed out unasked."""

    metadata: Metadata
    reserved: tuple[IPNetwork, ...]
