"""Losses that the states do not foretell: where the packet was seen last, and what fits there."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace.align import REFUSED, UNSENT
from podwire.trace.arpseen import unanswered
from podwire.trace.faults.routes import swallowed as swallowed_by
from podwire.trace.flow import Protocol
from podwire.trace.schema import (
    Direction,
    Disposition,
    Evidence,
    Fault,
    Hop,
    Result,
    Trace,
    Where,
)
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from podwire.trace.align import Alignment
    from podwire.trace.observation import Observation
    from podwire.trace.questions import AskedARP
    from podwire.trace.world import World


ERRORS = {
    (3, 0): "net unreachable", (3, 1): "host unreachable", (3, 2): "protocol unreachable",
    (3, 3): "port unreachable", (3, 9): "net prohibited", (3, 10): "host prohibited",
    (3, 13): "admin prohibited", (11, 0): "TTL exceeded",
}  # fmt: skip
"""ICMP types and codes in words (RFC 792, 1122, 1812)."""


def told_by_itself(aligned: Alignment) -> bool:
    """Whether the complaint is the sender's own kernel's."""
    ip = aligned.home[0].frame.ip if aligned.home else None
    return ip is not None and ip.innermost.source == ip.innermost.destination


NO_ROOM = (
    "; the queue of its link is full, or the neighbour table, which is one for all namespaces of a "
    "machine (net.ipv4.neigh.default.gc_thresh3 of its first namespace)"
)
"""What ENOBUFS means (net_xmit_errno in include/linux/netdevice.h, __neigh_create)."""


def refusal(aligned: Alignment) -> str:
    """`TCP reset from 10.244.1.5`: how the receiver refuses."""
    home = error_home(aligned)
    if home is not None:
        return home
    back = aligned.hops(Direction.RETURN)
    return f"TCP reset from {back[-1].packet.source}" if back else "TCP reset"


def place(hop: Hop) -> str:
    """`vms105 vxlan.calico in`."""
    return f"{hop.where.netns} {hop.where.interface} {hop.side}"


def last_seen(aligned: Alignment) -> Hop | None:
    """The last place of the answer, else of the packet."""
    for direction in (Direction.RETURN, Direction.FORWARD):
        hops = aligned.hops(direction)
        if hops:
            return hops[-1]
    return None


def error_home(aligned: Alignment) -> str | None:
    """`ICMP 3/1 (host unreachable) from 10.244.38.128`: the complaint that reached the sender."""
    for seen in aligned.home:
        ip = seen.frame.ip
        if seen.error is not None and ip is not None:
            error = seen.error
            kind = (error.type, error.code)
            said = f"MTU {error.mtu}" if error.mtu is not None else ERRORS.get(kind)
            words = f" ({said})" if said else ""
            return f"ICMP {error.type}/{error.code}{words} from {ip.innermost.source}"
    return None


def unpredicted(world: World, trace: Trace, aligned: Alignment, observation: Observation) -> Trace:
    """Lost before the place where the state would end it, or though the state would let it pass."""
    guesses = tuple(
        replace(fault, confidence="possible") for fault in trace.faults if fault.severity == "error"
    )
    notes = tuple(fault for fault in trace.faults if fault.severity != "error")
    trace = replace(trace, faults=(*guesses, *notes), confidence="possible")
    if aligned.outcome == UNSENT:
        text = f"{trace.source.title} could not send: {aligned.sent.reason}"
        if aligned.sent.errno == errno.ENOBUFS:
            text += NO_ROOM
        return _unexplained(trace, text)
    last, following = last_seen(aligned), _following(aligned)
    if aligned.outcome == REFUSED:
        return _refused_all_the_same(trace, aligned)
    blind = _blind_between(aligned)
    if blind is not None:
        text = f"cannot say where it was lost: {blind} could not be watched"
        return replace(trace, disposition=Disposition.INSUFFICIENT_INFO, summary=text)
    asked = _asked_in_vain(world, observation, last, following)
    if asked is not None:
        return _nobody_answers(world, trace, asked)
    if last is not None and following is not None and (last.side, following.side) == ("out", "in"):
        return _lost_on_link(trace, aligned, last, following)
    if last is not None and following is None and not aligned.hops(Direction.RETURN):
        return _silent_receiver(trace, last)
    where = "its sender" if last is None else place(last)
    said = error_home(aligned)
    reason = f"; {said} came back" if said else ""
    text = f"lost after {where}{reason}, and nothing in the state explains it"
    return _unexplained(trace, text)


def _refused_all_the_same(trace: Trace, aligned: Alignment) -> Trace:
    """A refusal, though the state says that a socket takes it."""
    sentence = (
        f"{trace.destination.title} refuses {trace.flow.title} ({refusal(aligned)}), though a "
        "socket listens there: it was closed meanwhile, or something refuses in its place"
    )
    back = aligned.hops(Direction.RETURN)
    where = back[0].where if back else Where()
    fault = Fault(id="socket.refused", number=None, where=where, sentence=sentence)
    return _because(trace, Disposition.DELIVERED_NO_ANSWER, fault)


def _unexplained(trace: Trace, text: str) -> Trace:
    return replace(trace, disposition=Disposition.UNEXPLAINED, summary=text)


def _following(aligned: Alignment) -> Hop | None:
    """The predicted place at which it is missing first."""
    back = aligned.hops(Direction.RETURN)
    path = aligned.taken(Direction.RETURN if back else Direction.FORWARD)
    hops = () if path is None else path.hops
    return next((hop for hop in hops if hop.result is Result.MISSING), None)


def _blind_between(aligned: Alignment) -> str | None:
    """A namespace on the way, after the last place seen, that could not be watched."""
    for path in aligned.paths:
        seen = max((n for n, hop in enumerate(path.hops) if hop.observed is not None), default=-1)
        for hop in path.hops[seen + 1 :]:
            if hop.result is Result.MISSING:
                break
            if hop.inode in aligned.blind:
                return hop.where.netns or f"netns:[{hop.inode}]"
    return None


def _asked_in_vain(
    world: World, observation: Observation, last: Hop | None, following: Hop | None
) -> AskedARP | None:
    """ARP that brought no answer in the namespace where the packet was seen last."""
    inode = observation.inode if last is None else last.inode
    for asked in unanswered(observation):
        space = world.spaces.get(asked.inode)
        if asked.inode != inode or space is None:
            continue
        try:
            link = space.links_by_name.get(asked.interface or "")
        except Lacking:
            link = None
        port = link is not None and link.master is not None
        expected = following is None or following.where.interface in {None, asked.interface}
        if not port and expected:
            return asked
    return None


def _because(trace: Trace, disposition: Disposition, fault: Fault) -> Trace:
    """What was seen speaks for this fault; what the state alone shows comes behind it."""
    return replace(
        trace,
        disposition=disposition,
        summary=fault.sentence,
        faults=(fault, *trace.faults),
        confidence="likely",
    )


def _nobody_answers(world: World, trace: Trace, asked: AskedARP) -> Trace:
    space = world.spaces[asked.inode]
    where = Where(node=world.node_of(space), netns=space.title, interface=asked.interface)
    sentence = (
        f"{space.title} asked {len(asked.asked_ns)} times for {asked.target} on "
        f"{asked.interface} and nobody answered, though the state says that somebody should"
    )
    key = f"{asked.target} dev {asked.interface}"
    fault = Fault(
        id="neighbour.silent",
        number=None,
        where=where,
        sentence=sentence,
        evidence=(Evidence(kind="packet", key=key, value="no answer seen", ns=space.title),),
    )
    return _because(trace, Disposition.NEIGHBOR_FAILED, fault)


def _lost_on_link(trace: Trace, aligned: Alignment, last: Hop, following: Hop) -> Trace:
    """Handed to a link here, never come in there, and both ends are in order."""
    assert last.observed is not None
    sentence = (
        f"left {last.where.netns} by {last.where.interface} and never came in at "
        f"{following.where.interface} of {following.where.netns}: lost between them"
    )
    between = last.where.node != following.where.node
    value = f"{place(last)}, {last.observed.count} of {len(aligned.outcomes)} probes"
    fault = Fault(
        id="link.lost",
        number=35 if between else None,
        where=last.where,
        sentence=sentence,
        evidence=(
            Evidence(kind="packet", key="last seen", value=value),
            Evidence(kind="packet", key="not seen", value=place(following)),
        ),
    )
    return _because(trace, Disposition.LOST_ON_LINK, fault)


def _silent_receiver(trace: Trace, last: Hop) -> Trace:
    """It came to its receiver, which says nothing."""
    if trace.flow.protocol is not Protocol.UDP:
        text = f"{last.where.netns} gets the packet and sends no answer; its state does not say why"
        return _unexplained(trace, text)
    sentence = (
        f"{last.where.netns} gets the packet, a socket listens on {trace.flow.title}, "
        "and the program behind it sends no answer"
    )
    fault = Fault(id="socket.silent", number=None, where=last.where, sentence=sentence)
    return _because(trace, Disposition.DELIVERED_NO_ANSWER, fault)


def swallowed(world: World, trace: Trace, aligned: Alignment) -> Trace | None:
    """It was seen leaving by a default route into what nobody has read, and a better is missing."""
    path = aligned.taken(Direction.FORWARD)
    fault = None if path is None else swallowed_by(world, path)
    if fault is None or path is None:
        return None
    left = [hop for hop in path.hops if hop.observed is not None and hop.side == "out"]
    agreed = bool(left) and left[-1].where.netns == fault.where.netns
    return replace(
        trace,
        disposition=Disposition.NO_ROUTE,
        summary=fault.sentence,
        faults=(fault,),
        confidence="certain" if agreed else "likely",
    )
