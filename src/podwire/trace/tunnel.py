"""Tunnels, the sending end: VXLAN (neighbour → FDB → outer route) and IPIP (outer header)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.model.link import IPIP_DEVICE
from podwire.model.overlay import IPIP_OVERHEAD, VXLAN_OVERHEAD
from podwire.trace import arp, fib, intake
from podwire.trace.crossing import leave
from podwire.trace.cursor import Cursor, cause_at
from podwire.trace.fib import Query
from podwire.trace.flow import DEFAULT_TTL, Packet, Protocol
from podwire.trace.passage import Frame
from podwire.trace.policy import onward
from podwire.trace.schema import Disposition, Path, Step
from podwire.trace.space import Lacking
from podwire.trace.world import Port

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.model.overlay import FDBEntry
    from podwire.trace.space import Space
    from podwire.trace.world import World

VXLAN6_OVERHEAD = VXLAN_OVERHEAD + 20
"""With an outer IPv6 header."""
ALL_ZERO = "00:00:00:00:00:00"
"""MAC of the FDB entry that takes what no other entry does."""


def encapsulate_vxlan(
    world: World, cursor: Cursor, link: Link, target: IPAddress
) -> list[Cursor | Path]:
    """Wrap a packet for the VTEP that `target` leads to.

    Raises:
        Lacking: the device would learn or flood, which is not modelled.
    """
    space, settings = cursor.space, link.vxlan
    if settings is None:
        raise Lacking(f"{link.name} of {space.title}", "its VXLAN settings were not read")
    if not link.up:
        return [_down(world, cursor, link)]
    port = Port(space=space, link=link)
    known = arp.cached_mac(port, target)
    if known is None:
        return [_no_neighbour(world, cursor, link, target)]
    mac = known[0]
    ways = leave(world, cursor, port, Frame(source=link.mac, destination=mac), "tunnel")
    return onward(ways, lambda each: [_wrapped(world, each, link, target, mac)])


def _wrapped(
    world: World, cursor: Cursor, link: Link, target: IPAddress, mac: str
) -> Cursor | Path:
    space, settings = cursor.space, link.vxlan
    assert settings is not None
    entry = _entry(space, link, mac)
    if entry is None or entry.destination is None:
        text = f"{link.name} of {space.title} has no forwarding entry for {mac} ({target})"
        cause = cause_at(cursor, world, link, "fdb-missing", text, {"mac": mac, "via": str(target)})
        return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "Tunnel")
    vni = entry.vni or settings.vni
    inner = cursor.packet.apart()
    overhead = VXLAN_OVERHEAD if entry.destination.version == 4 else VXLAN6_OVERHEAD
    source = settings.local or _source(space, entry.destination)
    outer = Packet(
        source=source or inner.source,
        destination=entry.destination,
        protocol=Protocol.UDP,
        source_port=None,
        destination_port=entry.port or settings.port,
        ttl=DEFAULT_TTL,
        length=inner.length + overhead,
        reply=inner.reply,
        mark=cursor.packet.mark,
        tracks=inner.tracks,
        inner=inner,
        vni=vni,
        inner_mac=mac,
    )
    step = Step(
        component="Tunnel",
        action="ENCAPSULATED",
        text=f"VXLAN {vni}: {target} is {mac} behind {entry.destination} (+{overhead} bytes)",
        detail=_detail("vxlan", outer, overhead),
        by={"neigh": f"{target} lladdr {mac}", "fdb": f"{mac} dst {entry.destination}"},
    )
    return _outside(cursor.with_step(step), outer)


def _no_neighbour(world: World, cursor: Cursor, link: Link, target: IPAddress) -> Path:
    space = cursor.space
    if any(entry.device == link.index and entry.mac == ALL_ZERO for entry in space.fdb):
        raise Lacking(f"ARP over {link.name} of {space.title}", "flooding VXLAN is not modelled")
    text = f"{space.title} does not know the tunnel MAC of {target} on {link.name}"
    facts = {"target": str(target), "link": link.name}
    cause = replace(cause_at(cursor, world, link, "vtep-missing", text, facts), icmp="3/1")
    return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "ARP")


def _entry(space: Space, link: Link, mac: str) -> FDBEntry | None:
    for wanted in (mac, ALL_ZERO):
        for entry in space.fdb:
            if entry.device == link.index and entry.mac == wanted and entry.destination is not None:
                return entry
    return None


def encapsulate_ipip(
    world: World, cursor: Cursor, link: Link, target: IPAddress
) -> list[Cursor | Path]:
    """Wrap a packet for the node that the route's gateway is.

    Raises:
        Lacking: a device other than the module's own may have ends of its own, which are not read.
    """
    if link.name != IPIP_DEVICE:
        raise Lacking(
            f"{link.name} of {cursor.space.title}", "the ends of this ipip device are not read"
        )
    if cursor.packet.source.version != 4:
        raise Lacking(f"{link.name} of {cursor.space.title}", "IPv6 inside IPv4 is not modelled")
    if not link.up:
        return [_down(world, cursor, link)]
    ways = leave(world, cursor, Port(space=cursor.space, link=link), None, "tunnel")
    return onward(ways, lambda each: [_in_ipip(each, target)])


def _in_ipip(cursor: Cursor, target: IPAddress) -> Cursor:
    inner = cursor.packet.apart()
    outer = Packet(
        source=_source(cursor.space, target) or inner.source,
        destination=target,
        protocol=Protocol.IPIP,
        ttl=inner.ttl,
        length=inner.length + IPIP_OVERHEAD,
        df=inner.df,
        reply=inner.reply,
        mark=cursor.packet.mark,
        tracks=inner.tracks,
        inner=inner,
    )
    step = Step(
        component="Tunnel",
        action="ENCAPSULATED",
        text=f"IPIP {outer.source} → {target} (+{IPIP_OVERHEAD} bytes)",
        detail=_detail("ipip", outer, IPIP_OVERHEAD),
    )
    return _outside(cursor.with_step(step), outer)


def _down(world: World, cursor: Cursor, link: Link) -> Path:
    text = f"{link.name} of {cursor.space.title} is down"
    cause = cause_at(cursor, world, link, "tunnel-down", text, {"link": link.name})
    return cursor.dropped(Disposition.LOST_ON_LINK, cause, "Link")


def _source(space: Space, destination: IPAddress) -> IPAddress | None:
    decision = fib.lookup(space, Query(destination=destination))
    return intake.select_source(space, decision, destination)


def _outside(cursor: Cursor, outer: Packet) -> Cursor:
    """The outer packet is made by this namespace and routed anew.

    By any device: a parent binds only what has no forwarding entry of its own (rdst->remote_ifindex
    in vxlan_xmit_one), and that is flooding, which is not modelled.
    """
    return replace(cursor, packet=outer, link=None)


def _detail(kind: str, outer: Packet, overhead: int) -> dict[str, object]:
    return {
        "type": kind,
        "vni": outer.vni,
        "port": outer.destination_port,
        "outerSrc": str(outer.source),
        "outerDst": str(outer.destination),
        "overhead": overhead,
        "vtepMac": outer.inner_mac,
        "fdb": str(outer.destination) if kind == "vxlan" else None,
    }
