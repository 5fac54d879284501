"""Diagnosis: ask BIRD, the kernel and the peers what is amiss with the sessions of one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.bgp.reach import NOT_TRIED
from podwire.bgp.reason import Reason, Why, wants_attempts, why_down, why_empty, why_old
from podwire.drivers.bird.observe import list_routes
from podwire.drivers.bird.probe import reach
from podwire.errors import BirdAway, BirdSilent
from podwire.model.route import PROTOCOL_PODWIRE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.bgp.state import RibRoute
    from podwire.desired.bgp import BirdPeer
    from podwire.drivers.bird.control import Control
    from podwire.drivers.bird.observe import BirdView
    from podwire.model.bgp import SecretKey

UNRESOLVED = "where dest = RTD_UNREACHABLE && source = RTS_BGP"
OWN_BLOCKS = f"where dest = RTD_BLACKHOLE && krt_source = {PROTOCOL_PODWIRE}"


def diagnose(
    control: Control,
    view: BirdView,
    peers: Iterable[BirdPeer],
    passwords: Mapping[SecretKey, str],
) -> dict[str, Reason]:
    """What is amiss, by BIRD's name of the session; a healthy one is not in it.

    Runs in the node's own network namespace: attempts at the ports of silent peers start here.

    Raises:
        BirdAway, BirdSilent: BIRD ended meanwhile.
    """
    peers = list(peers)
    old = why_old(view.daemon.version)
    if old is not None:
        return {peer.protocol: old for peer in peers}
    sessions = view.sessions
    asked = [peer for peer in peers if wants_attempts(peer, sessions.get(peer.protocol))]
    found = reach((peer, _password(peer, passwords)) for peer in asked)
    unresolved = list_routes(control, UNRESOLVED)
    own_blocks = len(list_routes(control, OWN_BLOCKS))
    reasons: dict[str, Reason] = {}
    for peer in peers:
        protocol = sessions.get(peer.protocol)
        if protocol is not None and protocol.established:
            reason = why_empty(peer, protocol, _of(unresolved, peer), own_blocks=own_blocks)
        else:
            reason = why_down(peer, protocol, found.get(peer.protocol, NOT_TRIED))
        if reason is not None:
            reasons[peer.protocol] = reason
    return reasons


def why_no_bird(error: BirdAway | BirdSilent) -> Reason:
    """Why nothing can be said of any session: BIRD itself is not there."""
    why = Why.BIRD_SILENT if isinstance(error, BirdSilent) else Why.BIRD_AWAY
    return Reason(why=why, sentence=error.message, fix=error.fix)


def _password(peer: BirdPeer, passwords: Mapping[SecretKey, str]) -> str | None:
    return None if peer.password is None else passwords.get(peer.password)


def _of(routes: Iterable[RibRoute], peer: BirdPeer) -> tuple[RibRoute, ...]:
    return tuple(route for route in routes if route.protocol == peer.protocol)
