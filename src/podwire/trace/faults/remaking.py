"""Remaking: a tunnel device made anew where the kernel lets a setting be chosen only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.overlay import NUD_PERMANENT
from podwire.model.route import MAIN_TABLE
from podwire.trace.schema import Fix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.link import Link
    from podwire.trace.space import Space


def vxlan(space: Space, name: str, vni: int) -> Fix | None:
    """The device with another VNI, and all that hung on it, in one command.

    None when there is no such device. Raises Lacking when a table that belongs to it was not read.
    """
    link = space.links_by_name.get(name)
    if link is None or link.vxlan is None:
        return None
    command = " && ".join(_commands(space, link, vni))
    text = f"make {name} anew with VNI {vni} (the kernel lets nobody change it)"
    return Fix(text=text, command=command)


def _commands(space: Space, link: Link, vni: int) -> Iterator[str]:
    name, settings = link.name, link.vxlan
    assert settings is not None
    local = "" if settings.local is None else f" local {settings.local}"
    parent = space.links.get(settings.parent or 0)
    below = "" if parent is None else f" dev {parent.name}"
    learning = "learning" if settings.learning else "nolearning"
    yield f"ip link del {name}"
    yield (
        f"ip link add {name} index {link.index} address {link.mac} mtu {link.mtu} type vxlan "
        f"id {vni}{local}{below} dstport {settings.port} {learning}"
    )
    for address in space.addresses_of(link):
        yield f"ip addr add {address.interface} dev {name}"
    yield f"ip link set {name} up"
    for entry in space.fdb:
        if entry.device == link.index and entry.destination is not None:
            place = f"dev {name} dst {entry.destination}"
            yield f"bridge fdb replace {entry.mac} {place} self permanent"
    for (index, known), neighbour in space.neighbours.items():
        if index == link.index and neighbour.state & NUD_PERMANENT:
            yield f"ip neigh replace {known} dev {name} lladdr {neighbour.mac} nud permanent"
    for route in space.need(space.state.routes, "routes"):
        hop = route.hops[0] if len(route.hops) == 1 else None
        if hop is None or hop.device != link.index or route.key.table != MAIN_TABLE:
            continue
        if hop.gateway is not None:
            onlink = " onlink" if hop.onlink else ""
            destination = route.key.destination
            yield f"ip route replace {destination} via {hop.gateway} dev {name}{onlink}"
