"""Reason: why a session is down, or carries nothing, in a sentence with its fix.

What BIRD remembers as last error may be older than what holds the session up now. So what the two
sides said to each other (AS numbers, identifiers) counts first, because nothing later overwrites
it; then what attempts at the port come to now; then the rest of what BIRD remembers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.bgp.reach import NOT_TRIED, Answer
from podwire.bgp.state import OLDEST
from podwire.desired.bgp import PeerType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.bgp.reach import Reach, Signatures
    from podwire.bgp.state import BirdVersion, Protocol, RibRoute
    from podwire.desired.bgp import BirdPeer


PASSING = frozenset(
    {
        "Hold timer",
        "shutdown",
        "reset",
        "de-configured",
        "rejected",
        "collision",
        "Resources",
    }
)
"""Farewells (RFC 4486) that say nothing of what keeps the two from meeting again."""


class Why(StrEnum):
    """Every reason there is; the value is what `-o json` shows."""

    BIRD_AWAY = "bird-away"
    BIRD_SILENT = "bird-silent"
    BIRD_TOO_OLD = "bird-too-old"
    NOT_CONFIGURED = "not-configured"
    DISABLED = "disabled"
    SOURCE_MISSING = "source-missing"
    NO_ROUTE = "no-route"
    NO_ANSWER = "no-answer"
    REFUSED = "refused"
    PASSWORD = "password"  # noqa: S105  # a reason, and no password
    CLOSED = "closed"
    AS_MISMATCH = "as-mismatch"
    ROUTER_ID = "router-id"
    HOLD_TIMER = "hold-timer"
    ENDED_BY_PEER = "ended-by-peer"
    IMPORT_FILTER = "import-filter"
    EXPORT_FILTER = "export-filter"
    NEXT_HOP = "next-hop"
    CONNECTING = "connecting"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why, in a sentence, with what to do and what shows it."""

    why: Why
    sentence: str
    fix: str | None = None
    evidence: tuple[str, ...] = ()

    def describe(self) -> str:
        """Sentence and fix in one line."""
        return self.sentence if self.fix is None else f"{self.sentence} ({self.fix})"


def why_old(version: BirdVersion) -> Reason | None:
    """Why this BIRD cannot serve, whatever its sessions do."""
    if version >= OLDEST:
        return None
    return Reason(
        why=Why.BIRD_TOO_OLD,
        sentence=f"BIRD {version} cannot put a route onto a tunnel: its filters lack `onlink`",
        fix=f"install BIRD {OLDEST} or newer",
        evidence=(f"BIRD greets as {version}",),
    )


def why_down(peer: BirdPeer, protocol: Protocol | None, reach: Reach = NOT_TRIED) -> Reason | None:
    """Why the session is not established; None when it is."""
    if protocol is None or protocol.session is None:
        return Reason(
            why=Why.NOT_CONFIGURED,
            sentence=f"BIRD knows no session with {peer.address}: it has not taken this"
            " configuration",
            fix="see in `podwire agent status` why",
        )
    if protocol.established:
        return None
    error = protocol.session.last_error
    return (
        _stopped(peer, protocol)
        or _disagreement(peer, error)
        or _source(peer, reach)
        or _attempted(peer, protocol, reach)
        or _remembered(peer, protocol, error)
    )


def wants_attempts(peer: BirdPeer, protocol: Protocol | None) -> bool:
    """Whether only attempts at the peer's port can tell why the session is down.

    What the two sides said to each other is reason enough, and an attempt would overwrite it in
    the other router's memory.
    """
    if protocol is None or protocol.session is None or protocol.established:
        return False
    error = protocol.session.last_error
    return _stopped(peer, protocol) is None and _disagreement(peer, error) is None


def why_empty(
    peer: BirdPeer, protocol: Protocol, lost: Sequence[RibRoute], *, own_blocks: int
) -> Reason | None:
    """Why an established session carries nothing that can be used; None when it does.

    `lost`: routes learnt from it whose next hop cannot be resolved; `own_blocks` counts what this
    node would announce.
    """
    if lost:
        hop = lost[0].attributes.get("BGP.next_hop", "unknown")
        return Reason(
            why=Why.NEXT_HOP,
            sentence=f"{peer.address} announces {_count(lost, 'route')} with a next hop that no"
            f" route of this node leads to: {hop}",
            fix=f"give this node a way to {hop}, or let the peer announce itself (next hop self)",
            evidence=tuple(f"{route.network}: {route.target}" for route in lost[:3]),
        )
    imported = sum(channel.imported for channel in protocol.channels)
    filtered = sum(channel.filtered or channel.rejected_imports for channel in protocol.channels)
    if filtered and not imported:
        return Reason(
            why=Why.IMPORT_FILTER,
            sentence=f"everything {peer.address} announces is rejected here by the import filter",
            fix=_filter_fix(peer, "import"),
            evidence=(f"routes imported: 0, filtered: {filtered}",),
        )
    exported = sum(channel.exported for channel in protocol.channels)
    if own_blocks and not exported:
        return Reason(
            why=Why.EXPORT_FILTER,
            sentence=f"no block of this node is announced to {peer.address}: the export filter"
            " rejects them",
            fix=_filter_fix(peer, "export"),
            evidence=(f"blocks of this node: {own_blocks}, routes exported: 0",),
        )
    return None


def _count(found: Sequence[object], noun: str) -> str:
    return f"1 {noun}" if len(found) == 1 else f"{len(found)} {noun}s"


def _filter_fix(peer: BirdPeer, direction: str) -> str:
    if not peer.filters:
        return "see `podwire bgp routes`: it names each route and why"
    names = ", ".join(peer.filters)
    return f"look at the {direction} rules of BGPFilter {names}"


def _stopped(peer: BirdPeer, protocol: Protocol) -> Reason | None:
    """The session does not even try."""
    assert protocol.session is not None
    if protocol.state in {"down", "stop"} and not protocol.session.last_error:
        return Reason(
            why=Why.DISABLED,
            sentence=f"the session with {peer.address} is disabled in BIRD",
            fix=f"birdc enable {protocol.name}",
            evidence=(f"{protocol.name} is {protocol.state}",),
        )
    return None


def _disagreement(peer: BirdPeer, error: str) -> Reason | None:
    """What one side told the other in a message of BGP's (RFC 4271, 6.2)."""
    evidence = (f"last error: {error}",)
    by_us = error.startswith("BGP Error")
    if "Bad peer AS" in error:
        return Reason(
            why=Why.AS_MISMATCH,
            sentence=f"{peer.address} is not in AS {peer.as_number}, as we believe"
            if by_us
            else f"{peer.address} does not believe that we are in AS {peer.local_as}",
            fix=_as_fix(peer, ours=by_us),
            evidence=evidence,
        )
    if "Bad BGP identifier" in error:
        return Reason(
            why=Why.ROUTER_ID,
            sentence=f"{peer.address} and this node have the same router id",
            fix="give every node an address of its own: the router id is taken from it",
            evidence=evidence,
        )
    told = error.removeprefix("Received: ")
    if told != error and not any(word in told for word in PASSING):
        return _ended(peer, told, evidence)
    return None


def _ended(peer: BirdPeer, told: str, evidence: tuple[str, ...]) -> Reason:
    return Reason(
        why=Why.ENDED_BY_PEER,
        sentence=f"{peer.address} ended the session: {told}",
        fix="look at the session on that router",
        evidence=evidence,
    )


def _as_fix(peer: BirdPeer, *, ours: bool) -> str:
    if peer.type is PeerType.MESH:
        return f"compare asNumber of Node {peer.node or peer.name} with what BGPConfiguration says"
    if ours:
        return f"set asNumber of BGPPeer {peer.name} to the AS that router is in"
    return f"set the AS of this node (asNumber of Node or BGPConfiguration), or on {peer.address}"


def _source(peer: BirdPeer, reach: Reach) -> Reason | None:
    if not reach.source_missing:
        return None
    return Reason(
        why=Why.SOURCE_MISSING,
        sentence=f"we are to speak to {peer.address} from {peer.source}, an address no device of"
        " this node has",
        fix="correct the address of this Node, or give it to a device",
    )


def _attempted(peer: BirdPeer, protocol: Protocol, reach: Reach) -> Reason | None:
    """What attempts at the port of the session say."""
    best = reach.plain if reach.signed is Answer.NOT_TRIED else reach.signed
    evidence = _shown(peer, protocol, reach)
    if Answer.REFUSED in {reach.plain, reach.signed}:
        return _refused(peer, evidence)
    if best is Answer.UNREACHABLE or _nobody_there(protocol, reach):
        return _unreachable(peer, evidence)
    if _signature_differs(peer, reach):
        return _password(peer, reach, evidence)
    if best is Answer.SILENT:
        return _silent(peer, reach, evidence)
    return None


def _nobody_there(protocol: Protocol, reach: Reach) -> bool:
    """ARP gives up after three seconds: attempts end before, BIRD has waited for it."""
    assert protocol.session is not None
    silent = reach.plain is reach.beside is Answer.SILENT
    return silent and "No route to host" in protocol.session.last_error


def _signature_differs(peer: BirdPeer, reach: Reach) -> bool:
    """Whether the two sides do not sign with the same password."""
    lives = reach.beside in {Answer.REFUSED, Answer.ACCEPTED}
    if peer.password is not None:
        # Who accepts an unsigned connection from us has no password for us.
        if reach.plain is Answer.ACCEPTED:
            return True
        return lives and reach.signed is Answer.SILENT
    # The kernel of a peer that has one drops us without a word; its own calls are dropped here.
    return reach.calls_signed


def _password(peer: BirdPeer, reach: Reach, evidence: tuple[str, ...]) -> Reason:
    if peer.password is None:
        sentence = f"{peer.address} signs with a password, and this session has none"
        fix = f"give {_wanted_by(peer)} the password of that router"
    elif reach.plain is Answer.ACCEPTED:
        sentence = f"{peer.address} has no password for this session, and we have"
        fix = f"set the password of secret {peer.password} there too, or take it away here"
    else:
        sentence = f"{peer.address} has another password for this session than we have"
        fix = f"compare secret {peer.password} with the password set on that router"
    return Reason(why=Why.PASSWORD, sentence=sentence, fix=fix, evidence=evidence)


def _wanted_by(peer: BirdPeer) -> str:
    if peer.type is PeerType.MESH:
        return "BGPConfiguration.nodeMeshPassword"
    return f"BGPPeer {peer.name}"


def _refused(peer: BirdPeer, evidence: tuple[str, ...]) -> Reason:
    there = f"on {peer.node}" if peer.node else "there"
    return Reason(
        why=Why.REFUSED,
        sentence=f"{peer.address} refuses connections to TCP port {peer.port}: no router listens",
        fix=f"start BIRD {there}, or correct the port"
        if peer.node
        else "start the router there, or correct address and port of the peer",
        evidence=evidence,
    )


def _unreachable(peer: BirdPeer, evidence: tuple[str, ...]) -> Reason:
    return Reason(
        why=Why.NO_ROUTE,
        sentence=f"no way leads to {peer.address}: the kernel finds no route, or nobody there"
        " answers ARP",
        fix=f"see `ip route get {peer.address}` and whether that machine is up",
        evidence=evidence,
    )


def _silent(peer: BirdPeer, reach: Reach, evidence: tuple[str, ...]) -> Reason:
    if reach.beside in {Answer.REFUSED, Answer.ACCEPTED}:
        return Reason(
            why=Why.NO_ANSWER,
            sentence=f"{peer.address} lives, and does not answer on TCP port {peer.port}: a packet"
            " filter drops it, that router wants a password, or it hangs",
            fix=f"let TCP port {peer.port} pass between the two, in both directions"
            if not reach.signatures.unexpected or peer.password is not None
            else f"if that router has a password, give it to {_wanted_by(peer)}; else let TCP port"
            f" {peer.port} pass between the two",
            evidence=evidence,
        )
    return Reason(
        why=Why.NO_ANSWER,
        sentence=f"{peer.address} does not answer on TCP port {peer.port}, nor on any other",
        fix="see whether that machine is up and whether a packet filter is in the way",
        evidence=evidence,
    )


def _remembered(peer: BirdPeer, protocol: Protocol, error: str) -> Reason:
    evidence = (f"last error: {error}",) if error else (f"BGP state: {protocol.info}",)
    if "Hold timer expired" in error:
        return Reason(
            why=Why.HOLD_TIMER,
            sentence=f"{peer.address} was not heard for {peer.hold_s} s, or did not hear us:"
            " the session is being set up again",
            fix="look for lost packets on the way and for a busy machine at either end",
            evidence=evidence,
        )
    if error.startswith("Received: "):
        return _ended(peer, error.removeprefix("Received: "), evidence)
    if "Connection refused" in error:
        return _refused(peer, evidence)
    if "unreachable" in error or "No route to host" in error:
        return _unreachable(peer, evidence)
    if "timed out" in error:
        return _silent(peer, NOT_TRIED, evidence)
    if "Connection closed" in error or "Connection reset" in error:
        return Reason(
            why=Why.CLOSED,
            sentence=f"{peer.address} accepts our connections and closes them: it has no session"
            f" with {peer.source or 'our address'}",
            fix=f"configure this node as a peer there, in AS {peer.local_as}",
            evidence=evidence,
        )
    if error:
        return Reason(why=Why.OTHER, sentence=f"BIRD says: {error}", evidence=evidence)
    return Reason(
        why=Why.CONNECTING,
        sentence=f"the session with {peer.address} is being set up: nothing is amiss so far",
        fix="look again in a few seconds",
        evidence=evidence,
    )


def _shown(peer: BirdPeer, protocol: Protocol, reach: Reach) -> tuple[str, ...]:
    attempts = (
        (f"TCP {peer.port} unsigned", reach.plain),
        (f"TCP {peer.port} signed", reach.signed),
        ("a port nobody uses", reach.beside),
    )
    told = [f"{what}: {said}" for what, said in attempts if said is not Answer.NOT_TRIED]
    if reach.calls_signed:
        told.append("it calls us with a signature")
    assert protocol.session is not None
    if protocol.session.last_error:
        told.append(f"last error: {protocol.session.last_error}")
    if reach.signatures.any and Answer.SILENT in {reach.plain, reach.signed}:
        told.append(_counted(reach.signatures))
    return tuple(told)


def _counted(signatures: Signatures) -> str:
    return (
        "segments dropped here for their MD5 signature:"
        f" {signatures.missing} without, {signatures.unexpected} unexpected,"
        f" {signatures.wrong} wrong"
    )
