"""Recognise: each frame gets its role and its probe's number; the order is that of time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.trace.flow import Protocol
from podwire.trace.observation import Observation, Role, Seen, Sent, Sighting, TapReport
from podwire.trace.recognise import in_order, numbered, recognise
from tests.fakes import drawn_frames as draw

if TYPE_CHECKING:
    from podwire.trace.probe import Series
from podwire.trace.questions import questions

ICMP, UDP, TCP = (draw.series(each, 60) for each in (Protocol.ICMP, Protocol.UDP, Protocol.TCP))
BACKEND = draw.FAR


def sighting(frame: bytes, order: int = 1, **more: object) -> Sighting:
    base = Sighting(
        inode=7,
        index=2,
        interface="eth0",
        packet_type="host",
        timestamp_ns=1000 + order,
        order=order,
        data=frame[:256],
        length=len(frame),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def roles(series: Series, *packets: bytes) -> list[tuple[str, int | None]]:
    frames = [sighting(draw.ethernet(packet), order) for order, packet in enumerate(packets)]
    return [(seen.role, seen.probe) for seen in recognise(frames, series)]


def only(series: Series, packet: bytes) -> Seen:
    (seen,) = recognise([sighting(draw.ethernet(packet))], series)
    return seen


@pytest.mark.parametrize("series", [ICMP, UDP, TCP], ids=["icmp", "udp", "tcp"])
def test_requests_keep_their_number_in_every_dress(series: Series) -> None:
    for number in range(3):
        packet = draw.probe(series, number)
        dressed = (packet, draw.vxlan(packet), draw.ipip(packet))
        assert roles(series, *dressed) == [("request", number)] * 3


def test_answers_are_told_from_requests() -> None:
    assert roles(ICMP, draw.echo_reply(ICMP, 2)) == [("reply", 2)]
    for closed in (False, True):
        answer = draw.tcp_answer(TCP, 1, closed=closed)
        assert roles(TCP, answer, draw.vxlan(answer)) == [("reply", 1)] * 2
    # An echo service sends the cookie back, another sends something else.
    assert roles(UDP, draw.udp_answer(UDP, UDP.payload(2))) == [("reply", 2)]
    assert roles(UDP, draw.udp_answer(UDP)) == [("reply", None)]


def test_an_answer_from_a_translated_address_is_one() -> None:
    body = draw.udp_answer(UDP, UDP.payload(1))[20:]
    assert roles(UDP, draw.ip(body, protocol=17, ends=(BACKEND, draw.POD))) == [("reply", 1)]
    translated = draw.ip(UDP.segment(1), protocol=17, ends=(draw.POD, BACKEND))
    assert roles(UDP, translated) == [("request", 1)]


def test_an_answer_between_two_translated_addresses_is_one() -> None:
    body = draw.udp_answer(UDP, UDP.payload(1))[20:]
    assert roles(UDP, draw.ip(body, protocol=17, ends=(BACKEND, draw.FAR))) == [("reply", 1)]
    there = draw.ip(UDP.segment(1), protocol=17, ends=(draw.FAR, BACKEND))
    assert roles(UDP, there) == [("request", 1)]


@pytest.mark.parametrize("series", [ICMP, UDP, TCP], ids=["icmp", "udp", "tcp"])
@pytest.mark.parametrize("quote", [28, 548])
def test_errors_are_matched_by_cookie_or_by_header(series: Series, quote: int) -> None:
    seen = only(series, draw.error(draw.probe(series, 2), 3, 13, quote))
    bare_udp = series is UDP and quote == 28
    assert (seen.role, seen.probe) == (Role.ERROR, None if bare_udp else 2)
    assert seen.error is not None
    assert (seen.error.type, seen.error.code) == (3, 13)
    assert not seen.about_reply


def test_the_error_about_a_big_probe_is_matched_by_its_start() -> None:
    big = draw.series(Protocol.UDP, 1480)
    seen = only(big, draw.error(draw.probe(big, 1), 3, 4, mtu=1450))
    assert (seen.role, seen.probe) == (Role.ERROR, 1)
    assert seen.error is not None
    assert seen.error.mtu == 1450


def test_an_error_about_an_answer_says_so() -> None:
    assert only(ICMP, draw.error(draw.echo_reply(ICMP), 3, 1)).about_reply
    assert only(TCP, draw.error(draw.tcp_answer(TCP, 0), 3, 1)).about_reply
    assert only(UDP, draw.error(draw.udp_answer(UDP), 3, 1)).about_reply


@pytest.mark.parametrize("size", [1480, 48])
@pytest.mark.parametrize("answer", [False, True])
def test_fragments_belong_to_their_datagram(size: int, answer: bool) -> None:
    big = draw.series(Protocol.ICMP, 3000)
    packet = draw.echo_reply(big, 1) if answer else draw.probe(big, 1)
    pieces = draw.fragments(packet, size)
    role = "reply" if answer else "request"
    assert roles(big, *pieces) == [(role, 1)] * len(pieces)
    outer = draw.fragments(draw.vxlan(packet), 1480)
    assert roles(big, *outer) == [(role, 1)] * len(outer)


def test_strangers_are_left_out() -> None:
    other = draw.series(Protocol.ICMP, 60, mark=b"other!")
    udp = draw.series(Protocol.UDP, 60, mark=b"other!")
    # Same identifier, and another cookie.
    assert roles(ICMP, draw.probe(other), draw.error(draw.probe(udp), 3, 3)) == []
    assert roles(ICMP, draw.probe(TCP)[:30], b"") == []


def test_arp_is_kept() -> None:
    (seen,) = recognise([sighting(draw.arp())], ICMP)
    assert (seen.role, seen.probe, seen.packet) == (Role.ARP, None, None)


@given(st.binary(max_size=256), st.booleans())
def test_noise_is_nothing(noise: bytes, ethernet: bool) -> None:
    for series in (ICMP, UDP, TCP):
        recognise([sighting(noise, ethernet=ethernet)], series)


def test_equal_times_are_ordered_by_tap_and_by_path() -> None:
    frame = draw.ethernet(draw.probe(ICMP))
    later = sighting(frame, 2, timestamp_ns=5)
    first = sighting(frame, 1, timestamp_ns=5)
    assert in_order([later, first]) == [first, later]
    far = sighting(frame, 1, timestamp_ns=5, inode=8)
    path = [(8, "eth0", "in"), (7, "eth0", "in")]
    assert in_order([later, first, far], path) == [far, first, later]
    early = sighting(frame, 9, timestamp_ns=4)
    assert in_order([far, early], path) == [early, far]


def test_what_bytes_do_not_tell_the_time_does() -> None:
    sent = [Sent(probe=0, time_ns=1000), Sent(probe=1, time_ns=2000)]
    seen = recognise(
        [
            sighting(draw.ethernet(draw.udp_answer(UDP)), timestamp_ns=time)
            for time in (900, 1500, 2500)
        ],
        UDP,
    )
    assert [each.probe for each in numbered(seen, sent)] == [None, 0, 1]


def observed(*frames: Sighting) -> Observation:
    return Observation(series=ICMP, inode=7, sent=(), seen=recognise(frames, ICMP), taps=())


def test_questions_find_their_answers() -> None:
    twin = bytes.fromhex("020000007777")
    (asked,) = questions(
        observed(
            sighting(draw.arp(), 1, packet_type="outgoing", timestamp_ns=100),
            sighting(draw.arp(), 2, packet_type="outgoing", timestamp_ns=200),
            sighting(draw.arp(answer=True), 3, timestamp_ns=230),
            sighting(draw.arp(answer=True, mac=twin), 4, timestamp_ns=240),
            sighting(draw.arp(answer=True), 5, timestamp_ns=250, index=9),
        )
    )
    assert (asked.asker, asked.target, asked.side) == (draw.POD, draw.OTHER, "out")
    assert asked.asked_ns == (100, 200)
    assert asked.delay_ns == 30
    # Two own the address.
    assert asked.macs == (draw.OTHER_MAC, twin.hex(":"))


def test_a_question_may_stay_open() -> None:
    (asked,) = questions(observed(sighting(draw.arp())))
    assert (asked.side, asked.macs, asked.delay_ns) == ("in", (), None)


def test_an_observation_groups_by_place() -> None:
    request = draw.ethernet(draw.probe(ICMP))
    frames = [
        sighting(request, 1, packet_type="outgoing"),
        sighting(draw.ethernet(draw.vxlan(draw.probe(ICMP))), 2, inode=8, interface="ens32"),
        sighting(draw.ethernet(draw.echo_reply(ICMP)), 3),
    ]
    whole = Observation(
        series=ICMP,
        inode=7,
        sent=(Sent(probe=0, time_ns=0),),
        seen=recognise(frames, ICMP),
        taps=(TapReport(inode=7), TapReport(inode=8)),
    )
    spots = whole.spots(Role.REQUEST, 0)
    assert [(spot.inode, spot.interface, spot.side) for spot in spots] == [
        (7, "eth0", "out"),
        (8, "ens32", "in"),
    ]
    outer = spots[1].first.packet
    assert outer is not None
    assert outer.inner is not None
    assert whole.answered(0)
    assert not whole.answered(1)
    assert whole.trustworthy
    assert not replace(whole, taps=(TapReport(inode=7, dropped=1),)).trustworthy
    assert not replace(whole, taps=(TapReport(inode=7, refused="no"),)).trustworthy
