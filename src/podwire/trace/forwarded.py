"""Forwarded: what a node's rules do to pods' packets in general, told with the fix.

Docker, ufw and others set the policy of FORWARD to DROP. The rules themselves are asked, so that a
node whose rules accept pods is left in peace.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podwire.model.kernelstate import Read
from podwire.trace import ruleset as rulesets
from podwire.trace.filter import judge
from podwire.trace.flow import Packet, Protocol
from podwire.trace.passage import Passage
from podwire.trace.ruleset import LEGACY
from podwire.trace.space import Lacking, Space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.kernelstate import KernelState
    from podwire.trace.filter import Verdict

POD, HERE, THERE = "cali0", ip_address("192.0.2.1"), ip_address("198.51.100.1")
"""A pod that stands for all: rules of others tell pods by the names of their interfaces."""
DOCKERS = "DOCKER-USER"
"""The chain that Docker asks before its own rules, and leaves to people."""


def complaints(rules: KernelState, device: str) -> tuple[str, ...]:
    """Who drops pods' packets between their interfaces and the device that leads to other nodes."""
    space = Space(replace(rules, links=Read(()), conntrack=Read(())))
    found: dict[str, list[str]] = {}
    for iif, oif, way in ((POD, device, "send"), (device, POD, "get")):
        for why in _judged(space, iif, oif):
            found.setdefault(why, []).append(way)
    return tuple(f"forwarding what pods {' and '.join(ways)}: {why}" for why, ways in found.items())


def _judged(space: Space, iif: str, oif: str) -> Iterator[str]:
    packet = Packet(
        source=HERE if iif == POD else THERE,
        destination=THERE if iif == POD else HERE,
        protocol=Protocol.TCP,
        source_port=40000,
        destination_port=8080,
    )
    try:
        outcomes = judge(space, Passage(hook="forward", packet=packet, iif=iif, oif=oif))
    except Lacking as gap:
        yield f"nobody can say: {gap}"
        return
    for outcome in outcomes:
        verdict = outcome.verdict
        if verdict is not None and verdict.action != "accept":
            yield f"{verdict.place} says {verdict.action} ({_fix(space, verdict)})"


def _fix(space: Space, verdict: Verdict) -> str:
    """The commands that let pods pass, in the words of the program whose rules they are."""
    family, table, chain = verdict.family or "", verdict.table or "", verdict.chain or ""
    legacy = family.startswith(LEGACY)
    if legacy or (family, table, chain) == ("ip", "filter", "FORWARD"):
        program = "iptables-legacy" if legacy else "iptables"
        has_dockers = (family, table, DOCKERS) in rulesets.of(space).rules
        insert = f"{program} -I {DOCKERS if has_dockers else 'FORWARD'}"
        return f"{insert} -i cali+ -j ACCEPT; {insert} -o cali+ -j ACCEPT"
    insert = f"insert rule {family} {table} {chain}"
    return f'nft \'{insert} iifname "cali*" accept; {insert} oifname "cali*" accept\''
