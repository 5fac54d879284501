"""Segment: where a frame comes out that goes in at a link, over veth pairs and bridges.

Follows br_handle_frame_finish, br_flood and should_deliver of net/bridge: only the wiring is
looked at here; what rules do with the frame on its way is in `crossing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from podwire.model.link import PORT_FORWARDING, PORT_STATES, PortSettings
from podwire.model.overlay import NUD_PERMANENT, FDBEntry
from podwire.trace.space import Lacking
from podwire.trace.world import Port, Unseen, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.link import Link
    from podwire.trace.space import Space

Heard: TypeAlias = "Mapping[tuple[int, int, str], int]"
"""Inode, bridge and MAC → the port at which the bridge has just heard it."""
PLAIN_PORT = PortSettings()


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
    up: bool = False
    """A bridge gives it to its own namespace, as it does with what is for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A place where the frame ends, for one of those it could have reached."""

    port: Port
    code: str
    """link-down, port-isolated, port-blocked, port-silent, no-hairpin."""
    text: str
    behind: Port | None = None
    """The link it would have come to next."""
    crossings: tuple[Crossing, ...] = ()


@dataclass(slots=True, kw_only=True)
class Reach:
    """Everything a frame reaches."""

    arrivals: list[Arrival] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def obstacle(self, mac: str | None = None, address: IPAddress | None = None) -> Lost | None:
        """Where it is lost on its way to a MAC, or to an address."""
        for each in self.lost:
            there = each.behind
            if there is None:
                continue
            own = there.space.addresses.get(there.link.index, ())
            carries = any(each.interface.ip == address for each in own)
            if (mac is not None and there.link.mac == mac) or carries:
                return each
        return None


def reach(world: World, origin: Port, mac: str | None, heard: Heard | None = None) -> Reach:
    """Where a frame ends up that is sent out of `origin`.

    `mac` is its destination; None: broadcast. A bridge that does not know the MAC floods it, so
    several arrivals are normal; the one that owns the MAC takes the frame.

    Raises:
        Lacking: a table that decides was not read.
    """
    frame = _Frame(world, mac, heard or {})
    if origin.link.kind == "bridge":
        _spread(frame, origin, None, ())
    else:
        _across(frame, origin, ())
    return frame.found


def reach_from(world: World, came_by: Port, mac: str, heard: Heard | None = None) -> Reach:
    """Where a bridge sends a frame that came in by one of its ports, and what comes of it.

    Raises:
        Lacking: a table that decides was not read.
    """
    frame = _Frame(world, mac, heard or {})
    frame.seen.add(came_by.key)
    assert came_by.link.master is not None
    bridge = Port(space=came_by.space, link=came_by.space.links[came_by.link.master])
    _spread(frame, bridge, came_by, ())
    return frame.found


@dataclass(slots=True)
class _Frame:
    world: World
    mac: str | None
    heard: Heard
    found: Reach = field(default_factory=Reach)
    seen: set[tuple[int, int]] = field(default_factory=set)
    passed: tuple[Crossing, ...] = ()
    """Up to the bridge that is being asked."""

    def lose(self, port: Port, code: str, text: str, behind: Port | None = None) -> None:
        self.found.lost.append(
            Lost(port=port, code=code, text=text, behind=behind, crossings=self.passed)
        )


def _across(frame: _Frame, port: Port, crossings: tuple[Crossing, ...]) -> None:
    """Out of one link, into whatever it is wired to."""
    link = port.link
    refuse_unmodelled(port.space, link)
    peer = frame.world.peer(port.space, link) if link.kind == "veth" else None
    behind = peer if isinstance(peer, Port) else None
    if not link.up:
        frame.lose(port, "link-down", f"{link.name} of {port.space.title} is down", behind)
        return
    if behind is not None and not behind.link.up:
        text = f"{behind.link.name} of {behind.space.title} is down"
        frame.lose(behind, "link-down", text, behind)
        return
    if not link.carrier:
        text = f"{link.name} of {port.space.title} has no carrier"
        frame.lose(port, "link-down", text, behind)
        return
    if peer is None:
        what = f"the network behind {link.name} of {port.space.title}"
        frame.found.unseen.append(Unseen(what=what, why="it is not a link to a namespace we read"))
        return
    if isinstance(peer, Unseen):
        frame.found.unseen.append(peer)
        return
    refuse_unmodelled(peer.space, peer.link)
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
    frame.passed = crossings
    if not bridge.link.up:
        frame.lose(bridge, "link-down", f"{bridge.link.name} of {bridge.space.title} is down")
        return
    refuse_unmodelled(bridge.space, bridge.link)
    if came_by is not None and _is_blocked(frame, came_by):
        return
    ports = [link for link in bridge.space.links.values() if link.master == bridge.link.index]
    entry = None if frame.mac is None else _entry(frame, bridge, frame.mac)
    if came_by is not None and (
        frame.mac is None
        or frame.mac in {bridge.link.mac, *(link.mac for link in ports)}
        or (entry is not None and is_local(entry))
    ):
        up = frame.mac is not None
        frame.found.arrivals.append(Arrival(port=bridge, crossings=crossings, up=up))
        if frame.mac is not None:
            return
    for link in ports:
        if entry is not None and link.index != entry.device:
            continue
        frame.passed = crossings
        out = Port(space=bridge.space, link=link)
        if not _delivers(frame, came_by, out, known=entry is not None):
            continue
        reason = f"MAC {frame.mac} learnt there" if entry is not None else "flooded"
        _across(frame, out, (*crossings, Crossing(port=out, inbound=False, reason=reason)))


def _delivers(frame: _Frame, came_by: Port | None, out: Port, *, known: bool) -> bool:
    """Whether a bridge gives the frame to a port (should_deliver, br_flood)."""
    settings = out.link.port or PLAIN_PORT
    name, title = out.link.name, out.space.title
    if came_by is not None and out.link.index == came_by.link.index and not settings.hairpin:
        if known:
            text = f"{name} of {title} may not send a frame back where it came from (hairpin off)"
            frame.lose(out, "no-hairpin", text, _behind(frame, out))
        return False
    if not known and not (settings.flood if frame.mac is not None else settings.broadcast):
        what = "broadcasts" if frame.mac is None else f"{frame.mac}, which nobody has heard of,"
        text = f"{name} of {title} is not given {what} (flooding is off)"
        frame.lose(out, "port-silent", text, _behind(frame, out))
        return False
    if not out.link.up or not out.link.carrier:
        return True  # its own state is told further on
    if _is_blocked(frame, out):
        return False
    from_isolated = came_by is not None and (came_by.link.port or PLAIN_PORT).isolated
    if came_by is not None and from_isolated and settings.isolated:
        text = f"{came_by.link.name} and {name} of {title} are isolated from each other"
        frame.lose(out, "port-isolated", text, _behind(frame, out))
        return False
    return True


def _is_blocked(frame: _Frame, port: Port) -> bool:
    """Whether spanning tree, or an administrator, keeps a port from its bridge's frames."""
    state = (port.link.port or PLAIN_PORT).state
    if state == PORT_FORWARDING:
        return False
    name = PORT_STATES[state] if state < len(PORT_STATES) else str(state)
    text = f"{port.link.name} of {port.space.title} is {name}, not forwarding"
    frame.lose(port, "port-blocked", text, _behind(frame, port))
    return True


def _behind(frame: _Frame, port: Port) -> Port | None:
    if port.link.kind != "veth":
        return None
    peer = frame.world.peer(port.space, port.link)
    return peer if isinstance(peer, Port) else None


def _entry(frame: _Frame, bridge: Port, mac: str) -> FDBEntry | None:
    """How the bridge knows a MAC; None: it floods."""
    entry = entry_of(bridge, mac)
    heard = frame.heard.get((*bridge.key, mac))
    if heard is None or (entry is not None and (entry.sticky or is_local(entry))):
        return entry
    # The bridge has learnt it since its table was read, or will: the frame's receiver has spoken.
    return FDBEntry(device=heard, mac=mac, master=bridge.link.index, state=0)


def entry_of(bridge: Port, mac: str) -> FDBEntry | None:
    """What a bridge's table says of a MAC."""
    for entry in bridge.space.fdb:
        mine = entry.master == bridge.link.index and not entry.own and entry.vlan is None
        if mine and entry.mac == mac:
            return entry
    return None


def is_local(entry: FDBEntry) -> bool:
    """Whether frames for it go up into the bridge's own namespace (BR_FDB_LOCAL)."""
    return bool(entry.state & NUD_PERMANENT)


def refuse_unmodelled(space: Space, link: Link) -> None:
    """Stop at a link with something that can take packets away and is not modelled.

    Raises:
        Lacking: an XDP program, a classifier, or a setting of a bridge sits there.
    """
    classifiers = space.need(space.state.qdiscs, "classifiers")
    attached = {line.partition(" ")[2] for line in classifiers if _index(line) == link.index}
    if link.not_modelled or attached:
        what = ", ".join(sorted({*link.not_modelled, *attached}))
        raise Lacking(f"{link.name} of {space.title}", f"{what} is not modelled")


def _index(line: str) -> int:
    """Link index of `3 clsact`."""
    return int(line.partition(" ")[0])
