"""Explain: what a prediction and an observation together say.

Both good, or lost at the same place with state that shows why: certain. Good in fact and not as
predicted: MISMATCH. Lost where the state would let it pass: LOST_ON_LINK between two links,
UNEXPLAINED inside a namespace. What was not watched or read never counts as seen.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.trace import losses
from podwire.trace.align import ANSWERED, REFUSED, UNSENT, Alignment, align
from podwire.trace.schema import (
    Direction,
    Disposition,
    Evidence,
    Fault,
    Gap,
    Hop,
    Probing,
    Result,
    Trace,
)

if TYPE_CHECKING:
    from podwire.trace.observation import Observation
    from podwire.trace.world import World

GOOD = Disposition.DELIVERED_AND_ANSWERED
UNKNOWN = Disposition.INSUFFICIENT_INFO
OFF = frozenset({Result.MISSING, Result.EXTRA, Result.DIFFERS})


def explain(world: World, trace: Trace, observation: Observation) -> Trace:
    """The prediction completed by what was seen of it."""
    aligned = align(world, trace.paths, observation)
    seen = replace(
        trace,
        paths=aligned.paths,
        probing=_probing(aligned, observation),
        gaps=(*trace.gaps, *_blind(world, aligned, observation)),
    )
    judged = _judge(world, seen, aligned, observation)
    if judged.confidence == "certain" and not observation.trustworthy:
        judged = replace(judged, confidence="likely")
    return replace(judged, faults=_with_confidence(judged))


def _with_confidence(trace: Trace) -> tuple[Fault, ...]:
    """The first error is as sure as the whole; what else is named is less sure.

    What only slows or cuts packets is sure when they were seen on the predicted way.
    """
    errors = [fault for fault in trace.faults if fault.severity == "error"]
    lower = "possible" if trace.confidence == "possible" else "likely"
    passes = trace.disposition is GOOD
    first = next(iter(trace.faults if passes else errors), None)

    def sure(fault: Fault) -> str:
        return trace.confidence if fault is first else lower

    return tuple(replace(fault, confidence=sure(fault)) for fault in trace.faults)


def _probing(aligned: Alignment, observation: Observation) -> Probing:
    times = [each.time_ns for each in observation.sent]
    stamps = [each.sighting.timestamp_ns for each in observation.seen]
    return Probing(
        cookie=observation.series.mark.hex(),
        sent=len(observation.sent),
        answered=sum(each == ANSWERED for each in aligned.outcomes),
        refused=sum(each == REFUSED for each in aligned.outcomes),
        steadiness=aligned.steadiness,
        taps=sum(tap.refused is None for tap in observation.taps),
        start_ns=min(times),
        end_ns=max([*times, *stamps]),
        rtt_ns=aligned.rtt_ns,
    )


def _blind(world: World, aligned: Alignment, observation: Observation) -> tuple[Gap, ...]:
    """What was not watched, or not wholly."""
    found = []
    for tap in observation.taps:
        space = world.spaces.get(tap.inode)
        title = f"netns:[{tap.inode}]" if space is None else space.title
        passed = any(hop.inode == tap.inode for path in aligned.paths for hop in path.hops)
        if tap.refused is not None and passed:
            what = "whether the packet is seen there"
            found.append(Gap(what=f"taps in {title}", why=tap.refused, decides=what))
        elif tap.dropped:
            why = f"{tap.dropped} frames came faster than they were read"
            found.append(Gap(what=f"taps in {title}", why=why))
    if not observation.complete:
        found.append(Gap(what="later frames", why="more were seen than are kept"))
    return tuple(found)


def _judge(world: World, trace: Trace, aligned: Alignment, observation: Observation) -> Trace:
    answered = aligned.outcome == ANSWERED
    if trace.disposition is UNKNOWN:
        return _unknown(world, trace, aligned, observation)
    if trace.disposition is GOOD:
        if answered:
            return _arrived(trace, aligned)
        return losses.unpredicted(world, trace, aligned, observation)
    if answered and trace.disposition is not Disposition.ANSWERED_BY_OTHER:
        return _arrived_all_the_same(trace, aligned)
    return _lost(world, trace, aligned, observation)


def _arrived(trace: Trace, aligned: Alignment) -> Trace:
    off = next(iter(_off(aligned)), None)
    if off is not None:
        hop, direction = off
        if _other_answers(aligned):
            text = f"{hop.where.netns} answers for {trace.destination.title}"
            return replace(trace, disposition=Disposition.ANSWERED_BY_OTHER, summary=text)
        way = "there" if direction is Direction.FORWARD else "back"
        text = f"answered, but not on the predicted way: {way}, {_said(hop)}"
        return replace(trace, disposition=Disposition.MISMATCH, summary=text, confidence="likely")
    if aligned.steadiness not in {"steady", "first-packet"}:
        text = f"only {aligned.steadiness.replace('-', ' ')} probes were answered"
        return replace(trace, disposition=Disposition.MISMATCH, summary=text, confidence="likely")
    whole = not aligned.blind or all(
        hop.observed is not None
        for path in map(aligned.taken, Direction)
        if path is not None
        for hop in path.hops
    )
    return replace(trace, confidence="certain" if whole else "likely")


def _other_answers(aligned: Alignment) -> bool:
    """Whether the answer began in another namespace than the predicted one."""
    path = aligned.taken(Direction.RETURN)
    if path is None or path.hops[0].result is not Result.EXTRA:
        return False
    predicted = next((hop for hop in path.hops if hop.result is not Result.EXTRA), None)
    return predicted is not None and predicted.inode != path.hops[0].inode


def _off(aligned: Alignment) -> list[tuple[Hop, Direction]]:
    """Places that are not as predicted, in the order of the way.

    A refusal whose way nobody predicted is none of them.
    """
    back = aligned.taken(Direction.RETURN)
    foreseen = back is not None and any(hop.result is not Result.EXTRA for hop in back.hops)
    beside = aligned.outcome == REFUSED and not foreseen
    directions = [Direction.FORWARD] if beside else list(Direction)
    return [
        (hop, direction)
        for direction in directions
        for path in [aligned.taken(direction)]
        if path is not None
        for hop in path.hops
        if hop.result in OFF
    ]


def _said(hop: Hop) -> str:
    place = f"{hop.where.interface} of {hop.where.netns} ({hop.side})"
    match hop.result:
        case Result.MISSING:
            return f"not seen at {place}"
        case Result.EXTRA:
            return f"seen at {place}, too"
        case _:
            assert hop.observed is not None
            return f"at {place}: {'; '.join(hop.observed.differences)}"


def _arrived_all_the_same(trace: Trace, aligned: Alignment) -> Trace:
    """Predicted as lost, and answered; or another branch is the broken one."""
    path = aligned.taken(Direction.FORWARD)
    branches = [each for each in aligned.paths if each.direction is Direction.FORWARD]
    if branches[1:] and path is not None and path.cause is None and not _off(aligned):
        text = f"this flow is answered, others are not: {trace.summary}"
        return replace(trace, summary=text, confidence="likely")
    text = f"answered, though the state says otherwise: {trace.summary}"
    notes = tuple(fault for fault in trace.faults if fault.severity != "error")
    return replace(
        trace, disposition=Disposition.MISMATCH, summary=text, faults=notes, confidence="likely"
    )


def _unknown(world: World, trace: Trace, aligned: Alignment, observation: Observation) -> Trace:
    """The model could not say; what was seen is said beside it, and is no proof of health."""
    if aligned.outcome == ANSWERED:
        return replace(trace, summary=f"{trace.summary}; this probe was answered")
    if any(hop.result is Result.MISSING for hop, _ in _off(aligned)):
        return losses.unpredicted(world, trace, aligned, observation)
    swallowed = losses.swallowed(world, trace, aligned)
    if swallowed is not None:
        return swallowed
    last = losses.last_seen(aligned)
    seen = "it was seen nowhere" if last is None else f"it was last seen at {losses.place(last)}"
    return replace(trace, summary=f"{trace.summary}; no answer came, {seen}")


def _lost(world: World, trace: Trace, aligned: Alignment, observation: Observation) -> Trace:
    """Predicted as lost and lost: at the same place?"""
    unsent = aligned.outcome == UNSENT
    if unsent and aligned.sent.errno == errno.ENOBUFS:  # a full queue is no state that was read
        return losses.unpredicted(world, trace, aligned, observation)
    off = _off(aligned)
    nothing_predicted = all(
        hop.where.interface is None
        for path in aligned.paths
        if path.direction is Direction.FORWARD
        for hop in path.hops
    )
    if not off and (not unsent or nothing_predicted or _refusal_predicted(aligned)):
        return _agreed(trace, aligned)
    if any(hop.result is Result.MISSING for hop, _ in off):
        return losses.unpredicted(world, trace, aligned, observation)
    demoted = replace(trace, confidence="possible")
    if any(hop.result is Result.EXTRA for hop, _ in off):
        text = f"lost further on than the state says: {_said(off[-1][0])}"
        return replace(demoted, disposition=Disposition.UNEXPLAINED, summary=text)
    return replace(trace, confidence="likely")


def _refusal_predicted(aligned: Alignment) -> bool:
    """Whether the sender's own kernel was to refuse it."""
    path = aligned.taken(Direction.FORWARD)
    return path is not None and not any(hop.observed for hop in path.hops)


def _agreed(trace: Trace, aligned: Alignment) -> Trace:
    """Predicted and lost at the same place; what was seen becomes evidence."""
    evidence = _seen_evidence(aligned)
    errors = [fault for fault in trace.faults if fault.severity == "error"]
    if not errors:
        return replace(trace, confidence="likely")
    first = replace(errors[0], evidence=(*errors[0].evidence, *evidence))
    faults = tuple(first if fault is errors[0] else fault for fault in trace.faults)
    return replace(trace, faults=faults, confidence="certain")


def _seen_evidence(aligned: Alignment) -> tuple[Evidence, ...]:
    found = []
    sent = len(aligned.outcomes)
    if aligned.outcome == UNSENT:
        value = f"{aligned.sent.reason} ({sent} of {sent} probes)"
        found.append(Evidence(kind="packet", key="refused by the sender's kernel", value=value))
    if aligned.outcome == REFUSED:
        refused = sum(each == REFUSED for each in aligned.outcomes)
        value = f"{losses.refusal(aligned)}, {refused} of {sent} probes"
        return (*found, Evidence(kind="packet", key="answer", value=value))
    last = losses.last_seen(aligned)
    if last is not None and last.observed is not None:
        value = f"{losses.place(last)}, {last.observed.count} of {sent} probes"
        found.append(Evidence(kind="packet", key="last seen", value=value))
    home = losses.error_home(aligned)
    if home is not None:
        own = losses.told_by_itself(aligned)
        key = "its own kernel says" if own else "came back"
        found.append(Evidence(kind="packet", key=key, value=home))
    return tuple(found)
