"""Segment: where a frame comes out that goes in at a link, over veth pairs and bridges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.trace.filter import rules_below_ip
from podwire.trace.space import Lacking
from podwire.trace.world import Port, Unseen, World

if TYPE_CHECKING:
    from podwire.model.link import Link
    from podwire.trace.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A bridge port passed on the way, and how the bridge chose it."""

    port: Port
    inbound: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A link whose namespace gets the frame."""

    port: Port
    crossings: tuple[Crossing, ...] = ()


@dataclass(slots=True, kw_only=True)
class Reach:
    """Everything a frame reaches."""

    arrivals: list[Arrival] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Places where the frame ends: ports that are down …"""


def reach(world: World, origin: Port, mac: str | None) -> Reach:
    """Where a frame ends up that is sent out of `origin`.

    `mac` is its destination; None: broadcast. A bridge that does not know the MAC floods it, so
    several arrivals are normal; the one that owns the MAC takes the frame.

    Raises:
        Lacking: a table that decides was not read.
    """
    found = Reach()
    seen: set[tuple[int, int]] = set()
    if origin.link.kind == "bridge":
        _spread(_Frame(world, mac, found, seen), origin, None, ())
    else:
        _across(_Frame(world, mac, found, seen), origin, ())
    return found


@dataclass(slots=True)
class _Frame:
    world: World
    mac: str | None
    found: Reach
    seen: set[tuple[int, int]]


def _across(frame: _Frame, port: Port, crossings: tuple[Crossing, ...]) -> None:
    """Out of one link, into whatever it is wired to."""
    link = port.link
    refuse_unmodelled(port.space, link)
    if not (link.up and link.carrier):
        frame.found.lost.append(f"{link.name} of {port.space.title} is down")
        return
    if link.kind != "veth":
        what = f"the network behind {link.name} of {port.space.title}"
        frame.found.unseen.append(Unseen(what=what, why="it is not a link to a namespace we read"))
        return
    peer = frame.world.peer(port.space, link)
    if isinstance(peer, Unseen):
        frame.found.unseen.append(peer)
        return
    refuse_unmodelled(peer.space, peer.link)
    if not peer.link.up:
        frame.found.lost.append(f"{peer.link.name} of {peer.space.title} is down")
        return
    _into(frame, peer, crossings)


def _into(frame: _Frame, port: Port, crossings: tuple[Crossing, ...]) -> None:
    if port.key in frame.seen:
        return
    frame.seen.add(port.key)
    master = port.link.master
    if master is None:
        frame.found.arrivals.append(Arrival(port=port, crossings=crossings))
        return
    bridge = port.space.links.get(master)
    if bridge is None or bridge.kind != "bridge":
        kind = "unknown" if bridge is None else bridge.kind
        raise Lacking(
            f"{port.link.name} of {port.space.title}", f"its master ({kind}) is no bridge"
        )
    entered = (*crossings, Crossing(port=port, inbound=True))
    _spread(frame, Port(space=port.space, link=bridge), port, entered)


def _spread(
    frame: _Frame, bridge: Port, came_by: Port | None, crossings: tuple[Crossing, ...]
) -> None:
    """What a bridge does with a frame: to itself, to one port, or to all."""
    if not bridge.link.up:
        frame.found.lost.append(f"{bridge.link.name} of {bridge.space.title} is down")
        return
    refuse_unmodelled(bridge.space, bridge.link)
    ports = [link for link in bridge.space.links.values() if link.master == bridge.link.index]
    own = {bridge.link.mac, *(link.mac for link in ports)}
    if came_by is not None and (frame.mac is None or frame.mac in own):
        frame.found.arrivals.append(Arrival(port=bridge, crossings=crossings))
        if frame.mac is not None:
            return
    known = None if frame.mac is None else _port_of(bridge, ports, frame.mac)
    for link in ports:
        if came_by is not None and link.index == came_by.link.index:
            continue
        if known is not None and link.index != known:
            continue
        reason = f"MAC {frame.mac} learnt there" if known is not None else "flooded"
        out = Port(space=bridge.space, link=link)
        _across(frame, out, (*crossings, Crossing(port=out, inbound=False, reason=reason)))


def _port_of(bridge: Port, ports: list[Link], mac: str) -> int | None:
    """The port behind which the bridge knows a MAC; None: it floods."""
    indexes = {link.index for link in ports}
    for entry in bridge.space.fdb:
        if entry.mac == mac and entry.device in indexes and not entry.own:
            return entry.device
    return None


def refuse_unmodelled(space: Space, link: Link) -> None:
    """Stop at a link with something that can take packets away and is not modelled.

    Raises:
        Lacking: an XDP program, a classifier, or rules below IP sit there.
    """
    classifiers = space.need(space.state.qdiscs, "classifiers")
    attached = {line.partition(" ")[2] for line in classifiers if _index(line) == link.index}
    below = rules_below_ip(
        space, link.name, bridged=link.kind == "bridge" or link.master is not None
    )
    if link.not_modelled or attached or below:
        what = ", ".join(sorted({*link.not_modelled, *attached, *below}))
        raise Lacking(f"{link.name} of {space.title}", f"{what} is not modelled")


def _index(line: str) -> int:
    """Link index of `3 clsact`."""
    return int(line.partition(" ")[0])
