"""Taps on real links: the kernel's verdict on frames, drops, names, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers import namespaces
from podwire.drivers.capture.bpf import Assembler
from podwire.drivers.capture.filters import probe_filter
from podwire.drivers.capture.taps import BLOCK_BYTES, Taps
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import Forbidden
from podwire.trace.flow import Protocol
from tests.fakes import classic_bpf
from tests.fakes import drawn_frames as draw
from tests.fakes.awaiting import wait_until, wait_until_links_carry

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.trace.observation import Sighting


@pytest.fixture
def cable(make_namespace: Callable[[str], int]) -> int:
    """A veth pair: `here` in the test's namespace, `there` in the one whose descriptor is given."""
    other = make_namespace("other")
    with Session.open() as session:
        session.run(
            requests.create_veth("here", peer_name="there", peer_namespace=other, up=True),
        )
    with Session.open(other) as session:
        session.run(requests.set_link("there", up=True))
        wait_until_links_carry(session, "there")
    with Session.open() as session:
        wait_until_links_carry(session, "here")
    return other


def send(frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("here", 0))
        for frame in frames:
            sock.send(frame)


def everything(snap: int = 256) -> Assembler:
    asm = Assembler()
    asm.give(snap)
    return asm


def dresses(protocol: Protocol, length: int) -> list[bytes]:
    series = draw.series(protocol, length)
    packet = draw.probe(series, 1)
    packets = [packet, draw.vxlan(packet), draw.ipip(packet), draw.error(packet, 3, 3, 28)]
    packets += [draw.error(packet, 3, 4, mtu=1000), *draw.fragments(packet, 104)]
    strange = draw.probe(draw.series(protocol, length, mark=b"other!", seed=1))
    return [draw.ethernet(each) for each in (*packets, strange)] + [draw.arp()]


@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.UDP, Protocol.TCP])
def test_the_kernel_judges_frames_as_the_machine_on_paper(cable: int, protocol: Protocol) -> None:
    frames = [each for length in (60, 700) for each in dresses(protocol, length)]
    program = probe_filter(draw.series(protocol, 60), 256)
    expected = [each for each in frames if classic_bpf.run(program, each)]
    assert len(expected) > 10
    with Taps.open({1: cable}, program) as taps:
        send(frames)
        seen = gathered(taps, len(expected))
    assert [each.data for each in seen] == [each[:256] for each in expected]
    assert [each.length for each in seen] == [len(each) for each in expected]


def gathered(taps: Taps, number: int) -> list[Sighting]:
    found: list[Sighting] = []

    def enough() -> bool:
        found.extend(taps.read(0.05))
        return len(found) >= number

    wait_until(enough)
    return found


def test_a_tap_tells_link_side_time_and_kind(cable: int) -> None:
    mine = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    frame = draw.ethernet(draw.probe(draw.series()))
    program = probe_filter(draw.series(), 256)
    with Taps.open({1: mine, 2: cable}, program) as taps:
        os.close(mine)
        send([frame])
        seen = sorted(gathered(taps, 2), key=lambda each: each.timestamp_ns)
    assert [(each.inode, each.interface, each.side) for each in seen] == [
        (1, "here", "out"),
        (2, "there", "in"),
    ]
    # The MAC is nobody's: the frame is for another host.
    assert seen[1].packet_type == "otherhost"
    assert seen[0].timestamp_ns < seen[1].timestamp_ns


def test_links_that_appear_later_are_seen(cable: int) -> None:
    program = probe_filter(draw.series(), 256)
    with Taps.open({1: cable}, program) as taps:
        with Session.open(cable) as session:
            session.run(
                requests.create_veth("late", peer_name="later", up=True),
                requests.set_link("later", up=True),
            )
            wait_until_links_carry(session, "late", "later")
        frame = draw.ethernet(draw.probe(draw.series()))

        def from_late() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind(("late", 0))
                sock.send(frame)

        namespaces.call_in(cable, from_late)
        seen = gathered(taps, 2)
    assert {(each.interface, each.side) for each in seen} == {("late", "out"), ("later", "in")}


def test_what_does_not_fit_is_counted(cable: int) -> None:
    frame = draw.ethernet(draw.probe(draw.series()))
    program = probe_filter(draw.series(), 256)
    with Taps.open({1: cable}, program, ring_bytes=BLOCK_BYTES) as taps:
        send([frame] * 100)
        wait_until(lambda: taps.reports()[0].received >= 100)
        kept = len(taps.read())
        (report,) = taps.reports()
        # Once read, there is room again.
        send([frame])
        assert len(gathered(taps, 1)) == 1
    assert report.dropped == 100 - kept > 0


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def test_taps_close_what_they_open(cable: int) -> None:
    before = descriptors()
    program = probe_filter(draw.series(), 256)
    for _ in range(3):
        with Taps.open({1: cable, 2: cable, 3: cable}, program) as taps:
            assert len(descriptors()) > len(before)
            taps.close()
    assert descriptors() == before
    # A program that the kernel refuses: it does not end with a verdict.
    asm = Assembler()
    asm.load_length()
    with pytest.raises(Forbidden, match="watched"):
        Taps.open({1: cable, 2: cable}, asm.assemble())
    assert descriptors() == before


def test_a_namespace_that_cannot_be_entered_is_named(cable: int) -> None:
    with Path("/dev/null").open() as nothing:
        taps = Taps.open({1: cable, 2: nothing.fileno()}, everything().assemble())
    with taps:
        good, bad = taps.reports()
    assert (good.inode, good.refused) == (1, None)
    assert bad.inode == 2
    assert bad.refused


def sockets(namespace: int) -> int:
    """Packet sockets in a namespace."""
    text = namespaces.call_in(namespace, Path("/proc/thread-self/net/packet").read_text)
    return len(text.splitlines()) - 1


def test_a_sudden_death_leaves_no_socket(cable: int) -> None:
    child = os.fork()
    if child == 0:
        with Taps.open({1: cable}, everything().assemble()) as taps:
            while True:
                taps.read(10)
    try:
        wait_until(lambda: sockets(cable) == 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait_until(lambda: sockets(cable) == 0)
