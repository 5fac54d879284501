"""Resolve: the MAC that a packet is sent to, and what is said when there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.model.overlay import NUD_PERMANENT
from podwire.trace import arp
from podwire.trace.asking import heard, refused_on_the_way
from podwire.trace.cursor import Cursor, cause_at
from podwire.trace.schema import Disposition, Path, Question, Step
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.schema import Cause
    from podwire.trace.world import Port, World


def resolve(
    world: World, cursor: Cursor, port: Port, target: IPAddress
) -> tuple[str, Cursor] | Path:
    """The MAC the frame is sent to: from the neighbour table, else by asking.

    Raises:
        Lacking: something that decides was not read or is not modelled.
    """
    cached = arp.cached_mac(port, target)
    if cached is not None and cached[1] & NUD_PERMANENT:
        step = Step(
            component="ARP",
            action="FORWARDED",
            text=f"neighbour {target} is {cached[0]} (permanent)",
            by={"neigh": f"{target} dev {port.link.name} lladdr {cached[0]} PERMANENT"},
        )
        return cached[0], cursor.with_step(step)
    asked = arp.ask(world, port, target, cursor.packet.source)
    if not asked.answers and cached is None:
        return _unanswered(world, cursor, port, asked)
    cursor = _note_answers(world, cursor, port, asked, cached)
    if cached is not None:
        return cached[0], cursor
    answer = asked.answers[0]
    refused = refused_on_the_way(world, cursor, port, asked, answer)
    if refused is not None:
        return _refused(cursor, port, asked, refused)
    mac = answer.port.link.mac or ""
    for key, at in heard(port, answer):
        cursor = cursor.with_heard(key, at)
    return mac, cursor


def _refused(cursor: Cursor, port: Port, asked: arp.Asked, cause: Cause) -> Path:
    """A rule below IP takes the question away, or its answer."""
    cursor = _in_vain(cursor, port, asked)
    how = "ARP" if asked.target.version == 4 else "neighbour discovery"
    text = f"{how} for {asked.target} from {port.link.name} of {cursor.space.title}: {cause.text}"
    cause = replace(cause, code=f"arp-{cause.code}", text=text, icmp=_complaint(cursor, asked))
    return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "ARP")


def _note_answers(
    world: World,
    cursor: Cursor,
    port: Port,
    asked: arp.Asked,
    cached: tuple[str, int] | None,
) -> Cursor:
    answer = asked.answers[0] if asked.answers else None
    late = answer is not None and answer.delay_s > 0
    if answer is None:
        said = "cached; nobody would answer now"
    else:
        said = f"answered by {answer.port.space.title}"
        said += " (proxy ARP)" if answer.kind == "proxy" else ""
        said += ", cached" if cached is not None else ""
    delay = int(answer.delay_s * 1000) if answer is not None and late else None
    question = Question(
        asker=f"{cursor.space.title} {port.link.name}",
        target=asked.target,
        replier=None if answer is None else answer.port.space.title,
        mac=cached[0] if cached is not None else (answer.port.link.mac if answer else None),
        kind="none" if answer is None else answer.kind,
        predicted=said,
        delay_ms=delay,
    )
    step = Step(
        component="ARP",
        action="FORWARDED",
        text=f"{question.mac}, {said}",
        detail={"target": str(asked.target), "mac": question.mac, "kind": question.kind},
    )
    cursor = cursor.with_question(question).with_step(step)
    if answer is not None and late:
        # Said of a cached answer, too: it is asked for again when the entry has aged.
        name = answer.port.link.name
        cursor = cursor.with_remark(
            replace(
                cause_at(cursor, world, port.link, "proxy-delay", f"waits up to {delay} ms"),
                where=cursor.place(world, answer.port.link, answer.port.space),
                facts={
                    f"net.ipv4.neigh.{name}.proxy_delay": str(int(answer.delay_s * 100)),
                    "delay_ms": str(delay),
                },
            )
        )
    if len(asked.answers) > 1:
        names = ", ".join(each.port.space.title for each in asked.answers)
        text = f"{asked.target} is answered by several: {names}"
        remark = cause_at(cursor, world, port.link, "several-answers", text, {"answers": names})
        cursor = cursor.with_remark(remark)
    return cursor


def _unanswered(world: World, cursor: Cursor, port: Port, asked: arp.Asked) -> Path:
    """Nobody answers: say why, from whoever should have."""
    cursor = _in_vain(cursor, port, asked)
    lost = asked.reach.obstacle(address=asked.target)
    if lost is not None:
        there = replace(cursor, space=lost.port.space)
        facts = {f"{lost.port.link.name} operstate": lost.port.link.operstate}
        cause = cause_at(there, world, lost.port.link, lost.code, lost.text, facts)
        cause = replace(cause, icmp=_complaint(cursor, asked))
        return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "ARP")
    if asked.reach.unseen:
        unseen = asked.reach.unseen[0]
        text = f"who answers for {asked.target} on {port.link.name} of {cursor.space.title}"
        raise Lacking(unseen.what, unseen.why, decides=text)
    silence = next((each for each in asked.silences), None)
    code, facts = "arp-nobody", {"target": str(asked.target), "link": port.link.name}
    where = cursor.place(world, port.link)
    inode = cursor.space.inode
    if silence is not None and len(asked.silences) == 1:
        code = f"arp-{silence.code}"
        facts |= dict(silence.facts)
        where = cursor.place(world, silence.port.link, silence.port.space)
        inode = silence.port.space.inode
    asks = "ARP" if asked.target.version == 4 else "neighbour discovery"
    text = f"nobody answers {asks} for {asked.target} on {port.link.name} of {cursor.space.title}"
    cause = cause_at(cursor, world, port.link, code, text, facts)
    cause = replace(cause, where=where, inode=inode, icmp=_complaint(cursor, asked))
    return cursor.dropped(Disposition.NEIGHBOR_FAILED, cause, "ARP")


def _in_vain(cursor: Cursor, port: Port, asked: arp.Asked) -> Cursor:
    """The question, noted as one without an answer."""
    question = Question(
        asker=f"{cursor.space.title} {port.link.name}",
        target=asked.target,
        replier=None,
        mac=None,
        kind="none",
        predicted="nobody answers",
    )
    return cursor.with_question(question)


def _complaint(cursor: Cursor, asked: arp.Asked) -> str | None:
    """The ICMP error its sender gets; none when that is a program here."""
    if cursor.link is None and cursor.packet.inner is None:
        return None
    return "3/1" if asked.target.version == 4 else "1/3"
