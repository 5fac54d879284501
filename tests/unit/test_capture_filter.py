"""The filters: they let a probe through in every dress it can wear, and nothing else."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.drivers.capture import bpf
from podwire.drivers.capture.bpf import Assembler, encode
from podwire.drivers.capture.filters import probe_filter
from podwire.errors import BadInput
from podwire.trace.flow import Protocol
from podwire.trace.probe import MAX_PROBES, Series
from tests.fakes import drawn_frames as draw
from tests.fakes.classic_bpf import run

SNAP = 256
IP_ONLY = 768
"""ARPHRD type of an ipip device."""
PROBES = [
    draw.series(protocol, length)
    for protocol, smallest in ((Protocol.ICMP, 28), (Protocol.UDP, 28), (Protocol.TCP, 40))
    for length in (smallest, smallest + 7, smallest + 8, 60, 84, 500, 1450, 4000)
]
BIG = [each for each in PROBES if each.length >= 500]


def passes(series: Series, frame: bytes, hatype: int = 1) -> bool:
    result = run(probe_filter(series, SNAP), frame, hatype)
    assert result in {0, SNAP}
    return result == SNAP


def title(series: object) -> str:
    assert isinstance(series, Series)
    return f"{series.protocol}-{series.length}"


@pytest.mark.parametrize("series", PROBES, ids=title)
def test_a_probe_passes_in_every_dress(series: Series) -> None:
    for number in range(series.count):
        packet = draw.probe(series, number)
        assert passes(series, draw.ethernet(packet))
        assert passes(series, draw.ethernet(packet), 772)
        assert passes(series, draw.tagged(packet, 5))
        assert passes(series, packet, IP_ONLY)
        for outer in (draw.vxlan(packet), draw.ipip(packet)):
            assert passes(series, draw.ethernet(outer))
            assert passes(series, draw.tagged(outer, 5))


@pytest.mark.parametrize("series", [each for each in PROBES if each.payload_bytes >= 8], ids=title)
def test_the_end_tells_behind_headers_of_any_length(series: Series) -> None:
    body = draw.probe(series, 1)[20:]
    number = {Protocol.ICMP: 1, Protocol.UDP: 17, Protocol.TCP: 6}[series.protocol]
    assert passes(series, draw.ethernet(draw.ip(body, protocol=number, options=b"\1" * 40)))
    # VXLAN over IPv6, with a tag inside.
    inner = draw.tagged(draw.probe(series, 1), 9)
    assert passes(series, draw.ethernet(bytes(40 + 8 + 8) + inner, 0x86DD))


@pytest.mark.parametrize("series", BIG, ids=title)
def test_every_fragment_passes(series: Series) -> None:
    packet = draw.probe(series, 2)
    for size in (1480, 552, 104, 48):
        for piece in draw.fragments(packet, size):
            assert passes(series, draw.ethernet(piece)), (size, piece.hex())
            assert passes(series, draw.ethernet(draw.vxlan(piece)))
            assert passes(series, draw.ethernet(draw.ipip(piece)))
    for outer in (draw.vxlan(packet), draw.ipip(packet)):
        pieces = draw.fragments(outer, (len(outer) // 2 + 8) // 8 * 8)
        assert [passes(series, draw.ethernet(piece)) for piece in pieces] == [True, True]


@pytest.mark.parametrize("series", PROBES, ids=title)
@pytest.mark.parametrize("quote", [28, 548])
def test_errors_about_a_probe_pass(series: Series, quote: int) -> None:
    packet = draw.probe(series, 1)
    for kind, code in ((3, 0), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0)):
        answer = draw.error(packet, kind, code, quote, mtu=1450)
        assert passes(series, draw.ethernet(answer))
        assert passes(series, answer, IP_ONLY)
        assert passes(series, draw.ethernet(draw.vxlan(answer)))
        assert passes(series, draw.ethernet(draw.ipip(answer)))


def test_answers_without_the_payload_pass() -> None:
    tcp, udp = draw.series(Protocol.TCP, 60), draw.series(Protocol.UDP, 60)
    answers = [
        (tcp, draw.tcp_answer(tcp, number, closed=closed))
        for number in range(tcp.count)
        for closed in (False, True)
    ]
    for series, answer in [*answers, (udp, draw.udp_answer(udp))]:
        for packet in (answer, draw.vxlan(answer), draw.ipip(answer)):
            assert passes(series, draw.ethernet(packet))
        assert passes(series, answer, IP_ONLY)


def test_arp_passes() -> None:
    assert passes(draw.series(), draw.arp())
    assert passes(draw.series(), draw.MACS + pack("!HH", 0x8100, 5) + draw.arp()[12:])


@pytest.mark.parametrize("series", PROBES, ids=title)
def test_strangers_do_not(series: Series) -> None:
    other = draw.series(
        series.protocol,
        series.length,
        mark=b"other!",
        seed=1,
        source_port=0 if series.protocol is Protocol.ICMP else 41000,
    )
    packet = draw.probe(other)
    assert not passes(series, draw.ethernet(packet))
    assert not passes(series, draw.ethernet(draw.vxlan(packet)))
    assert not passes(series, draw.ethernet(draw.error(packet, 3, 3)))
    assert not passes(series, draw.ethernet(packet, 0x86DD))


@given(st.binary(max_size=200), st.sampled_from([1, 768, 772, 65534]))
def test_noise_is_refused(noise: bytes, hatype: int) -> None:
    series = draw.series(Protocol.TCP, 60)
    arp = noise[12:14] == b"\x08\x06" or (noise[12:14], noise[16:18]) == (b"\x81\0", b"\x08\x06")
    assert passes(series, noise, hatype) is (arp and hatype in {1, 772})


def test_the_longest_series_fits() -> None:
    program = probe_filter(draw.series(Protocol.TCP, 60, count=MAX_PROBES), SNAP)
    assert len(program) < bpf.MAX_INSTRUCTIONS
    assert len(encode(program)) == 8 * len(program)


def test_jumps_are_counted_from_the_next_instruction() -> None:
    asm = Assembler()
    asm.load_length()
    asm.if_equal(3, "yes")
    asm.give(1)
    asm.label("yes")
    asm.give(2)
    assert run(asm.assemble(), b"abc") == 2
    assert run(asm.assemble(), b"ab") == 1


def test_a_program_that_cannot_run_is_refused() -> None:
    far = Assembler()
    far.if_equal(0, "end")
    for _ in range(bpf.MAX_JUMP + 1):
        far.load_length()
    far.label("end")
    far.give(0)
    back = Assembler()
    back.label("start")
    back.jump("start")
    unknown = Assembler()
    unknown.jump("nowhere")
    for asm in (far, back, unknown, Assembler()):
        with pytest.raises(BadInput):
            asm.assemble()
    with pytest.raises(BadInput, match="taken"):
        back.label("start")
