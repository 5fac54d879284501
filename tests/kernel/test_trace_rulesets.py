"""The model of nftables against the kernel: random rule sets, real packets, there and back."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest

from podwire.drivers.collect import collect_all
from podwire.drivers.namespaces import call_in, named_path, open_namespace
from podwire.drivers.rulesets import read_nft
from podwire.model.kernelstate import Missing, Read
from podwire.trace.cursor import Cursor, hop_at
from podwire.trace.flow import Packet, Protocol
from podwire.trace.schema import Direction, Disposition, Path
from podwire.trace.walk import walk
from podwire.trace.world import Port, World
from tests.kernel.trace_packets import Wire, addresses
from tests.kernel.trace_rulesets import load_accepted, random_ruleset

if TYPE_CHECKING:
    from podwire.model.kernelstate import KernelState
    from podwire.trace.connection import Ends

PACKETS = 8
TOPOLOGY = """
ip netns add a; ip netns add r; ip netns add b
ip -n a link add ea type veth peer name wa netns r
ip -n b link add eb type veth peer name wb netns r
for n in a b r; do ip -n $n link set lo up; done
ip -n a link set ea address 02:00:00:00:00:0a up
ip -n b link set eb address 02:00:00:00:00:0b up
ip -n r link set wa address 02:00:00:00:01:0a up
ip -n r link set wb address 02:00:00:00:01:0b up
ip -n r addr add 10.1.0.1/24 dev wa
ip -n r addr add 10.2.0.1/24 dev wb
ip -n r addr add fd01::1/64 dev wa nodad
ip -n r addr add fd02::1/64 dev wb nodad
ip netns exec r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""


def build() -> None:
    lines = [TOPOLOGY]
    for number in range(2, 12):
        lines.append(f"ip -n a addr add 10.1.0.{number}/24 dev ea")
        lines.append(f"ip -n b addr add 10.2.0.{number}/24 dev eb")
        lines.append(f"ip -n a addr add fd01::{number:x}/64 dev ea nodad")
        lines.append(f"ip -n b addr add fd02::{number:x}/64 dev eb nodad")
        for name, far, mac in (("1", "wa", "0a"), ("2", "wb", "0b")):
            for address in (f"10.{name}.0.{number}", f"fd0{name}::{number:x}"):
                lines.append(
                    f"ip -n r neigh replace {address} dev {far} "
                    f"lladdr 02:00:00:00:00:{mac} nud permanent"
                )
    for name, net, far in (("a", "1", "0a"), ("b", "2", "0b")):
        for gateway in (f"10.{net}.0.1", f"fd0{net}::1"):
            lines.append(f"ip -n {name} route add default via {gateway}")
            lines.append(
                f"ip -n {name} neigh replace {gateway} dev e{name} "
                f"lladdr 02:00:00:00:01:{far} nud permanent"
            )
        # Their kernels keep silent: the answers are made here.
        silent = "table inet x { chain x { type filter hook prerouting priority raw; drop; }; }"
        lines.append(f"echo '{silent}' | ip netns exec {name} nft -f -")
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)


def random_packet(dice: random.Random, number: int) -> Packet:
    protocol = dice.choice([Protocol.TCP, Protocol.UDP, Protocol.ICMP])
    ports = protocol is not Protocol.ICMP
    version = dice.choice([4, 4, 4, 6])
    source, destination = addresses(dice, version)
    return Packet(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=20000 + number % 40000 if ports else None,
        destination_port=dice.choice([53, 80, 443, 1000, 1500, 8080]) if ports else None,
        length=60 if version == 4 else 80,
        ttl=dice.choice([3, 20, 64]),
    )


def told(path: Path) -> str:
    steps = " | ".join(step.text for hop in path.hops for step in hop.steps)
    return f"{path.disposition} {path.cause and path.cause.text} {steps}"


def entering(world: World, packet: Packet, name: str) -> Cursor:
    """A packet that comes in at the router."""
    router = next(space for space in world.spaces.values() if space.title == "r")
    link = router.links_by_name[name]
    hop = hop_at(world, Port(space=router, link=link), "in", packet)
    direction = Direction.RETURN if packet.reply else Direction.FORWARD
    return Cursor(space=router, packet=packet, link=link, hops=(hop,), direction=direction)


class Trial:
    """Sends packets through the router and compares what arrives with what was predicted."""

    def __init__(self) -> None:
        build()
        self.descriptors = {name: open_namespace(named_path(name)) for name in "arb"}
        self.wire = Wire(self.descriptors["a"], self.descriptors["b"])
        self.states = {state.namespace.name: state for state in collect_all()}
        self.agreed = self.lacking = 0

    def world(self) -> World:
        nft = call_in(self.descriptors["r"], read_nft)
        assert isinstance(nft, Read)
        states: list[KernelState] = []
        for name, state in self.states.items():
            quiet = replace(state, conntrack=Read(()), nft=Read(()))
            if name == "r":
                states.append(replace(quiet, nft=nft))
            else:
                states.append(replace(quiet, sockets=Missing("any answer will do")))
        return World(states)

    def run(self, dice: random.Random, seed: int) -> None:
        text = load_accepted("r", random_ruleset(dice), tries=20)
        world = self.world()
        for count in range(PACKETS):
            number = seed * PACKETS + count
            packet = random_packet(dice, number)
            paths = walk(world, entering(world, packet, "wa"))
            self.compare(world, packet, paths, number, text)

    def compare(
        self, world: World, packet: Packet, paths: tuple[Path, ...], number: int, text: str
    ) -> None:
        got = self.wire.there(packet, number)
        if any(path.gap is not None and path.arrived is None and not is_socket(path)
               for path in paths):  # fmt: skip
            self.lacking += 1
            return
        allowed = {arrival(path) for path in paths}
        seen = None if got is None else (got.ends, got.ttl)
        assert any(alike(seen, each) for each in allowed), (
            f"{packet}\nseen {seen}\nsaid {[told(p) for p in paths]}\n{text}"
        )
        self.agreed += 1
        if got is None:
            return
        path = next(each for each in paths if alike(seen, arrival(each)))
        if path.hops[-1].packet.ends != got.ends or (
            packet.protocol is Protocol.ICMP and "fully-random" in text
        ):
            return  # a port or identifier was drawn, and the answer would have to carry it
        assert path.arrived is not None or is_socket(path)
        self.compare_answer(world, packet, path, number, text)

    def compare_answer(
        self, world: World, packet: Packet, path: Path, number: int, text: str
    ) -> None:
        last = path.hops[-1]
        if last.where.netns != "b":
            return
        arrived = replace(last.packet)
        answer = replace(arrived.answer(arrived.length), ttl=64)
        paths = walk(world, entering(world, answer, "wb"))
        got = self.wire.back(answer, number)
        if any(each.gap is not None for each in paths if arrival(each) is None):
            self.lacking += 1
            return
        seen = None if got is None else (got.ends, got.ttl)
        allowed = {arrival(each) for each in paths}
        assert seen in allowed, (
            f"answer {answer}\nseen {seen}\nsaid {[told(p) for p in paths]}\n"
            f"request {told(path)}\n{text}"
        )
        self.agreed += 1


def is_socket(path: Path) -> bool:
    """The walk reached a namespace whose sockets were not read on purpose."""
    return path.gap is not None and "sockets" in path.gap.what


Arrived: TypeAlias = "tuple[Ends, int]"


def arrival(path: Path) -> Arrived | None:
    """What the taps should see; None: nothing."""
    if path.reached is None and not is_socket(path):
        return None
    if path.disposition in {Disposition.DENIED, Disposition.REJECTED}:
        return None
    last = path.hops[-1]
    if last.where.netns == "r":
        return None
    return (last.packet.ends, last.packet.ttl)


def alike(seen: Arrived | None, said: Arrived | None) -> bool:
    """Whether a packet is the one that was said to arrive; a port said to be unknown is any."""
    if seen is None or said is None:
        return seen is said
    if said[0].protocol in {"tcp", "udp"} and said[0].source_port is None:
        return (replace(seen[0], source_port=None), seen[1]) == said
    return seen == said


def check(seeds: range) -> Trial:
    trial = Trial()
    try:
        for seed in seeds:
            trial.run(random.Random(seed), seed)
    finally:
        trial.wire.close()
        for descriptor in trial.descriptors.values():
            os.close(descriptor)
    return trial


def test_rulesets_do_what_the_model_says() -> None:
    trial = check(range(50))
    assert trial.agreed > 300
    assert trial.lacking < trial.agreed / 10


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(4))
def test_a_thousand_rulesets_do_what_the_model_says(part: int) -> None:
    trial = check(range(1000 + part * 250, 1000 + (part + 1) * 250))
    assert trial.agreed > 1500
    assert trial.lacking < trial.agreed / 10
