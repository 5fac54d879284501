"""The model of rules below IP against the kernel: a switch that routes, too, and real frames."""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

import pytest

from podwire.drivers.collect import collect_all
from podwire.drivers.namespaces import call_in, named_path, open_namespace
from podwire.drivers.rulesets import read_nft
from podwire.model.kernelstate import Missing, Read
from podwire.trace import segment
from podwire.trace.crossing import Ride, follow
from podwire.trace.cursor import Cursor, hop_at
from podwire.trace.flow import Packet, Protocol
from podwire.trace.passage import Frame
from podwire.trace.resolve import resolve
from podwire.trace.schema import Direction, Path
from podwire.trace.space import Lacking
from podwire.trace.walk import walk
from podwire.trace.world import Port, World
from tests.kernel.trace_bridge_rulesets import MACS, below_ip
from tests.kernel.trace_packets import build, parse
from tests.kernel.trace_rulesets import load_accepted, random_ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.kernelstate import KernelState
    from podwire.trace.connection import Ends

PACKETS = 8
SOON_S, LATE_S = 0.012, 2.0
"""How long an arrival is waited for that is not predicted, and one that is."""
HOSTS = {"ba": ("ea", "10.1.0", "fd01::"), "bb": ("eb", "10.2.0", "fd02::"),
         "bw": ("ec", "10.3.0", "fd03::")}  # fmt: skip
TOPOLOGY = """
for n in ba bb bw sw; do ip netns add $n; ip -n $n link set lo up; done
ip -n sw link add br0 address 02:00:00:00:01:00 type bridge
ip -n sw link set br0 up
for x in a b c; do
  n=b$x; [ $x != c ] || n=bw
  ip -n $n link add e$x address 02:00:00:00:00:0$x type veth \
    peer name w$x address 02:00:00:00:01:0$x netns sw
  ip -n $n link set e$x up
  ip -n sw link set w$x up
done
for x in a b; do
  ip -n sw link set w$x master br0
  bridge -n sw fdb replace 02:00:00:00:00:0$x dev w$x master sticky static
done
for net in 1 2; do
  ip -n sw addr add 10.$net.0.1/24 dev br0; ip -n sw addr add fd0$net::1/64 dev br0 nodad
done
ip -n sw addr add 10.3.0.1/24 dev wc; ip -n sw addr add fd03::1/64 dev wc nodad
ip netns exec sw sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""


def topology() -> str:
    lines = [TOPOLOGY]
    for name, (link, four, six) in HOSTS.items():
        out = "wc" if name == "bw" else "br0"
        for number in range(2, 12):
            for address in (f"{four}.{number}", f"{six}{number:x}"):
                lines.append(
                    f"ip -n sw neigh replace {address} dev {out} lladdr {MACS[link]} nud permanent"
                )
        # Their kernels keep silent: the answers are made here.
        silent = (
            f"table netdev x {{ chain x {{ type filter hook ingress device {link} "
            "priority 0; policy drop; }; }"
        )
        lines.append(f"echo '{silent}' | ip netns exec {name} nft -f -")
    return "\n".join(lines)


Seen: TypeAlias = "tuple[str, Ends, int]"
"""Namespace, ends and TTL of what arrived."""


class Taps:
    """A sender and listener at the end of each cable."""

    def __init__(self) -> None:
        self.taps: dict[str, socket.socket] = {}
        for name, (link, _, _) in HOSTS.items():
            descriptor = open_namespace(named_path(name))
            self.taps[name] = call_in(descriptor, _tap, link)
            os.close(descriptor)

    def close(self) -> None:
        for tap in self.taps.values():
            tap.close()

    def send(self, shot: Shot, patience_s: float) -> Seen | None:
        """Send from a namespace to a MAC; where it arrives."""
        name, to, packet, number = shot.name, shot.to, shot.packet, shot.number
        link = HOSTS[name][0]
        kind = b"\x08\0" if packet.source.version == 4 else b"\x86\xdd"
        head = bytes.fromhex((to + MACS[link]).replace(":", ""))
        for tap in self.taps.values():
            _drain(tap)
        self.taps[name].send(head + kind + build(packet, number))
        return self._arrived(number, patience_s)

    def _arrived(self, number: int, patience_s: float) -> Seen | None:
        by_tap = {tap: name for name, tap in self.taps.items()}
        until = time.monotonic() + patience_s
        while True:
            ready, _, _ = select.select(list(by_tap), [], [], max(0, until - time.monotonic()))
            if not ready:
                return None
            for tap in ready:
                data, address = tap.recvfrom(2048)
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                found = parse(data, number)
                if found is not None:
                    return by_tap[tap], found.ends, found.ttl


def _tap(link: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((link, 3))
    return tap


def _drain(tap: socket.socket) -> None:
    while select.select([tap], [], [], 0)[0]:
        tap.recv(2048)


@dataclass(frozen=True)
class Shot:
    """One frame to be sent."""

    name: str
    to: str
    packet: Packet
    number: int


def random_shot(dice: random.Random, number: int) -> Shot:
    protocol = dice.choice([Protocol.TCP, Protocol.UDP, Protocol.ICMP])
    ports = protocol is not Protocol.ICMP
    version = dice.choice([4, 4, 4, 6])
    far = [f"10.{net}.0.{each}" for net in (2, 2, 3) for each in range(2, 12)]
    source, destination = f"10.1.0.{dice.randrange(2, 12)}", dice.choice(far)
    if dice.random() < 0.25:
        destination = dice.choice(["10.99.0.1", "10.99.0.2"])
    if version == 6:
        source = f"fd01::{dice.randrange(2, 12):x}"
        destination = f"fd0{dice.choice([2, 2, 3])}::{dice.randrange(2, 12):x}"
    packet = Packet(
        source=ip_address(source),
        destination=ip_address(destination),
        protocol=protocol,
        source_port=20000 + number % 40000 if ports else None,
        destination_port=dice.choice([53, 80, 443, 1000, 1500, 8080]) if ports else None,
        length=60 if version == 4 else 80,
        ttl=dice.choice([3, 20, 64]),
    )
    return Shot("ba", MACS[dice.choice(["eb", "eb", "br0"])], packet, number)


def said_of(world: World, shot: Shot) -> list[Path]:
    """All that the model says of a frame."""
    space = next(space for space in world.spaces.values() if space.title == shot.name)
    port = Port(space=space, link=space.links_by_name[HOSTS[shot.name][0]])
    direction = Direction.RETURN if shot.packet.reply else Direction.FORWARD
    packet = shot.packet.apart()
    cursor = Cursor(
        space=space, packet=packet, direction=direction, hops=(hop_at(world, port, "out", packet),)
    )
    ride = Ride(frame=Frame(source=port.link.mac, destination=shot.to), goal=port, resolve=resolve)
    found: list[Path] = []
    try:
        ways = follow(world, cursor, port, segment.reach(world, port, shot.to), ride)
    except Lacking as gap:
        ways = [cursor.lacking(gap)]
    for way in ways:
        found += [way] if isinstance(way, Path) else walk(world, way)
    return found


def arrival(path: Path) -> Seen | None:
    """What a tap should see; None: nothing."""
    last = path.hops[-1]
    if last.where.netns not in HOSTS or last.side != "in":
        return None
    return last.where.netns, last.packet.ends, last.packet.ttl


def alike(seen: Seen | None, said: Seen | None) -> bool:
    """Whether a packet is the one that was said to arrive; a port said to be unknown is any."""
    if seen is None or said is None:
        return seen is said
    if said[1].source_port is None:
        seen = (seen[0], replace(seen[1], source_port=None), seen[2])
    return seen == said


def told(path: Path) -> str:
    steps = " | ".join(
        f"[{hop.where.interface} {hop.side}] " + " | ".join(step.text for step in hop.steps)
        for hop in path.hops
    )
    return f"{path.disposition} {path.cause and path.cause.text} {steps}"


class Trial:
    """Sends frames through the switch and compares what arrives with what was predicted."""

    def __init__(self) -> None:
        subprocess.run(["sh", "-ec", topology()], check=True)
        self.taps = Taps()
        self.switch = open_namespace(named_path("sw"))
        self.states = {state.namespace.name: state for state in collect_all()}
        self.agreed = self.arrived = self.lacking = 0
        self.filtered = "0"

    def world(self) -> World:
        nft = call_in(self.switch, read_nft)
        assert isinstance(nft, Read), nft
        states: list[KernelState] = []
        for name, state in self.states.items():
            quiet = replace(state, conntrack=Read(()), nft=Read(()))
            if name == "sw":
                assert isinstance(state.sysctls, Read)
                switch = {"bridge.bridge-nf-call-iptables": self.filtered,
                          "bridge.bridge-nf-call-ip6tables": self.filtered}  # fmt: skip
                switch = {**state.sysctls.value, **switch}
                states.append(replace(quiet, nft=nft, sysctls=Read(switch)))
            else:
                states.append(replace(quiet, sockets=Missing("any answer will do")))
        return World(states)

    def run(self, dice: random.Random, seed: int) -> None:
        ip = random_ruleset(dice) if dice.random() < 0.5 else "flush ruleset"
        self.filtered = dice.choice("01")
        settings = [f"net.bridge.bridge-nf-call-ip{v}tables={self.filtered}" for v in ("", "6")]
        command = ["ip", "netns", "exec", "sw", "sysctl", "-qw", *settings]
        subprocess.run(command, capture_output=True, check=True)
        text = load_accepted("sw", f"{ip}\n{below_ip(dice)}", tries=30)
        world = self.world()
        for count in range(PACKETS):
            shot = random_shot(dice, seed * PACKETS + count)
            path = self.compare(world, shot, text)
            if path is not None:
                self.compare_answer(world, dice, path, shot.number, text)

    def compare(self, world: World, shot: Shot, text: str) -> Path | None:
        """The way it took; None when it took none, or nobody can say."""
        paths = said_of(world, shot)
        said = [arrival(path) for path in paths]
        seen = self.taps.send(shot, LATE_S if any(said) else SOON_S)
        if any(path.gap is not None and arrival(path) is None for path in paths):
            self.lacking += 1
            return None
        fitting = [path for path, each in zip(paths, said, strict=True) if alike(seen, each)]
        assert fitting, (
            f"{shot}\nseen {seen}\nsaid {[told(p) for p in paths]}\nbr_netfilter {self.filtered}"
            f"\n{text}"
        )
        self.agreed += 1
        self.arrived += seen is not None
        whole = seen is not None and fitting[0].hops[-1].packet.ends == seen[1]
        drawn = shot.packet.protocol is Protocol.ICMP and "fully-random" in text
        return fitting[0] if whole and not drawn else None

    def compare_answer(
        self, world: World, dice: random.Random, path: Path, number: int, text: str
    ) -> None:
        last = path.hops[-1]
        name = str(last.where.netns)
        if name == "ba":
            return
        answer = replace(last.packet.answer(last.packet.length), ttl=64)
        to = MACS["wc"] if name == "bw" else MACS[dice.choice(["ea", "br0"])]
        self.compare(world, Shot(name, to, answer, number), text)


@contextmanager
def trial() -> Iterator[Trial]:
    made = Trial()
    try:
        yield made
    finally:
        made.taps.close()
        os.close(made.switch)


def check(seeds: range) -> Trial:
    with trial() as made:
        for seed in seeds:
            made.run(random.Random(seed), seed)
    return made


def test_rulesets_below_ip_do_what_the_model_says() -> None:
    done = check(range(40))
    assert done.agreed > 250
    assert done.arrived > 100
    assert done.lacking < done.agreed / 10


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_five_hundred_rulesets_below_ip_do_what_the_model_says() -> None:
    done = check(range(1000, 1500))
    assert done.agreed > 2000
    assert done.lacking < done.agreed / 10
