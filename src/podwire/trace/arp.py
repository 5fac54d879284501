"""ARP: who would answer for an address on a segment, and who would not and why.

Follows arp_process of net/ipv4/arp.c: the question is first routed like a packet from the asker,
so a missing route, a switched-off forwarding or rp_filter silences the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from podwire.model import overlay
from podwire.model.route import SCOPE_LINK, RouteKind
from podwire.trace import intake, segment
from podwire.trace.intake import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.addressing import IPAddress
    from podwire.trace.segment import Crossing, Reach
    from podwire.trace.world import Port, World

VALID = (
    overlay.NUD_PERMANENT
    | overlay.NUD_NOARP
    | overlay.NUD_REACHABLE
    | overlay.NUD_STALE
    | overlay.NUD_DELAY
    | overlay.NUD_PROBE
)
"""States in which the kernel sends to the entry's MAC at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Somebody answers."""

    port: Port
    kind: str
    """own: the address is his; proxy: he answers because he can route it elsewhere."""
    delay_s: float = 0.0
    """Longest wait before a proxy answer (proxy_delay)."""
    crossings: tuple[Crossing, ...] = ()
    """Bridge ports that the question passes on its way to him."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Somebody hears the question and does not answer."""

    port: Port
    code: str
    """proxy-arp-off, same-link, arp-ignore, or a code of `intake.Refusal`."""
    refusal: Refusal | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question and what would come of it."""

    target: IPAddress
    sender: IPAddress | None
    answers: tuple[Answer, ...]
    silences: tuple[Silence, ...]
    reach: Reach


def ask(world: World, asker: Port, target: IPAddress, packet_source: IPAddress) -> Asked:
    """Ask for `target` on the segment of the asker's link.

    Raises:
        Lacking: a table or switch that decides was not read.
    """
    sender = sender_address(asker, target, packet_source)
    reached = segment.reach(world, asker, None)
    answers: list[Answer] = []
    silences: list[Silence] = []
    for arrival in reached.arrivals:
        heard = _hear(arrival.port, target, sender)
        if isinstance(heard, Answer):
            answers.append(replace(heard, crossings=arrival.crossings))
        else:
            silences.append(heard)
    return Asked(
        target=target,
        sender=sender,
        answers=tuple(answers),
        silences=tuple(silences),
        reach=reached,
    )


def sender_address(asker: Port, target: IPAddress, packet_source: IPAddress) -> IPAddress | None:
    """Whom the question names as asker: the packet's own source if it is an address of ours."""
    if asker.space.link_with(packet_source) is not None:
        return packet_source
    return intake.address_for(asker.space, asker.link, target, SCOPE_LINK)


def _hear(port: Port, target: IPAddress, sender: IPAddress | None) -> Answer | Silence:
    if sender is None:
        return Silence(port=port, code="no-sender")
    if target.version == 6:
        return _hear6(port, target)
    decision = intake.route_input(port.space, port.link, sender, target)
    if isinstance(decision, Refusal):
        return Silence(port=port, code=decision.code, refusal=decision, facts=decision.facts)
    if decision.kind is RouteKind.LOCAL:
        return _own(port, target)
    return _proxy(port, target, decision.hops[0].device)


def _hear6(port: Port, target: IPAddress) -> Answer | Silence:
    """Neighbour discovery (ndisc_recv_ns): no route is asked, and a proxy needs an entry."""
    if any(each.interface.ip == target and not each.tentative
           for each in port.space.addresses_of(port.link, 6)):  # fmt: skip
        return Answer(port=port, kind="own")
    forwards = port.space.switch(port.link, "forwarding", "0", version=6)
    proxies = port.space.highest(port.link, "proxy_ndp", "0", version=6)
    if forwards and proxies and port.space.is_proxied(port.link, target):
        return Answer(port=port, kind="proxy")
    return Silence(port=port, code="nobody")


def _own(port: Port, target: IPAddress) -> Answer | Silence:
    ignore = port.space.highest(port.link, "arp_ignore", "0")
    carried = any(address.interface.ip == target for address in port.space.addresses_of(port.link))
    if ignore == 0 or (ignore in {1, 2} and carried):
        return Answer(port=port, kind="own")
    return Silence(port=port, code="arp-ignore", facts={"arp_ignore": str(ignore)})


def _proxy(port: Port, target: IPAddress, out_index: int | None) -> Answer | Silence:
    if out_index == port.link.index:
        return Silence(port=port, code="same-link")
    name = port.link.name
    if port.space.highest(port.link, "proxy_arp") or port.space.is_proxied(port.link, target):
        ticks = int(port.space.sysctl(f"ipv4.neigh/{name}/proxy_delay", "0"))
        return Answer(port=port, kind="proxy", delay_s=ticks / 100)
    facts = {
        "net.ipv4.conf.all.proxy_arp": "0",
        f"net.ipv4.conf.{name}.proxy_arp": "0",
    }
    return Silence(port=port, code="proxy-arp-off", facts=facts)


def cached_mac(port: Port, target: IPAddress) -> tuple[str, int] | None:
    """MAC and state of a neighbour entry the kernel would use at once."""
    entry = port.space.neighbours.get((port.link.index, target))
    if entry is None or entry.mac is None or not entry.state & VALID:
        return None
    return entry.mac, entry.state
