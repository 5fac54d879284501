"""Filter: what the rules of one namespace do with a packet at one hook, as far as it is certain.

A rule matches, does not, or nobody can say (a limit, a foreign extension, an old connection). What
nobody can say is tried both ways: only when the results differ it ends in INSUFFICIENT_INFO. What
is left to chance (numgen, statistic) makes several ways. All families of nftables.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from podwire.trace import ruleset as rulesets
from podwire.trace import tracking, translation
from podwire.trace.choices import Choices, TooMany, explore
from podwire.trace.elements import Doubtful
from podwire.trace.expressions import Scene, evaluate, holds, look_up
from podwire.trace.fields import ABSENT
from podwire.trace.flow import Packet, Protocol
from podwire.trace.passage import Layer, Passage
from podwire.trace.space import Lacking
from podwire.trace.statements import HARMLESS, VERDICTS, is_condition, refusal, statements

if TYPE_CHECKING:
    from podwire.trace.ruleset import Ruleset
    from podwire.trace.space import Space

__all__ = ["Outcome", "Passage", "Verdict", "judge"]
JSON = dict[str, Any]
MAX_JUMPS = 16
"""NFT_JUMP_STACK_SIZE: the kernel refuses deeper rule sets."""
BELOW_IP = frozenset({"bridge", "netdev", "arp"})
"""Families whose rules a reader may not think of: they are named."""
TRACKING_PRIORITY = -200
"""NF_IP_PRI_CONNTRACK."""
TRANSLATIONS = {"prerouting": -100, "output": -100, "postrouting": 100, "input": 100}
"""NF_IP_PRI_NAT_DST and _SRC: where all nat chains of a hook run, whatever their priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the packet at one hook."""

    action: str
    """accept, drop, reject."""
    table: str | None = None
    chain: str | None = None
    handle: int | None = None
    policy: bool = False
    """The chain's default policy decided, no rule did."""
    family: str | None = None
    comment: str | None = None
    line: int | None = None
    """Of iptables: which `-A` line it is."""
    refusal: str | None = None
    """How it rejects: type and code of the ICMP error, or RESET."""

    @property
    def place(self) -> str:
        """`table chain rule handle 6`."""
        which = f"handle {self.handle}" if self.line is None else f"number {self.line}"
        what = "policy" if self.policy else f"rule {which}"
        family = f"{self.family} " if self.family in BELOW_IP else ""
        return f"{family}{self.table} {self.chain} ({what})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One thing a hook may do with the packet."""

    verdict: Verdict | None
    """None: no chain is there."""
    packet: Packet
    rerouted: Packet | None = None
    """At output: the packet as it was when the hook had it routed anew."""

    @property
    def effect(self) -> tuple[object, ...]:
        """What is the same for all that follows, whichever rule did it."""
        action = "accept" if self.verdict is None else self.verdict.action
        return (action, self.packet, self.rerouted) if action == "accept" else (action,)


class _Beyond(Exception):
    """A rule that is met and cannot be judged."""

    def __init__(self, rule: JSON, why: str) -> None:
        super().__init__(why)
        self.rule = rule
        self.why = why


def judge(space: Space, passage: Passage) -> tuple[Outcome, ...]:
    """What the rules do; several outcomes where chance decides.

    Raises:
        Lacking: the rules were not read, or hold something that decides and is not modelled.
    """
    ruleset = rulesets.of(space)
    doubts: list[_Beyond] = []
    try:
        ways = explore(lambda choices: _Hook(space, ruleset, passage, choices, doubts).run())
    except _Beyond as beyond:
        raise _lacking(space, passage, beyond) from None
    except TooMany:
        first = doubts[0] if doubts else _Beyond({}, "spreads packets over too many ways")
        raise _lacking(space, passage, first) from None
    if len(ways) == 1:
        return (ways[0].result,)
    found: dict[tuple[object, ...], Outcome] = {}
    for way in ways:
        found.setdefault(way.result.effect, way.result)
    outcomes = tuple(found.values())
    if doubts and len(outcomes) > 1:
        raise _lacking(space, passage, doubts[0])
    return outcomes


def _lacking(space: Space, passage: Passage, beyond: _Beyond) -> Lacking:
    rule = beyond.rule
    which = f"rule handle {rule.get('handle')}"
    if "line" in rule:
        which = f"rule number {rule['line']}"
    place = f"chain {rule.get('table')} {rule.get('chain')}"
    if "chain" not in rule:
        which, place = "one", f"chains of family {rule.get('family')}"
    return Lacking(
        f"{_program(str(rule.get('family', '')))} {place} of {space.title}",
        f"{which} {beyond.why}",
        decides=f"whether the packet passes the {passage.hook} hook",
    )


def _program(family: str) -> str:
    return "iptables-legacy" if family.startswith(rulesets.LEGACY) else "nftables"


@dataclass(slots=True)
class _Hook:
    """One packet at one hook, with one set of answers to what is open."""

    space: Space
    ruleset: Ruleset
    passage: Passage
    choices: Choices
    doubts: list[_Beyond]

    def run(self) -> Outcome:
        packet, met = self.passage.packet, None
        rerouted: Packet | None = None
        for stage in self._stages():
            if stage == "track":
                packet = tracking.tracked(self.space, packet)
                continue
            before = packet
            if isinstance(stage, list):
                verdict, packet = self._translate(packet, stage)
            else:
                run = _Run(self, stage, packet)
                verdict = run.verdict()
                packet = run.packet
            if self._routes_again(stage) and _route_key(before) != _route_key(packet):
                rerouted = packet
            if verdict is not None:
                met = verdict
                if verdict.action != "accept":
                    break
        return Outcome(verdict=met, packet=packet, rerouted=rerouted)

    def _stages(self) -> list[Any]:
        """Chains in the order of their priorities, tracking and NAT between them."""
        passage = self.passage
        try:
            chains = self.ruleset.base_chains(passage)
        except Doubtful as doubtful:
            raise _Beyond({"family": str(passage.layer)}, str(doubtful)) from None
        nat = [chain for chain in chains if chain.get("type") == "nat"]
        others = [(int(chain.get("prio", 0)), 1, chain) for chain in chains if chain not in nat]
        found: list[tuple[int, int, Any]] = list(others)
        if _tracks(passage, self.ruleset):
            found.append((TRACKING_PRIORITY, 0, "track"))
        if passage.layer is Layer.IP and passage.hook in TRANSLATIONS:
            found.append((TRANSLATIONS[passage.hook], 0, nat))
        return [stage for _, _, stage in sorted(found, key=lambda each: each[:2])]

    def _routes_again(self, stage: Any) -> bool:
        """NAT and chains of type route do (ip_route_me_harder), and only for what is made here."""
        if self.passage.hook != "output" or self.passage.layer is not Layer.IP:
            return False
        return isinstance(stage, list) or stage.get("type") == "route"

    def _translate(self, packet: Packet, chains: list[JSON]) -> tuple[Verdict | None, Packet]:
        """Ask the nat chains for a new connection, then do what its entry says."""
        track, met = packet.track, None
        if track is None:
            return None, packet
        manipulation = translation.manipulation(self.passage.hook)
        for chain in chains:
            if track.turned or manipulation in track.settled:
                break
            run = _Run(self, chain, packet)
            met = run.verdict()
            packet = run.packet
            if met.action != "accept":
                return met, packet
            assert packet.track is not None
            track = packet.track
        settled = replace(track, settled=track.settled | {manipulation})
        return met, tracking.translated(packet.with_track(settled), manipulation)


def _route_key(packet: Packet) -> tuple[object, ...]:
    return (packet.source, packet.destination, packet.mark, packet.destination_port)


def _tracks(passage: Passage, ruleset: Ruleset) -> bool:
    """Whether packets are given their connection at the hook."""
    if passage.layer is Layer.IP:
        return passage.hook in {"prerouting", "output"}
    bridged = passage.layer is Layer.BRIDGE and passage.hook == "prerouting"
    early = passage.lowest <= TRACKING_PRIORITY <= passage.highest
    is_ip = passage.packet.protocol is not Protocol.ARP
    return bridged and early and is_ip and ruleset.tracks_bridged


@dataclass(slots=True)
class _Run:
    """One packet in one base chain."""

    hook: _Hook
    base: JSON
    packet: Packet
    names: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = (self.base["family"], self.base["table"])

    def verdict(self) -> Verdict:
        """What the base chain says, its policy included."""
        found = self.chain(self.base["name"], 0)
        if found is not None:
            return found
        policy = str(self.base.get("policy", "accept"))
        table, chain = self.base["table"], self.base["name"]
        family = self.base["family"]
        return Verdict(action=policy, table=table, chain=chain, family=family, policy=True)

    def chain(self, name: str, depth: int) -> Verdict | None:
        """Run one chain; None when it ends without a verdict, `return` from a goto included."""
        for rule in self.hook.ruleset.rules.get((*self.names, name), []):
            ended, verdict = self.rule(rule, depth)
            if ended:
                return verdict
        return None

    def rule(self, rule: JSON, depth: int) -> tuple[bool, Verdict | None]:
        """Run one rule: (its chain ends here, verdict)."""
        todo = statements(rule)
        for number, (kind, value) in enumerate(todo):
            if kind in HARMLESS:
                continue
            if kind in VERDICTS:
                return self.end(rule, kind, value, depth)
            if kind == "vmap":
                ended = self.mapped(rule, value, depth)
                if ended is not None:
                    return ended
            elif is_condition(kind, value):
                # A rule that can do nothing more needs no answer.
                idle = all(later in HARMLESS for later, _ in todo[number + 1 :])
                if idle or not self.passes(rule, kind, value):
                    return False, None
            elif not self.change(rule, kind, value):
                return False, None
            elif kind in translation.KINDS:
                return True, self._verdict(rule, "accept")
        return False, None

    def passes(self, rule: JSON, kind: str, value: Any) -> bool:
        """A statement that lets the rule go on, or not."""
        if kind == "match":
            return self.fits(rule, value)
        if kind == "either":
            return any(self.fits(rule, each["match"]) for each in value)
        if kind == "chance":
            return self.hook.choices.pick(2) == 0
        return self.doubt(rule, _unclear(kind, value))

    def doubt(self, rule: JSON, why: str) -> bool:
        """Try both: whether the rule fits in this run."""
        self.hook.doubts.append(_Beyond(rule, why))
        return self.hook.choices.pick(2) == 0

    def fits(self, rule: JSON, value: JSON) -> bool:
        """Whether a match holds, or is taken to hold in this run."""
        try:
            return holds(value, self.scene())
        except Doubtful as doubtful:
            return self.doubt(rule, str(doubtful))

    def scene(self) -> Scene:
        """What expressions are evaluated for."""
        hook = self.hook
        return Scene(
            space=hook.space, ruleset=hook.ruleset, passage=hook.passage, packet=self.packet,
            family=self.names[0], table=self.names[1], pick=hook.choices.pick,
        )  # fmt: skip

    def mapped(self, rule: JSON, value: JSON, depth: int) -> tuple[bool, Verdict | None] | None:
        """A verdict map; None: it holds nothing for the packet, the rule goes on."""
        try:
            found = look_up(value, self.scene())
        except Doubtful as doubtful:
            raise _Beyond(rule, str(doubtful)) from None
        if found is ABSENT:
            # Without an element the rule is left; without the field, too.
            return False, None
        for kind, target in found.items():
            if kind == "continue":
                return None
            return self.end(rule, kind, target, depth)
        return None

    def end(self, rule: JSON, kind: str, value: Any, depth: int) -> tuple[bool, Verdict | None]:
        """A statement that leaves the rule."""
        if kind == "continue" or (kind == "reject" and not _can_reject(value, self.packet)):
            return False, None
        if kind == "return":
            return True, None
        if kind in {"jump", "goto"}:
            if depth >= MAX_JUMPS:
                raise _Beyond(rule, "jumps deeper than the kernel allows")
            inner = self.chain(value["target"], depth + 1)
            return kind == "goto" or inner is not None, inner
        found = self._verdict(rule, kind)
        if kind == "reject":
            found = replace(found, refusal=refusal(value, self.packet.source.version))
        return True, found

    def _verdict(self, rule: JSON, action: str) -> Verdict:
        return Verdict(
            action=action,
            table=rule["table"],
            chain=rule["chain"],
            family=rule["family"],
            handle=rule.get("handle"),
            comment=rule.get("comment"),
            line=None if "handle" in rule else rule.get("line"),
        )

    def change(self, rule: JSON, kind: str, value: Any) -> bool:
        """A statement that changes the packet or its connection; False: the rule ends there."""
        try:
            return self._change(kind, value)
        except Doubtful as doubtful:
            raise _Beyond(rule, str(doubtful)) from None

    def _change(self, kind: str, value: Any) -> bool:
        scene = self.scene()
        if kind == "mangle":
            key = value.get("key", {})
            if "tcp option" in key:
                return True
            if key not in ({"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}):
                raise Doubtful(f"changes {key}, which is not modelled")
            number, _ = evaluate(value.get("value"), scene)
            if not isinstance(number, int):
                return False
            self.packet = _marked(self.packet, number, connection="ct" in key)
            return True
        if kind == "notrack":
            if self.packet.track is None:
                self.packet = replace(self.packet, untracked=True)
            return True
        if kind in translation.KINDS:
            changed = translation.translate(kind, value or {}, scene)
            if changed is None:
                return False
            self.packet = changed
            return True
        raise Doubtful(f"uses {kind!r}, which is not modelled")


def _can_reject(value: Any, packet: Packet) -> bool:
    """An answer that belongs to one protocol is also a condition, which nft does not list."""
    kind = value.get("type") if isinstance(value, dict) else None
    match kind:
        case "icmp" | "icmpv6" if packet.protocol is Protocol.ARP:
            return False
        case "icmp":
            return packet.source.version == 4
        case "icmpv6":
            return packet.source.version == 6
        case "tcp reset":
            return packet.protocol is Protocol.TCP
    return True


def _marked(packet: Packet, number: int, *, connection: bool) -> Packet:
    if not connection:
        return replace(packet, mark=number & 0xFFFFFFFF)
    if packet.track is None:
        return packet
    return packet.with_track(replace(packet.track, mark=number & 0xFFFFFFFF))


def _unclear(kind: str, value: Any) -> str:
    if kind == "xt":
        return f"uses {str(value['match']).strip()!r}, which is not modelled"
    return f"uses {kind!r}: it fits now and then"
