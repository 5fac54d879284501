"""Positions: P1 … P8 on the way there, R1 … R8 on the way back, given to the hops of a path.

1 out of the sending pod, 2 into its node, 3 out of the tunnel device, 4 out to the wire, 5 in from
the wire at the other node, 6 in at its tunnel device, 7 out to the receiving pod, 8 into it. Bridge
ports and routers between have none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.schema import Direction, Hop, Path

if TYPE_CHECKING:
    from podwire.trace.ends import End


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One end as seen by its hops."""

    pod: int | None = None
    """Inode of the pod's namespace; None when the end is a node."""
    node: int | None = None
    veth: str | None = None
    """Host side of the pod's veth."""


def with_positions(path: Path, start: End, goal: End) -> Path:
    """The path with its hops' positions; each position is given once, to the first that fits."""
    if path.direction is Direction.RETURN:
        start, goal = goal, start
    letter = "P" if path.direction is Direction.FORWARD else "R"
    sender, receiver = _side(start), _side(goal)
    taken: set[int | None] = {None}
    hops = []
    for hop in path.hops:
        number = _number(hop, sender, receiver)
        position = None if number in taken else f"{letter}{number}"
        taken.add(number)
        hops.append(replace(hop, position=position))
    return replace(path, hops=tuple(hops))


def _side(end: End) -> _Side:
    if end.space is None:
        return _Side()
    if end.pod is None:
        return _Side(node=end.space.inode)
    host = end.pod.host
    return _Side(pod=end.space.inode, node=host.space.inode, veth=host.link.name)


def _number(hop: Hop, sender: _Side, receiver: _Side) -> int | None:
    if hop.role == "port" or hop.where.interface is None:
        return None
    out = hop.side == "out"
    if hop.inode == sender.pod:
        return 1 if out else None
    if hop.inode == receiver.pod:
        return None if out else 8
    if hop.role == "tunnel":
        return 3 if out else 6
    if hop.inode == sender.node and not out and hop.where.interface == sender.veth:
        return 2
    if hop.inode == receiver.node and out and hop.where.interface == receiver.veth:
        return 7
    if hop.inode == sender.node and out:
        return 4
    if hop.inode == receiver.node and not out:
        return 5
    return None
