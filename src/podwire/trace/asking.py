"""Asking: the question for a MAC and its answer as frames, past the rules on their way.

Who would answer is decided in `arp`; here the frames cross what lies between, where chains of the
families arp, bridge and netdev (in IPv6 also those of IP) may take them away.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from podwire.trace import ruleset as rulesets
from podwire.trace import segment
from podwire.trace.crossing import Ride, beside, follow, go
from podwire.trace.flow import ARP_BYTES, NEIGHBOUR_BYTES, Packet, Protocol
from podwire.trace.passage import BROADCAST, Frame, Layer, Passage
from podwire.trace.policy import judge, onward
from podwire.trace.schema import Path
from podwire.trace.segment import PLAIN_PORT
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.addressing import IPAddress
    from podwire.trace.arp import Answer, Asked
    from podwire.trace.cursor import Cursor
    from podwire.trace.schema import Cause
    from podwire.trace.world import Port, World

    Ways = list[Cursor | Path]

HOP_LIMIT = 255
"""Neighbour discovery takes no packet that was routed (RFC 4861, 7.1)."""


def refused_on_the_way(
    world: World, cursor: Cursor, port: Port, asked: Asked, answer: Answer
) -> Cause | None:
    """The rule that takes the question or its answer away; None when both get through.

    Raises:
        Lacking: a rule that decides is not modelled.
    """
    question = _packet(asked.sender or cursor.packet.source, asked.target)
    if not _has_rules(question, port, answer):
        return None
    frame = Frame(source=port.link.mac, destination=_group(asked.target))
    begin = replace(cursor, packet=question, link=None, heard=())
    ride = Ride(frame=frame, goal=answer.port, todo=answer.crossings)
    ways = _sent(world, begin, port, frame)
    ways = onward(ways, partial(go, world, ride=ride))
    ways = onward(ways, partial(_got, world, port=answer.port, frame=frame))
    ways = onward(ways, partial(_answer, world, asker=port, replier=answer.port))
    if any(not isinstance(each, Path) for each in ways):
        return None
    for each in ways:
        assert isinstance(each, Path)
        if each.gap is not None:
            raise Lacking(each.gap.what, each.gap.why, decides=f"who answers for {asked.target}")
    lost = ways[0]
    return lost.cause if isinstance(lost, Path) else None


def heard(port: Port, answer: Answer) -> Iterator[tuple[tuple[int, int, str], int]]:
    """What the bridges between learn from the question and its answer."""
    for crossing in answer.crossings:
        link, master = crossing.port.link, crossing.port.link.master
        mac = port.link.mac if crossing.inbound else answer.port.link.mac
        if mac is not None and master is not None and (link.port or PLAIN_PORT).learning:
            yield (crossing.port.space.inode, master, mac), link.index


def _packet(source: IPAddress, target: IPAddress) -> Packet:
    if target.version == 4:
        return Packet(
            source=source, destination=target, protocol=Protocol.ARP, length=ARP_BYTES, ttl=0
        )
    return Packet(
        source=source,
        destination=target,
        protocol=Protocol.ICMP,
        length=NEIGHBOUR_BYTES,
        ttl=HOP_LIMIT,
        discovery=True,
        untracked=True,
    )


def _group(target: IPAddress) -> str:
    """Broadcast, or the solicited-node group of an IPv6 address (RFC 4291, 2.7.1)."""
    if target.version == 4:
        return BROADCAST
    low = f"{int(target) & 0xFFFFFF:06x}"
    return f"33:33:ff:{low[:2]}:{low[2:4]}:{low[4:]}"


def _has_rules(question: Packet, port: Port, answer: Answer) -> bool:
    """Whether there is any rule to ask; mostly there is none."""
    places = (port, answer.port, *(each.port for each in answer.crossings))
    for space in {place.space.inode: place.space for place in places}.values():
        ruleset = rulesets.of(space)
        if ruleset.layers or (question.discovery and ruleset.bases):
            return True
    return False


def _sent(world: World, cursor: Cursor, port: Port, frame: Frame) -> Ways:
    """Out of the namespace that asks, or answers."""
    passage = _hooks(cursor, frame, oif=port.link.name)
    ways = judge(world, cursor, passage(hook="output"))
    if cursor.packet.discovery:
        ways = onward(ways, lambda each: judge(world, each, passage(hook="postrouting")))
    return onward(ways, lambda each: beside(world, each, "egress", port, frame))


def _got(world: World, cursor: Cursor, port: Port, frame: Frame) -> Ways:
    """Into the namespace that is asked, or gets the answer."""
    passage = _hooks(cursor, frame, iif=port.link.name)
    ways: Ways = [cursor]
    if cursor.packet.discovery and not cursor.prerouted:
        ways = judge(world, cursor, passage(hook="prerouting"))
    return onward(ways, lambda each: judge(world, each, passage(hook="input")))


def _hooks(
    cursor: Cursor, frame: Frame, iif: str | None = None, oif: str | None = None
) -> partial[Passage]:
    return partial(
        Passage,
        packet=cursor.packet,
        layer=Layer.IP if cursor.packet.discovery else Layer.ARP,
        iif=iif,
        oif=oif,
        local=oif is not None,
        frame=frame,
    )


def _answer(world: World, cursor: Cursor, asker: Port, replier: Port) -> Ways:
    question = cursor.packet
    back = replace(question.answer(question.length), untracked=question.discovery, ttl=question.ttl)
    frame = Frame(source=replier.link.mac, destination=asker.link.mac or BROADCAST)
    cursor = replace(cursor, packet=back, link=None)
    reached = segment.reach(world, replier, asker.link.mac, cursor.heard_at)
    ride = Ride(frame=frame, goal=asker)
    ways = _sent(world, cursor, replier, frame)
    ways = onward(ways, lambda each: follow(world, each, replier, reached, ride))
    return onward(ways, partial(_got, world, port=asker, frame=frame))
