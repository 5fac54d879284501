"""Receive: what becomes of a packet that has reached its address: tunnel device or program."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace.crossing import beside
from podwire.trace.cursor import Cursor, cause_at, hop_at
from podwire.trace.flow import Packet, Protocol
from podwire.trace.passage import Frame
from podwire.trace.schema import Disposition, Path, Step
from podwire.trace.segment import refuse_unmodelled
from podwire.trace.world import Port

if TYPE_CHECKING:
    from podwire.model.link import Link
    from podwire.trace.space import Space
    from podwire.trace.world import World


EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104
"""What sockets of all addresses are bound to."""


def decapsulate(world: World, cursor: Cursor) -> list[Cursor | Path]:
    """Hand a tunnel's packet to its device; the inner one comes in there.

    Raises:
        Lacking: the device has settings that are not modelled.
    """
    outer = cursor.packet
    assert outer.inner is not None
    if outer.protocol is Protocol.IPIP:
        device = _ipip(cursor.space)
        if device is None:
            text = f"{cursor.space.title} has no ipip device that is up"
            cause = replace(cause_at(cursor, world, cursor.link, "no-ipip", text), icmp="3/2")
            return [cursor.dropped(Disposition.LOST_ON_LINK, cause, "Tunnel")]
        return _inside(world, cursor, device, f"IPIP from {outer.source}")
    found = _vxlan(world, cursor, outer)
    if isinstance(found, Path):
        return [found]
    if outer.inner_mac is not None and found.mac not in {None, outer.inner_mac}:
        text = (
            f"the inner frame is for {outer.inner_mac}, "
            f"{found.name} of {cursor.space.title} is {found.mac}"
        )
        cause = cause_at(cursor, world, found, "vtep-mac", text, {"mac": outer.inner_mac})
        return [cursor.dropped(Disposition.NOT_FOR_ME, cause, "Tunnel")]
    return _inside(world, cursor, found, f"VXLAN {outer.vni} from {outer.source}")


def _ipip(space: Space) -> Link | None:
    return next((each for each in space.links.values() if each.kind == "ipip" and each.up), None)


def _vxlan(world: World, cursor: Cursor, outer: Packet) -> Link | Path:
    space = cursor.space
    devices = [
        link
        for link in space.links.values()
        if link.vxlan is not None and link.up and link.vxlan.port == outer.destination_port
    ]
    for device in devices:
        if device.vxlan is not None and device.vxlan.vni == outer.vni:
            return device
    if devices:
        there = devices[0].vxlan
        assert there is not None
        text = f"VNI {outer.vni} comes in, {devices[0].name} of {space.title} has {there.vni}"
        facts = {"sent": str(outer.vni), "here": str(there.vni)}
        cause = cause_at(cursor, world, devices[0], "vni", text, facts)
        return cursor.dropped(Disposition.NOT_FOR_ME, cause, "Tunnel")
    text = f"no vxlan device of {space.title} that is up listens on {outer.destination_port}"
    cause = replace(cause_at(cursor, world, cursor.link, "no-vxlan", text), icmp="3/3")
    return cursor.dropped(Disposition.LOST_ON_LINK, cause, "Tunnel")


def _inside(world: World, cursor: Cursor, device: Link, text: str) -> list[Cursor | Path]:
    refuse_unmodelled(cursor.space, device)
    outer, inner = cursor.packet, cursor.packet.inner
    assert inner is not None
    inner = replace(inner.apart(mark=outer.mark), tracks=outer.tracks)
    cursor = cursor.with_step(Step(component="Tunnel", action="DECAPSULATED", text=text))
    port = Port(space=cursor.space, link=device)
    cursor = cursor.with_hop(hop_at(world, port, "in", inner, role="tunnel"))
    cursor = replace(cursor, packet=inner, link=device)
    frame = None if outer.inner_mac is None else Frame(source=None, destination=outer.inner_mac)
    return beside(world, cursor, "ingress", port, frame)


def listening(space: Space, packet: Packet) -> bool:
    """Whether a socket takes the packet.

    Raises:
        Lacking: the sockets were not read.
    """
    wanted = str(packet.destination)
    return any(
        port == packet.destination_port and (address in EVERYWHERE or address == wanted)
        for address, port in listeners(space, packet.protocol)
    )


def listeners(space: Space, protocol: Protocol) -> list[tuple[str, int]]:
    """Addresses and ports that programs listen on; sockets read like `tcp 0.0.0.0 5432`.

    Raises:
        Lacking: the sockets were not read.
    """
    found = []
    for line in space.need(space.state.sockets, "sockets"):
        match line.split():
            case [name, address, port] if name == str(protocol):
                found.append((address, int(port)))
    return found
