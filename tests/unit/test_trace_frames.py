"""Frames: what is built is read again, and no bytes make the reader fail."""

from __future__ import annotations

import subprocess
from shutil import which
from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import BadInput
from podwire.trace.flow import Packet, Protocol
from podwire.trace.frames import ICMP, TCP, UDP, decode, packet_of
from podwire.trace.probe import Series, checksum
from tests.fakes import drawn_frames as draw

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS = (Protocol.ICMP, Protocol.UDP, Protocol.TCP)


@st.composite
def any_series(given_draw: st.DrawFn) -> Series:
    protocol = given_draw(st.sampled_from(PROTOCOLS))
    smallest = 40 if protocol is Protocol.TCP else 28
    return draw.series(
        protocol,
        given_draw(st.integers(smallest, 3000)),
        mark=given_draw(st.binary(min_size=6, max_size=6)),
        seed=given_draw(st.integers(0, 0xFFFFFFFF)),
        count=given_draw(st.integers(1, 16)),
    )


@given(any_series(), st.integers(0, 15))
def test_a_probe_is_read_as_it_was_built(series: Series, number: int) -> None:
    number %= series.count
    read = decode(draw.ethernet(draw.probe(series, number)))
    assert read.ip is not None
    body = read.ip.body
    assert (read.ip.source, read.ip.destination) == (series.source, series.destination)
    assert read.ip.length == series.length
    if isinstance(body, ICMP):
        assert (body.type, body.identifier, body.sequence) == (8, series.identifier, number + 1)
    elif isinstance(body, TCP):
        assert (body.syn, body.ack, body.sequence) == (True, False, series.sequence(number))
    assert isinstance(body, ICMP) or (body.source_port, body.destination_port) == (40000, 80)  # type: ignore[union-attr]
    expected = series.protocol is Protocol.ICMP
    assert packet_of(read.ip) == Packet(
        source=series.source,
        destination=series.destination,
        protocol=series.protocol,
        source_port=None if expected else 40000,
        destination_port=None if expected else 80,
        length=series.length,
    )


@given(any_series(), st.integers(0, 15))
def test_its_checksum_is_right(series: Series, number: int) -> None:
    segment = series.segment(number % series.count)
    pseudo = series.source.packed + series.destination.packed
    pseudo += pack("!BBH", 0, {"icmp": 1, "tcp": 6, "udp": 17}[series.protocol], len(segment))
    assert checksum((b"" if series.protocol is Protocol.ICMP else pseudo) + segment) == 0


@given(any_series(), st.integers(0, 15))
def test_the_cookie_is_where_it_must_be(series: Series, number: int) -> None:
    number %= series.count
    payload, cookie = series.payload(number), series.cookie(number)
    assert len(payload) == series.payload_bytes
    if len(payload) < 8:
        assert payload == cookie[: len(payload)]
        return
    assert payload.startswith(cookie)
    if len(payload) < 16:
        return
    assert payload.endswith(cookie)
    segment = series.segment(number)
    first = -(-(series.header + 8) // 8) * 8
    for at in range(first, len(segment) - 15, 8):
        assert segment[at : at + 8] == cookie


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_the_reader_fail(data: bytes, ethernet: bool) -> None:
    decode(data, ethernet=ethernet)


@given(any_series(), st.integers(0, 200), st.sampled_from(["vxlan", "ipip", "error", "plain"]))
def test_a_cut_frame_is_read_as_far_as_it_goes(series: Series, cut: int, dress: str) -> None:
    packet = draw.probe(series)
    dressed = {
        "vxlan": draw.vxlan(packet),
        "ipip": draw.ipip(packet),
        "error": draw.error(packet, 3, 3),
        "plain": packet,
    }[dress]
    frame = decode(draw.ethernet(dressed)[:cut])
    assert (frame.ip is not None) is (cut >= 34)
    if frame.ip is not None:
        packet_of(frame.ip)


def test_vxlan_is_opened() -> None:
    frame = decode(draw.ethernet(draw.vxlan(draw.probe(draw.series()), vni=5000)))
    assert frame.ip is not None
    packet = packet_of(frame.ip)
    assert packet is not None
    assert (packet.protocol, packet.destination_port, packet.vni) == (Protocol.UDP, 4789, 5000)
    assert packet.inner_mac == draw.OTHER_MAC
    assert packet.inner is not None
    assert (packet.inner.source, packet.inner.length) == (draw.POD, 84)
    assert packet.length == packet.inner.length + 50
    assert frame.ip.innermost.source == draw.POD


def test_ipip_is_opened() -> None:
    frame = decode(draw.ipip(draw.probe(draw.series())), ethernet=False)
    assert frame.ip is not None
    packet = packet_of(frame.ip)
    assert packet is not None
    assert packet.protocol is Protocol.IPIP
    assert packet.inner is not None
    assert packet.inner.protocol is Protocol.ICMP


def test_tags_and_arp_are_read() -> None:
    tagged = decode(draw.tagged(draw.probe(draw.series()), 77))
    assert tagged.vlan == 77
    assert tagged.ip is not None
    asked, answered = decode(draw.arp()), decode(draw.arp(answer=True))
    assert asked.arp is not None
    assert answered.arp is not None
    assert (asked.arp.answer, answered.arp.answer) == (False, True)
    assert (asked.arp.sender, asked.arp.target) == (draw.POD, draw.OTHER)
    assert (answered.arp.sender, answered.arp.target) == (draw.OTHER, draw.POD)
    assert answered.arp.sender_mac == draw.OTHER_MAC


def test_an_error_tells_the_mtu_and_what_it_is_about() -> None:
    series = draw.series(Protocol.UDP, 1480)
    frame = decode(draw.ethernet(draw.error(draw.probe(series), 3, 4, mtu=1450)))
    assert frame.ip is not None
    body = frame.ip.body
    assert isinstance(body, ICMP)
    assert body.error
    assert body.mtu == 1450
    assert body.quoted is not None
    assert isinstance(body.quoted.body, UDP)
    assert body.quoted.length == 1480


def test_a_later_fragment_has_no_body() -> None:
    first, last = draw.fragments(draw.probe(draw.series(length=2000)), 1480)
    for packet, offset, more in ((first, 0, True), (last, 1480, False)):
        read = decode(packet, ethernet=False).ip
        assert read is not None
        assert (read.offset, read.more_fragments, read.fragment) == (offset, more, True)
        assert (read.body is None) is (offset > 0)


def test_a_probe_that_cannot_be_is_refused() -> None:
    for wrong in ({"length": 27}, {"length": 65536}, {"count": 0}, {"mark": b"short"}):
        with pytest.raises(BadInput):
            draw.series(**{"length": 84, **wrong})  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        draw.series(Protocol.IPIP)


@pytest.mark.skipif(which("tcpdump") is None, reason="needs tcpdump")
def test_tcpdump_reads_the_same(tmp_path: Path) -> None:
    packets = [
        draw.probe(draw.series(protocol, length)) for protocol in PROTOCOLS for length in (60, 61)
    ]
    packets += [draw.vxlan(packets[0]), draw.ipip(packets[0]), draw.error(packets[0], 3, 4)]
    frames = [draw.ethernet(packet) for packet in packets]
    file = tmp_path / "probes.pcap"
    file.write_bytes(
        pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        + b"".join(pack("!IIII", 0, 0, len(each), len(each)) + each for each in frames)
    )
    done = subprocess.run(
        ["tcpdump", "-nn", "-vv", "-r", file], capture_output=True, text=True, check=True
    )
    # A drawn VXLAN packet goes without an outer checksum, as the kernel's own do by default.
    assert "incorrect" not in done.stdout
    assert "bad" not in done.stdout
    assert "wrong" not in done.stdout
    assert done.stdout.count("ICMP echo request") >= 4
