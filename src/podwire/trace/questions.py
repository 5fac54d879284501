"""Questions: the ARP that was really seen, each question with its answer, place by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.trace.observation import Role

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from podwire.trace.frames import ARP
    from podwire.trace.observation import Observation, Sighting


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedARP:
    """One question at one link; `side` is the way the question went."""

    inode: int
    index: int
    interface: str | None
    side: str
    asker: IPv4Address
    target: IPv4Address
    asked_ns: tuple[int, ...]
    """Every time it was asked, wall clock; more than once: nobody had answered in a second."""
    macs: tuple[str, ...] = ()
    """Who answered, in order; two different ones: two own the address."""
    answered_ns: int | None = None
    """The first answer."""

    @property
    def delay_ns(self) -> int | None:
        """From the last question before the first answer to that answer."""
        if self.answered_ns is None:
            return None
        return self.answered_ns - max(
            (each for each in self.asked_ns if each <= self.answered_ns), default=self.asked_ns[0]
        )


@dataclass(slots=True)
class _Draft:
    sighting: Sighting
    arp: ARP
    asked: list[int]
    answers: list[tuple[int, str]]


def questions(observation: Observation) -> tuple[AskedARP, ...]:
    """All ARP questions, at every link they passed, in the order of the first time asked.

    Announcements (an address asking for itself) are no questions.
    """
    drafts: dict[tuple[object, ...], _Draft] = {}
    for seen in observation.of(Role.ARP):
        arp, at = seen.frame.arp, seen.sighting
        if arp is None or arp.sender == arp.target:
            continue
        place, other = (at.inode, at.index), "in" if at.side == "out" else "out"
        if not arp.answer:
            key = (*place, at.side, arp.sender, arp.target)
            drafts.setdefault(key, _Draft(at, arp, [], [])).asked.append(at.timestamp_ns)
            continue
        draft = drafts.get((*place, other, arp.target, arp.sender))
        if draft is not None:
            draft.answers.append((at.timestamp_ns, arp.sender_mac))
    return tuple(_finish(draft) for draft in drafts.values())


def _finish(draft: _Draft) -> AskedARP:
    at = draft.sighting
    return AskedARP(
        inode=at.inode,
        index=at.index,
        interface=at.interface,
        side=at.side,
        asker=draft.arp.sender,
        target=draft.arp.target,
        asked_ns=tuple(draft.asked),
        macs=tuple(dict.fromkeys(mac for _, mac in draft.answers)),
        answered_ns=draft.answers[0][0] if draft.answers else None,
    )
