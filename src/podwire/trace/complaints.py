"""Complaints: the ICMP error or TCP reset that a loss causes, and whether it comes home.

It is a packet like others: made where the loss is, routed, filtered, and perhaps lost itself. A
kernel that complains and is not heard is silent to the sender.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace import fib, intake
from podwire.trace.cursor import Cursor
from podwire.trace.fib import Query
from podwire.trace.schema import Direction, Disposition
from podwire.trace.space import Lacking
from podwire.trace.walk import walk

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.flow import Packet
    from podwire.trace.schema import Cause, Path
    from podwire.trace.space import Space
    from podwire.trace.world import World

RESET_BYTES = 40
KEPT = frozenset({"port-closed", "vtep-missing", "rule-reject"})
"""Causes behind postrouting or input, or of a rule: their connection is known to the namespace. So
are those of ARP; other losses come before conntrack keeps the entry (nf_conntrack_confirm)."""


def with_complaint(world: World, path: Path) -> Path:
    """The path with the way of what its end causes, if it causes anything."""
    cause, packet = path.cause, path.lost
    if cause is None or packet is None or path.lost_in is None or path.complaint is not None:
        return path
    if cause.icmp is None and not cause.reset:
        return path
    space = world.spaces[path.lost_in]
    try:
        made = replace(_made(space, packet, cause), ttl=space.default_ttl(packet.source.version))
        begin = Cursor(space=space, packet=made, direction=Direction.RETURN)
        ways = walk(world, begin)
    except Lacking:
        return path
    return replace(path, complaint=ways[0] if ways else None)


def _made(space: Space, packet: Packet, cause: Cause) -> Packet:
    """The packet that is sent back."""
    if cause.reset:
        return replace(packet.answer(RESET_BYTES), reset=True, df=False)
    assert cause.icmp is not None
    error = packet.complain(cause.icmp, _source(space, packet))
    if cause.code in KEPT or cause.code.startswith("arp-"):
        return error
    kept = tuple(track for track in error.tracks if track.inode != space.inode)
    return replace(error, tracks=kept)


def _source(space: Space, packet: Packet) -> IPAddress:
    """Whose name the error carries: the address the packet was for, else one by the route back."""
    if space.link_with(packet.destination) is not None:
        return packet.destination
    decision = fib.lookup(space, Query(destination=packet.source))
    found = intake.select_source(space, decision, packet.source)
    # Without a route back nothing is sent, whatever it would be called.
    return packet.destination if found is None else found


def comes_home(path: Path, sender: int) -> bool:
    """Whether the sender is told of the loss."""
    back = path.complaint
    return (
        back is not None
        and back.disposition is Disposition.DELIVERED_AND_ANSWERED
        and back.reached == sender
    )


def fate(path: Path, world: World, sender: int) -> str | None:
    """What becomes of the complaint, in words; None when nothing is sent."""
    cause, back = path.cause, path.complaint
    if cause is None or (cause.icmp is None and not cause.reset):
        return None
    name = "TCP reset" if cause.reset else f"ICMP {cause.icmp}"
    if back is None or back.disposition is Disposition.INSUFFICIENT_INFO:
        return f"{name} is sent back"
    if comes_home(path, sender):
        return f"{name} goes back"
    if back.cause is not None and back.cause.code.startswith("source-"):
        return f"no {name} goes back: {back.cause.text}"
    if back.cause is not None:
        return f"{name} gets lost: {back.cause.text}"
    taker = None if back.reached is None else world.spaces[back.reached].title
    return f"{name} goes to {taker} only"
