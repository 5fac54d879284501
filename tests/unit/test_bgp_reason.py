"""Reasons that no pair of real BIRDs stays in long enough, or that this BIRD cannot have."""

from __future__ import annotations

from ipaddress import ip_address

from podwire.bgp.reason import Why, why_down, why_old
from podwire.bgp.state import OLDEST, BirdVersion, PeerSession, Protocol
from podwire.desired.bgp import BirdPeer, PeerType

PEER = BirdPeer(
    protocol="peer_10_0_0_2",
    type=PeerType.GLOBAL,
    name="rack",
    address=ip_address("10.0.0.2"),
    as_number=65000,
    local_as=64512,
)


def session(*, last_error: str = "") -> Protocol:
    return Protocol(
        name=PEER.protocol,
        kind="BGP",
        table="---",
        state="start",
        since="",
        info="Connect",
        session=PeerSession(address=PEER.address, state="Connect", last_error=last_error),
    )


def test_a_session_that_is_being_set_up_has_nothing_amiss() -> None:
    reason = why_down(PEER, session())
    assert reason is not None
    assert (reason.why, "nothing is amiss" in reason.sentence) == (Why.CONNECTING, True)


def test_what_nobody_knows_is_told_in_bird_s_words() -> None:
    reason = why_down(PEER, session(last_error="Socket: No buffer space available"))
    assert reason is not None
    assert reason.why is Why.OTHER
    assert "No buffer space available" in reason.sentence


def test_a_bird_that_cannot_set_onlink_is_too_old() -> None:
    reason = why_old(BirdVersion(2, 0, 11))
    assert reason is not None
    assert (reason.why, reason.fix) == (Why.BIRD_TOO_OLD, f"install BIRD {OLDEST} or newer")
    assert why_old(OLDEST) is None
