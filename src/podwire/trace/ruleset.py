"""Ruleset: all rules of one namespace, nftables' and iptables', in the form of `nft -j`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from podwire.model.kernelstate import Missing
from podwire.model.nft_text import BESIDE_A_LINK
from podwire.trace import iptables
from podwire.trace.elements import Doubtful, Elements
from podwire.trace.flow import Protocol
from podwire.trace.passage import Layer
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.trace.elements import Kind
    from podwire.trace.passage import Passage
    from podwire.trace.space import Space

JSON = dict[str, Any]
LEGACY = "legacy:"
"""Marks the family of tables that iptables-legacy holds: they live beside nftables' own."""
FAMILIES = {
    4: frozenset({"ip", "inet", f"{LEGACY}ip"}),
    6: frozenset({"ip6", "inet", f"{LEGACY}ip6"}),
}


class Ruleset:
    """Chains, rules, sets and maps, indexed."""

    def __init__(self, entries: Iterable[Mapping[str, object]]) -> None:
        self.bases: list[JSON] = []
        self.rules: dict[tuple[str, str, str], list[JSON]] = {}
        self._sets: dict[tuple[str, str, str], JSON] = {}
        self._compiled: dict[tuple[object, ...], Elements] = {}
        for entry in entries:
            self._add(entry)
        # Of equal priority the chain that came last runs first (nf_hook_entries_grow).
        self.bases.reverse()
        self.bases.sort(key=lambda chain: int(chain.get("prio", 0)))

    def _add(self, entry: Mapping[str, object]) -> None:
        for word, value in entry.items():
            if not isinstance(value, dict):
                continue
            if word == "chain" and "hook" in value:
                self.bases.append(value)
            elif word == "rule":
                key = (value["family"], value["table"], value["chain"])
                self.rules.setdefault(key, []).append(value)
            elif word in {"set", "map"}:
                self._sets[value["family"], value["table"], value["name"]] = value

    def base_chains(self, passage: Passage) -> list[JSON]:
        """Base chains that the packet meets, in the order the kernel runs them.

        Raises:
            Doubtful: a chain that sits beside links does not say beside which.
        """
        families = _families(passage)
        return [
            chain
            for chain in self.bases
            if chain.get("hook") == passage.hook
            and chain["family"] in families
            and passage.lowest <= int(chain.get("prio", 0)) <= passage.highest
            and (passage.layer is not Layer.LINK or _is_beside(chain, passage))
        ]

    @cached_property
    def layers(self) -> frozenset[str]:
        """Layers below IP that have a chain."""
        found = {str(chain["family"]) for chain in self.bases} & {Layer.BRIDGE, Layer.ARP}
        beside = any(chain.get("hook") in BESIDE_A_LINK for chain in self.bases)
        return frozenset(found | ({Layer.LINK} if beside else set()))

    @cached_property
    def tracks_bridged(self) -> bool:
        """Whether bridges track connections: they do while a rule of theirs asks for one."""
        return any(
            "'ct'" in str(rule.get("expr"))
            for (family, _, _), rules in self.rules.items()
            if family == Layer.BRIDGE
            for rule in rules
        )

    def named(self, family: str, table: str, name: str, kind: Kind) -> Elements:
        """A set or map by name, compiled for values of one kind.

        Raises:
            Doubtful: it is not among what was read, or packets fill it.
        """
        key = (family, table, name, kind)
        if key not in self._compiled:
            found = self._sets.get((family, table, name))
            if found is None:
                raise Doubtful(f"looks up @{name}, which was not read")
            self._compiled[key] = Elements.of(_pairs(found.get("elem", [])), kind)
        return self._compiled[key]

    def is_filled_by_packets(self, family: str, table: str, name: str) -> bool:
        """Whether the set changes with traffic (flag dynamic)."""
        found = self._sets.get((family, table, name), {})
        flags = found.get("flags", [])
        return "dynamic" in ([flags] if isinstance(flags, str) else flags)

    def anonymous(self, elements: list[Any], kind: Kind) -> Elements:
        """A set or map written in the rule itself."""
        key = (id(elements), kind)
        if key not in self._compiled:
            self._compiled[key] = Elements.of(_pairs(elements), kind)
        return self._compiled[key]


def _families(passage: Passage) -> frozenset[str]:
    packet = passage.packet
    if passage.layer is Layer.IP:
        return FAMILIES[packet.source.version]
    if passage.layer is Layer.LINK and packet.protocol is not Protocol.ARP:
        return frozenset({str(Layer.LINK), "inet"})
    return frozenset({str(passage.layer)})


def _is_beside(chain: JSON, passage: Passage) -> bool:
    """Whether a chain sits beside the link at hand; names may end in `*`."""
    name = (passage.iif if passage.hook == "ingress" else passage.oif) or ""
    devices = chain.get("dev")
    if devices is None:
        raise Doubtful("sits beside a link, and which one was not read")
    listed = [devices] if isinstance(devices, str) else devices
    return any(
        name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in listed
    )


def _pairs(elements: Any) -> list[tuple[Any, Any]]:
    listed = elements if isinstance(elements, list) else [elements]
    return [(each[0], each[1]) if isinstance(each, list) else (each, None) for each in listed]


def of(space: Space) -> Ruleset:
    """The rules of a namespace.

    Raises:
        Lacking: they were not read.
    """
    found = space.memory.get("ruleset")
    if not isinstance(found, Ruleset):
        found = space.memory["ruleset"] = Ruleset(_entries(space))
    return found


def _entries(space: Space) -> list[Mapping[str, object]]:
    state = space.state
    native = space.need(state.nft, "nftables rules")
    ipsets = iptables.parse_sets("" if isinstance(state.ipsets, Missing) else state.ipsets.value)
    compatible = "" if isinstance(state.iptables_nft, Missing) else state.iptables_nft.value
    found = _with_extensions(list(native), iptables.parse(compatible, ipsets))
    if isinstance(state.iptables_legacy, Missing):
        raise Lacking(f"iptables-legacy rules of {space.title}", state.iptables_legacy.reason)
    for entry in iptables.parse(state.iptables_legacy.value, ipsets):
        found += [{word: {**value, "family": LEGACY + value["family"]}}
                  for word, value in entry.items()]  # fmt: skip
    return found


def _with_extensions(
    native: list[Mapping[str, object]], readable: list[JSON]
) -> list[Mapping[str, object]]:
    """Nftables' rules, those that hold foreign extensions replaced by what iptables-save says.

    Both list a chain in the same order, so the rule with the same number is the same rule; a
    chain of another length was changed in between, and its extensions stay unknown.
    """
    texts: dict[tuple[str, ...], list[JSON]] = {}
    for entry in readable:
        if "rule" in entry:
            texts.setdefault(_chain_of(entry["rule"]), []).append(entry["rule"])
    places: dict[tuple[str, ...], list[int]] = {}
    for number, each in enumerate(native):
        rule = each.get("rule")
        if isinstance(rule, dict):
            places.setdefault(_chain_of(rule), []).append(number)
    found = list(native)
    for chain, numbers in places.items():
        twins = texts.get(chain, [])
        if len(twins) != len(numbers):
            continue
        for number, twin in zip(numbers, twins, strict=True):
            rule = native[number]["rule"]
            if isinstance(rule, dict) and _is_foreign(rule):
                found[number] = {"rule": {**twin, **rule, "expr": twin["expr"]}}
    return found


def _chain_of(rule: JSON) -> tuple[str, ...]:
    return (rule["family"], rule["table"], rule["chain"])


def _is_foreign(rule: JSON) -> bool:
    return any("xt" in each for each in rule.get("expr", []) if isinstance(each, dict))
