"""Cursor: one packet on its way, and what it has met so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.schema import (
    Cause,
    Direction,
    Disposition,
    Gap,
    Hop,
    Lookup,
    Path,
    Question,
    Step,
    Where,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.link import Link
    from podwire.trace.fib import Decision, Query
    from podwire.trace.flow import Packet
    from podwire.trace.intake import Refusal
    from podwire.trace.space import Lacking, Space
    from podwire.trace.world import Port, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A packet in a namespace, before the kernel there decides about it."""

    space: Space
    packet: Packet
    link: Link | None = None
    """The link it came in by; None: it is made here."""
    direction: Direction = Direction.FORWARD
    branch: int = 0
    hops: tuple[Hop, ...] = ()
    questions: tuple[Question, ...] = ()
    remarks: tuple[Cause, ...] = ()
    seen: frozenset[object] = frozenset()
    lookups: tuple[Lookup, ...] = ()
    heard: tuple[tuple[tuple[int, int, str], int], ...] = ()
    """What bridges learn from this packet: see `segment.Heard`."""
    prerouted: bool = False
    """A bridge has shown it to IP's prerouting rules already (br_netfilter)."""
    rerouted: Packet | None = None
    """A packet made here, as it was when its output hook had it routed anew."""

    @property
    def heard_at(self) -> Mapping[tuple[int, int, str], int]:
        """The port at which each bridge has heard a MAC last."""
        return dict(self.heard)

    def with_heard(self, key: tuple[int, int, str], port: int) -> Cursor:
        """A bridge has heard a MAC."""
        return replace(self, heard=(*self.heard, (key, port)))

    def place(self, world: World, link: Link | None = None, space: Space | None = None) -> Where:
        """Where a link of this (or another) namespace is."""
        at = space or self.space
        return Where(
            node=world.node_of(at), netns=at.title, interface=None if link is None else link.name
        )

    def with_hop(self, hop: Hop) -> Cursor:
        """One place further; a packet made here names its first link only now."""
        if self.hops and self.hops[-1].where.interface is None:
            made = self.hops[-1]
            hop = replace(hop, steps=made.steps + hop.steps)
            return replace(self, hops=(*self.hops[:-1], hop))
        return replace(self, hops=(*self.hops, hop))

    def with_step(self, step: Step) -> Cursor:
        """Something is decided at the last place."""
        last = self.hops[-1]
        return replace(self, hops=(*self.hops[:-1], replace(last, steps=(*last.steps, step))))

    def with_question(self, question: Question) -> Cursor:
        """An ARP question on the way."""
        return replace(self, questions=(*self.questions, question))

    def with_remark(self, remark: Cause) -> Cursor:
        """Something that works and deserves a word."""
        return replace(self, remarks=(*self.remarks, remark))

    def with_lookup(self, query: Query, answer: Decision | Refusal) -> Cursor:
        """A FIB was asked here."""
        asked = Lookup(
            inode=self.space.inode,
            hop=len(self.hops) - 1,
            query=query,
            iif=None if self.link is None else self.link.index,
            answer=answer,
        )
        return replace(self, lookups=(*self.lookups, asked))

    def dropped(self, disposition: Disposition, cause: Cause, component: str) -> Path:
        """The way ends here."""
        action = {Disposition.DENIED: "DENIED", Disposition.REJECTED: "REJECTED"}
        if component == "Socket" and (cause.icmp is not None or cause.reset):
            action[disposition] = "REJECTED"
        step = Step(
            component=component,
            action=action.get(disposition, "DROPPED"),
            text=cause.text,
            detail={"reason": cause.code, "icmp": cause.icmp},
            by=dict(cause.facts),
        )
        ended = self.with_step(step) if self.hops else self
        path = ended.path(disposition, cause=cause)
        return replace(path, lost=self.packet, lost_in=self.space.inode)

    def lacking(self, gap: Lacking) -> Path:
        """The way ends because nobody can say what comes next."""
        found = Gap(what=gap.what, why=gap.why, decides=gap.decides)
        return replace(self.path(Disposition.INSUFFICIENT_INFO), gap=found)

    def path(self, disposition: Disposition, cause: Cause | None = None) -> Path:
        """The way so far as a finished one."""
        return Path(
            direction=self.direction,
            branch=self.branch,
            disposition=disposition,
            hops=self.hops,
            cause=cause,
            questions=self.questions,
            remarks=self.remarks,
            lookups=self.lookups,
            heard=self.heard,
        )


def hop_at(world: World, port: Port, side: str, packet: Packet, role: str = "link") -> Hop:
    """A hop without steps."""
    where = Where(node=world.node_of(port.space), netns=port.space.title, interface=port.link.name)
    return Hop(
        inode=port.space.inode,
        where=where,
        side=side,
        packet=packet,
        role=role,
        mtu=port.link.mtu,
    )


def cause_at(
    cursor: Cursor,
    world: World,
    link: Link | None,
    code: str,
    text: str,
    facts: Mapping[str, str] | None = None,
) -> Cause:
    """A cause in the cursor's namespace."""
    return Cause(
        code=code,
        where=cursor.place(world, link),
        inode=cursor.space.inode,
        text=text,
        facts=facts or {},
    )
