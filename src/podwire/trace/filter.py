"""Filter: what the nftables rules of one namespace do with a packet, as far as that is certain.

Three-valued: a rule matches, does not, or nobody can say (named sets, conntrack of a reply, foreign
extensions). A packet that could meet a drop, a translation or a mark by such a rule ends in
INSUFFICIENT_INFO, never in health. Families ip and inet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podwire.model.kernelstate import Missing
from podwire.trace import match
from podwire.trace.space import Lacking, Space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podwire.trace.flow import Packet

JSON = dict[str, Any]
FAMILIES = ("ip", "inet")
HARMLESS = frozenset({"counter", "log", "comment"})
"""Statements that neither end a rule's chain nor change the packet."""
THROTTLES = frozenset({"limit", "quota"})
"""Statements that match now and then."""
VERDICTS = frozenset({"accept", "drop", "reject", "return"})
MAX_JUMPS = 16
"""NFT_JUMP_STACK_SIZE: the kernel refuses deeper rule sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Where in the stack the packet is."""

    hook: str
    """prerouting, input, forward, output, postrouting."""
    packet: Packet
    iif: str | None = None
    oif: str | None = None


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
    comment: str | None = None

    @property
    def place(self) -> str:
        """`table chain rule handle 6`."""
        what = "policy" if self.policy else f"rule handle {self.handle}"
        return f"{self.table} {self.chain} ({what})"


ACCEPTED = Verdict(action="accept")


class _Unknown(Exception):
    """A rule that might apply and would matter."""

    def __init__(self, rule: JSON, why: str) -> None:
        super().__init__(why)
        self.rule = rule
        self.why = why


def judge(space: Space, passage: Passage) -> Verdict | None:
    """What the rule sets say; None when there is no chain at this hook.

    Raises:
        Lacking: the rule sets were not read, or hold something that decides and is not modelled.
    """
    _refuse_legacy(space)
    ruleset = _Ruleset(space.need(space.state.nft, "nftables rules"))
    place = match.Place(inode=space.inode, iif=passage.iif, oif=passage.oif)
    met: Verdict | None = None
    for chain in ruleset.base_chains(passage.hook):
        try:
            verdict = _Run(ruleset, chain, passage, place).verdict()
        except _Unknown as unknown:
            raise Lacking(
                f"nftables chain {chain['table']} {chain['name']} of {space.title}",
                f"rule handle {unknown.rule.get('handle')} {unknown.why}",
                decides=f"whether the packet passes the {passage.hook} hook",
            ) from None
        if verdict.action != "accept":
            return verdict
        met = verdict
    return met


def rules_below_ip(space: Space, link: str, *, bridged: bool) -> set[str]:
    """Base chains of the families netdev (on this link) and bridge, none of them modelled."""
    found = set()
    for entry in space.need(space.state.nft, "nftables rules"):
        chain = entry.get("chain")
        if not isinstance(chain, dict) or "hook" not in chain:
            continue
        devices = chain.get("dev", ())
        here = link == devices or (isinstance(devices, list) and link in devices)
        if (chain["family"] == "netdev" and here) or (chain["family"] == "bridge" and bridged):
            found.add(f"nftables chain {chain['family']} {chain['table']} {chain['name']}")
    return found


def _refuse_legacy(space: Space) -> None:
    """iptables-legacy rules are not modelled: only their absence, or that all accept, is enough."""
    section = space.state.iptables_legacy
    if isinstance(section, Missing):
        raise Lacking(f"iptables-legacy rules of {space.title}", section.reason)
    for line in section.value.splitlines():
        words = line.split()
        refuses = line.startswith(":") and len(words) > 1 and words[1] in {"DROP", "REJECT"}
        jumps = line.startswith("-A") and not line.endswith(("-j ACCEPT", "-j RETURN"))
        if refuses or jumps:
            raise Lacking(
                f"iptables-legacy rules of {space.title}",
                f"this form does not model them: {line.strip()}",
            )


class _Ruleset:
    """The JSON of `nft -j list ruleset`, indexed."""

    def __init__(self, entries: tuple[Mapping[str, object], ...]) -> None:
        self.chains: list[JSON] = []
        self.rules: dict[tuple[str, str, str], list[JSON]] = {}
        for entry in entries:
            chain, rule = entry.get("chain"), entry.get("rule")
            if isinstance(chain, dict):
                self.chains.append(chain)
            if isinstance(rule, dict):
                key = (rule["family"], rule["table"], rule["chain"])
                self.rules.setdefault(key, []).append(rule)

    def base_chains(self, hook: str) -> list[JSON]:
        """Base chains of the hook in the order the kernel runs them."""
        chains = [
            chain
            for chain in self.chains
            if chain.get("hook") == hook and chain["family"] in FAMILIES
        ]
        return sorted(chains, key=lambda chain: int(chain.get("prio", 0)))

    def rules_of(self, chain: JSON, name: str | None = None) -> list[JSON]:
        return self.rules.get((chain["family"], chain["table"], name or chain["name"]), [])


@dataclass(slots=True)
class _Run:
    """One packet in one base chain."""

    ruleset: _Ruleset
    base: JSON
    passage: Passage
    place: match.Place
    doubt: JSON | None = None
    """A rule that may have accepted the packet, or sent it back, before what follows."""

    def verdict(self) -> Verdict:
        """What the base chain says, its policy included."""
        found = self.chain(self.base["name"], 0)
        if found is None:
            policy = str(self.base.get("policy", "accept"))
            found = Verdict(
                action=policy, table=self.base["table"], chain=self.base["name"], policy=True
            )
        if found.action != "accept" and self.doubt is not None:
            raise _Unknown(self.doubt, "may or may not let this packet pass")
        return found

    def chain(self, name: str, depth: int) -> Verdict | None:
        """Run one chain; None when it ends without a verdict."""
        for rule in self.ruleset.rules_of(self.base, name):
            ended, verdict = self.rule(rule, depth)
            if ended:
                return verdict
        return None

    def rule(self, rule: JSON, depth: int) -> tuple[bool, Verdict | None]:
        """Run one rule: (its chain ends here, verdict)."""
        fits: bool | None = True
        passage = self.passage
        for kind, value in _statements(rule):
            if kind in HARMLESS:
                continue
            if kind in THROTTLES:
                fits = None
            elif kind == "match":
                one = match.matches(value, passage.packet, self.place)
                if one is False:
                    return False, None
                fits = None if one is None else fits
            elif kind in {"jump", "goto"} and depth < MAX_JUMPS:
                return self.jump(rule, kind, value["target"], fits, depth)
            elif kind in VERDICTS:
                return self.end(rule, kind, fits)
            else:
                raise _Unknown(rule, f"uses {kind!r}, which is not modelled")
        return False, None

    def jump(
        self, rule: JSON, kind: str, target: str, fits: bool | None, depth: int
    ) -> tuple[bool, Verdict | None]:
        """Run the chain a rule jumps to."""
        inner = self.chain(target, depth + 1)
        if fits is not None:
            return kind == "goto" or inner is not None, inner
        if inner is not None and inner.action != "accept":
            raise _Unknown(rule, "may or may not jump to a chain that refuses this packet")
        self.doubt = rule
        return False, None

    def end(self, rule: JSON, kind: str, fits: bool | None) -> tuple[bool, Verdict | None]:
        """A statement that ends the chain."""
        if fits is None:
            if kind in {"drop", "reject"}:
                raise _Unknown(rule, f"may or may not {kind} this packet")
            self.doubt = rule
            return False, None
        if kind == "return":
            return True, None
        verdict = Verdict(
            action=kind,
            table=rule["table"],
            chain=rule["chain"],
            handle=rule.get("handle"),
            comment=rule.get("comment"),
        )
        return True, verdict


def _statements(rule: JSON) -> Iterator[tuple[str, Any]]:
    for statement in rule.get("expr", []):
        if isinstance(statement, dict):
            yield from statement.items()
