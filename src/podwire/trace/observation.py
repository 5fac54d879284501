"""Observation: what was really seen of a series of probes, where and in which order.

A tap hands out `Sighting`s: bytes, a link, a time. What each of them is (the probe, its answer, an
ICMP error about either, ARP) makes it a `Seen`. An Observation holds them in the order of time, so
that it can be laid beside a prediction: `spots` gives the places a packet passed, in order, each
with the headers it had there as the same `Packet` value that the model speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.trace.flow import Packet
    from podwire.trace.frames import ICMP, Frame
    from podwire.trace.probe import Series

OUTGOING, OTHERHOST = "outgoing", "otherhost"
PACKET_TYPES = ("host", "broadcast", "multicast", OTHERHOST, OUTGOING)
"""By number, as in include/uapi/linux/if_packet.h; `otherhost`: its MAC is not the link's."""


class Role(StrEnum):
    """What a packet is to the series."""

    REQUEST = "request"
    REPLY = "reply"
    ERROR = "error"
    ARP = "arp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A frame as a tap saw it.

    *In*: before every rule and before IP. *Out*: after all rules and queues, right before the
    driver. So *in* does not mean accepted, and *out* means really handed to the device.
    """

    inode: int
    """Of the namespace."""
    index: int
    """Of the link."""
    interface: str | None
    """Its name; None: the link was gone before it could be asked."""
    packet_type: str
    timestamp_ns: int
    """Wall clock, nanoseconds since 1970, taken by the kernel."""
    order: int
    """The how-manieth frame of its tap; the kernel's order within one namespace."""
    data: bytes
    """The first bytes."""
    length: int
    """Bytes of the whole frame."""
    ethernet: bool = True
    """Whether it starts with MACs."""
    vlan: int | None = None
    """A tag that travels beside the frame."""
    checksum_unfinished: bool = False
    """Its checksum would be filled in by the device: it must not be called wrong."""

    @property
    def side(self) -> str:
        """Which way it passed the link: in or out."""
        return "out" if self.packet_type == OUTGOING else "in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sighting and what it is."""

    sighting: Sighting
    frame: Frame
    role: Role
    probe: int | None = None
    """Number of the probe; None of ARP, and where neither bytes nor time tell."""
    packet: Packet | None = None
    """Headers, outermost first; None of ARP."""
    error: ICMP | None = None
    """The complaint, of role ERROR."""
    about_reply: bool = False
    """The complaint is about the answer, not about the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One side of one link that a packet passed."""

    inode: int
    index: int
    interface: str | None
    side: str
    seen: tuple[Seen, ...]
    """More than one: fragments, or the packet came by again."""

    @property
    def first(self) -> Seen:
        """The first time."""
        return self.seen[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of handing one probe to the kernel."""

    probe: int
    time_ns: int
    errno: int | None = None
    """Positive when the kernel refused it at once (ENETUNREACH, EMSGSIZE …): nothing was sent."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TapReport:
    """How well one namespace was watched."""

    inode: int
    received: int = 0
    dropped: int = 0
    """Frames that found the tap full: what is missing may have been there."""
    refused: str | None = None
    """Why there was no tap at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything seen of one series of probes; the other half beside a prediction."""

    series: Series
    inode: int
    """Of the namespace that sent the probes."""
    sent: tuple[Sent, ...]
    seen: tuple[Seen, ...]
    """In the order of time."""
    taps: tuple[TapReport, ...]
    complete: bool = True
    """False: the limit of frames was reached, later ones were not kept."""
    unordered: int = 0
    """Frames whose time lies outside the observation: a clock was set meanwhile."""

    @property
    def trustworthy(self) -> bool:
        """Whether what was not seen was not there: every tap worked and none overflowed."""
        lossless = all(tap.refused is None and tap.dropped == 0 for tap in self.taps)
        return self.complete and lossless

    def of(self, role: Role, probe: int | None = None) -> tuple[Seen, ...]:
        """What was seen in one role; of one probe, or of all."""
        return tuple(
            each for each in self.seen if each.role is role and probe in {None, each.probe}
        )

    def spots(self, role: Role, probe: int) -> tuple[Spot, ...]:
        """The places a probe (or its answer) passed, in the order of time."""
        return _spots(self.of(role, probe))

    def arp(self) -> tuple[Spot, ...]:
        """The places where ARP was seen, whoever asked."""
        return _spots(self.of(Role.ARP))

    def answered(self, probe: int) -> bool:
        """Whether the answer came back into the namespace the probe was sent from."""
        return any(
            each.sighting.inode == self.inode and each.sighting.side == "in"
            for each in self.of(Role.REPLY, probe)
        )


def _spots(seen: Iterable[Seen]) -> tuple[Spot, ...]:
    groups: dict[tuple[int, int, str], list[Seen]] = {}
    for each in seen:
        sighting = each.sighting
        groups.setdefault((sighting.inode, sighting.index, sighting.side), []).append(each)
    return tuple(
        Spot(
            inode=inode,
            index=index,
            interface=group[0].sighting.interface,
            side=side,
            seen=tuple(group),
        )
        for (inode, index, side), group in groups.items()
    )
