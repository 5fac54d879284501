"""Align: the predicted places of a packet beside those where it was really seen.

A place is one side of one link of one namespace. Predicted and seen is a match; predicted and not
seen is missing; seen and not predicted is extra; seen with other headers differs. What was not
watched is none of these. Copies that a switch floods to links they are not for are left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.trace.arpseen import beside
from podwire.trace.frames import TCP
from podwire.trace.observation import OTHERHOST, Role, Seen
from podwire.trace.schema import Direction, Disposition, Hop, Observed, Path, Result, Where
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.trace.flow import Packet
    from podwire.trace.observation import Observation, Sent
    from podwire.trace.world import World

Key = tuple[int, str | None, str]
"""Inode, link, side."""
ANSWERED, REFUSED, UNSENT, LOST = "answered", "refused", "unsent", "lost"
"""What becomes of a probe: an answer; a reset or an error of its receiver; refused by the sender's
own kernel; nothing."""
REFUSALS = frozenset({(3, 2), (3, 3)})
"""ICMP errors by which a receiver says that nobody there takes the packet (RFC 1122, 3.2.2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A prediction with what was seen of it."""

    paths: tuple[Path, ...]
    outcomes: tuple[str, ...]
    """Of each probe."""
    probe: int
    """The probe that stands for all: the last one with the outcome that most have."""
    sent: Sent
    errors: tuple[Seen, ...]
    """ICMP errors about it, in the order of time."""
    home: tuple[Seen, ...]
    """Those of them that reached its sender."""
    blind: frozenset[int]
    """Namespaces that could not be watched."""
    rtt_ns: int | None

    @property
    def outcome(self) -> str:
        """What became of most probes."""
        return self.outcomes[self.probe]

    @property
    def steadiness(self) -> str:
        """steady, first-packet (only the first one was lost), or k-of-n answered."""
        if len(set(self.outcomes)) == 1:
            return "steady"
        answered = sum(each == ANSWERED for each in self.outcomes)
        if self.outcomes[0] != ANSWERED and answered == len(self.outcomes) - 1:
            return "first-packet"
        return f"{answered}-of-{len(self.outcomes)}"

    def taken(self, direction: Direction) -> Path | None:
        """The branch that the packet took: the one on which it was seen furthest."""
        found = [path for path in self.paths if path.direction is direction]
        return max(found, key=_seen_on, default=None)

    def hops(self, direction: Direction) -> list[Hop]:
        """Where it was seen in one direction, in order."""
        path = self.taken(direction)
        return [] if path is None else [hop for hop in path.hops if hop.observed is not None]


def _seen_on(path: Path) -> int:
    return sum(hop.observed is not None and hop.result is not Result.EXTRA for hop in path.hops)


def align(world: World, paths: tuple[Path, ...], observation: Observation) -> Alignment:
    """Lay an observation beside predicted paths."""
    outcomes = tuple(_outcome(observation, sent) for sent in observation.sent)
    most = Counter(outcomes).most_common(1)[0][0]
    probe = max(number for number, each in enumerate(outcomes) if each == most)
    blind = frozenset(tap.inode for tap in observation.taps if tap.refused is not None)
    view = _View(world=world, observation=observation, probe=probe, blind=blind)
    aligned = [*view.direction(paths, Direction.FORWARD), *view.direction(paths, Direction.RETURN)]
    return Alignment(
        paths=tuple(aligned),
        outcomes=outcomes,
        probe=probe,
        sent=observation.sent[probe],
        errors=observation.of(Role.ERROR, probe),
        home=came_home(observation, probe),
        blind=blind,
        rtt_ns=_round_trip(observation, outcomes),
    )


def _outcome(observation: Observation, sent: Sent) -> str:
    # What a cable drops at its other end is told to the sender, too (veth_xmit): it has left.
    if sent.errno is not None and not observation.of(Role.REQUEST, sent.probe):
        return UNSENT
    home = [
        each
        for each in observation.of(Role.REPLY, sent.probe)
        if each.sighting.inode == observation.inode and each.sighting.side == "in"
    ]
    if any(not _is_reset(each) for each in home):
        return ANSWERED
    return REFUSED if home or refusals(observation, sent.probe) else LOST


def came_home(observation: Observation, probe: int) -> tuple[Seen, ...]:
    """ICMP errors about a probe that reached its sender."""
    return tuple(
        each
        for each in observation.of(Role.ERROR, probe)
        if each.sighting.inode == observation.inode
        and each.sighting.side == "in"
        and not each.about_reply
    )


def refusals(observation: Observation, probe: int) -> tuple[Seen, ...]:
    """Those by which the receiver itself refuses."""
    wanted = observation.series.destination
    return tuple(
        each
        for each in came_home(observation, probe)
        if each.error is not None
        and (each.error.type, each.error.code) in REFUSALS
        and each.frame.ip is not None
        and each.frame.ip.innermost.source == wanted
    )


def _is_reset(seen: Seen) -> bool:
    ip = seen.frame.ip
    body = None if ip is None else ip.innermost.body
    return isinstance(body, TCP) and body.rst


def _round_trip(observation: Observation, outcomes: tuple[str, ...]) -> int | None:
    times = []
    for number, outcome in enumerate(outcomes):
        if outcome != ANSWERED:
            continue
        asked = [each.sighting.timestamp_ns for each in observation.of(Role.REQUEST, number)]
        answered = [
            each.sighting.timestamp_ns
            for each in observation.of(Role.REPLY, number)
            if each.sighting.inode == observation.inode
        ]
        if asked and answered:
            times.append(max(answered) - min(asked))
    return min(times, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One probe and its answer in an observation."""

    world: World
    observation: Observation
    probe: int
    blind: frozenset[int]

    def direction(self, paths: tuple[Path, ...], direction: Direction) -> list[Path]:
        """All paths of one direction beside what was seen, extra places in the one taken."""
        mine = [path for path in paths if path.direction is direction]
        role = Role.REQUEST if direction is Direction.FORWARD else Role.REPLY
        if any(path.hops and path.hops[0].packet.complaint is not None for path in mine):
            role = Role.ERROR
        seen = self._by_place(role)
        done = [self._path(path, seen) for path in mine]
        predicted = {_key(hop) for path in mine for hop in path.hops}
        extra = [
            self._extra(key, group[0])
            for key, group in seen.items()
            if key not in predicted and self._deserves_a_row(key, group[0])
        ]
        if done:
            taken = max(range(len(done)), key=lambda number: (_seen_on(done[number]), -number))
            return [
                self._settled(path, extra if number == taken else [], taken=number == taken)
                for number, path in enumerate(done)
            ]
        if not extra:
            return []
        hops = tuple(sorted(extra, key=_time))
        return [Path(direction=direction, branch=0, disposition=Disposition.MISMATCH, hops=hops)]

    def _by_place(self, role: Role) -> dict[Key, list[Seen]]:
        """Sightings by place; of a packet in fragments the first one stands for it."""
        found: dict[Key, list[Seen]] = {}
        for each in self.observation.of(role, self.probe):
            ip = each.frame.ip
            if each.about_reply:
                continue
            if ip is None or ip.offset == 0:
                sighting = each.sighting
                key = (sighting.inode, sighting.interface, sighting.side)
                found.setdefault(key, []).append(each)
        return found

    def _path(self, path: Path, seen: Mapping[Key, list[Seen]]) -> Path:
        used: Counter[Key] = Counter()
        hops = []
        if not seen and path.hops and path.hops[0].packet.complaint is not None:
            # Kernels send few ICMP errors a second (icmp_ratelimit): none is no contradiction.
            return path
        for number, hop in enumerate(path.hops):
            key = _key(hop)
            times = seen.get(key, [])
            if hop.where.interface is None:
                hops.append(replace(hop, result=None if seen else Result.MATCH))
            elif hop.inode in self.blind:
                hops.append(hop)
            elif used[key] < len(times):
                last = number == len(path.hops) - 1
                hops.append(self._judged(hop, times[used[key]], path, last=last))
            elif hop.role == "detour":
                continue
            else:
                hops.append(replace(hop, result=Result.MISSING))
            used[key] += 1
        return replace(path, hops=tuple(hops))

    def _judged(self, hop: Hop, seen: Seen, path: Path, *, last: bool) -> Hop:
        found = list(differences(hop.packet, seen.packet))
        foreign = seen.sighting.packet_type == OTHERHOST and hop.role != "port"
        expected = last and path.cause is not None and path.cause.code == "wrong-mac"
        if foreign and not expected:
            found.append("its MAC is not this link's")
        result = Result.DIFFERS if found else Result.MATCH
        return replace(hop, result=result, observed=self._observed(seen, tuple(found)))

    def _observed(self, seen: Seen, found: tuple[str, ...] = ()) -> Observed:
        sighting = seen.sighting
        key = (sighting.inode, sighting.interface, sighting.side)
        probes = {
            each.probe
            for each in self.observation.of(seen.role)
            if (each.sighting.inode, each.sighting.interface, each.sighting.side) == key
        }
        first = min(
            each.sighting.timestamp_ns
            for each in self.observation.of(Role.REQUEST, self.probe) or (seen,)
        )
        return Observed(
            packet=seen.packet,
            packet_type=sighting.packet_type,
            timestamp_ns=sighting.timestamp_ns,
            since_ns=sighting.timestamp_ns - first,
            count=len(probes),
            differences=found,
        )

    def _extra(self, key: Key, seen: Seen) -> Hop:
        inode, interface, side = key
        space = self.world.spaces.get(inode)
        where = Where(
            node=None if space is None else self.world.node_of(space),
            netns=f"netns:[{inode}]" if space is None else space.title,
            interface=interface,
        )
        assert seen.packet is not None
        return Hop(
            inode=inode,
            where=where,
            side=side,
            packet=seen.packet,
            result=Result.EXTRA,
            observed=self._observed(seen),
        )

    def _deserves_a_row(self, key: Key, seen: Seen) -> bool:
        """Not a copy for somebody else, and no port of a bridge."""
        inode, interface, _ = key
        if seen.sighting.packet_type == OTHERHOST or seen.packet is None:
            return False
        space = self.world.spaces.get(inode)
        try:
            link = None if space is None else space.links_by_name.get(interface or "")
        except Lacking:
            return True
        return link is None or link.master is None

    def _settled(self, path: Path, extra: list[Hop], *, taken: bool) -> Path:
        """Extra places put in by time; what another branch did not carry is not missing."""
        if not taken:
            calm = (
                replace(hop, result=None) if hop.result is Result.MISSING else hop
                for hop in path.hops
            )
            return replace(path, hops=tuple(calm))
        hops = list(path.hops)
        for hop in sorted(extra, key=_time):
            later = [
                number
                for number, each in enumerate(hops)
                if each.observed is not None and _time(each) <= _time(hop)
            ]
            hops.insert(later[-1] + 1 if later else 0, hop)
        questions = tuple(
            beside(self.world, question, self.observation) for question in path.questions
        )
        return replace(path, hops=tuple(hops), questions=questions)


def _key(hop: Hop) -> Key:
    return (hop.inode, hop.where.interface, hop.side)


def _time(hop: Hop) -> int:
    return 0 if hop.observed is None else hop.observed.timestamp_ns


def differences(predicted: Packet, seen: Packet | None) -> Iterator[str]:
    """What two packets differ in, outermost header first, in words."""
    if seen is None:
        return
    for name, wanted, got in (
        ("source", predicted.source, seen.source),
        ("destination", predicted.destination, seen.destination),
        ("protocol", predicted.protocol, seen.protocol),
        ("source port", predicted.source_port, seen.source_port),
        ("destination port", predicted.destination_port, seen.destination_port),
        ("ttl", predicted.ttl, seen.ttl),
        ("VNI", predicted.vni, seen.vni),
    ):
        if wanted is not None and got is not None and wanted != got:
            yield f"{name} {got}, not {wanted}"
    if (predicted.inner is None) is not (seen.inner is None):
        yield "not in a tunnel" if seen.inner is None else "in a tunnel"
    elif predicted.inner is not None:
        for each in differences(predicted.inner, seen.inner):
            yield f"inner {each}"
