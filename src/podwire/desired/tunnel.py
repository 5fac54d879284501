"""Tunnel devices, tunl0 and vxlan.calico: their settings, and what is done to get there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from podwire.desired.mtu import tunnel_mtu
from podwire.desired.overlay import mac_of
from podwire.model.link import IPIP_DEVICE, VXLAN_DEVICE, VXLANSettings
from podwire.model.overlay import VXLAN_PORT, VXLAN_VNI
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Collection

    from podwire.desired.here import Here
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.model.pool import IPPool


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLink:
    """A tunnel device as it should be; always up."""

    name: str
    kind: str
    mtu: int
    address: IPAddress | None = None
    """Its tunnel address, once one is allocated."""
    mac: str | None = None
    vxlan: VXLANSettings | None = None


class LinkStep(Enum):
    """What is to be done about one tunnel device."""

    NOTHING = "nothing"
    CREATE = "create"
    MOVE = "move"
    """Local address or parent differ, which a living vxlan device can be told."""
    RECREATE = "recreate"
    """A setting is wrong that cannot be changed on a living device."""
    CHANGE = "change"
    """MTU or state differ."""
    DELETE = "delete"


def tunnels(here: Here, pools: Collection[IPPool]) -> tuple[TunnelLink, ...]:
    """The tunnel devices this node needs; a disabled pool's pods still talk, so it counts."""
    used = {pool.encapsulation for pool in pools}
    wanted: list[TunnelLink] = []
    if Encapsulation.IPIP in used:
        wanted.append(ipip(here))
    if Encapsulation.VXLAN in used and here.node.address is not None:
        wanted.append(vxlan(here))
    return tuple(wanted)


def ipip(here: Here) -> TunnelLink:
    """The fallback device of the ipip module: it takes every IPIP packet for this node."""
    return TunnelLink(
        name=IPIP_DEVICE,
        kind="ipip",
        mtu=tunnel_mtu(Encapsulation.IPIP, here.mtu),
        address=here.node.ipip_tunnel,
    )


def vxlan(here: Here) -> TunnelLink:
    """One device to all other nodes; where each is, the FDB says."""
    assert here.node.address is not None
    return TunnelLink(
        name=VXLAN_DEVICE,
        kind="vxlan",
        mtu=tunnel_mtu(Encapsulation.VXLAN, here.mtu),
        address=here.node.vxlan_tunnel,
        mac=mac_of(here.node),
        vxlan=VXLANSettings(
            vni=VXLAN_VNI,
            port=VXLAN_PORT,
            local=here.node.address.ip,
            # A device with a parent goes when that one goes, and may not be wider than it.
            parent=None if here.underlay.routed else here.underlay.device,
            learning=False,
        ),
    )


def decide_link(wanted: TunnelLink | None, actual: Link | None) -> LinkStep:
    """Compare a tunnel device with what it should be; None means unwanted, or absent.

    tunl0 cannot be deleted or made anew: it comes and goes with the kernel's module.
    """
    if wanted is None:
        has_gone = actual is None or actual.name != VXLAN_DEVICE
        return LinkStep.NOTHING if has_gone else LinkStep.DELETE
    if actual is None:
        return LinkStep.CREATE
    if wanted.vxlan is not None and actual.vxlan != wanted.vxlan:
        return LinkStep.MOVE if _can_move(wanted, actual) else LinkStep.RECREATE
    if wanted.vxlan is not None and (actual.kind != wanted.kind or actual.mac != wanted.mac):
        return LinkStep.RECREATE
    same = actual.up and actual.mtu == wanted.mtu
    return LinkStep.NOTHING if same else LinkStep.CHANGE


def _can_move(wanted: TunnelLink, actual: Link) -> bool:
    """Whether only local address and parent differ, and the kernel would take the new ones.

    It keeps the parent when it is told of none (vxlan_changelink in drivers/net/vxlan).
    """
    if wanted.vxlan is None or actual.vxlan is None or wanted.vxlan.parent is None:
        return False
    moved = replace(actual.vxlan, local=wanted.vxlan.local, parent=wanted.vxlan.parent)
    return (actual.kind, actual.mac, moved) == (wanted.kind, wanted.mac, wanted.vxlan)
