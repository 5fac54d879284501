"""The FIB model against RTM_GETROUTE: random tables, rules and switches of both families."""

from __future__ import annotations

import os
import random
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.collect import collect
from podwire.drivers.lookup import ask_kernels
from podwire.drivers.namespaces import current_namespace, inode_of
from podwire.model.kernelstate import NamespaceRef
from podwire.model.route import RouteKind
from podwire.trace import fib, intake
from podwire.trace.fib import Query
from podwire.trace.flow import Packet, Protocol
from podwire.trace.intake import Refusal
from podwire.trace.kernelanswer import agrees
from podwire.trace.schema import Lookup
from podwire.trace.space import Space

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress

LINKS = ("v0", "v1", "v2")
KINDS = ("", "", "", "", "", "blackhole", "unreachable", "prohibit", "throw")
TABLES = (254, 254, 254, 77, 88)
BASES = {4: int(ip_address("10.0.0.0")), 6: int(ip_address("fd00::"))}
LENGTHS = {4: (0, 8, 14, 16, 20, 24, 26, 30, 32), 6: (0, 16, 110, 112, 116, 120, 122, 126, 128)}
LOOKUPS = 100
"""Of each family, of packets made here and of packets that come in: 400 a world."""


def build(dice: random.Random, *, rules: bool) -> None:
    lines = ["link set lo up"]
    for number, name in enumerate(LINKS):
        lines += [
            f"link add {name} type veth peer name p{number}",
            f"link set {name} up",
            f"link set p{number} up",
        ]
    for number in (0, 1):
        lines.append(f"addr add 10.0.{number}.1/24 dev v{number}")
        lines.append(f"addr add fd00::{number}:1/112 dev v{number} nodad")
    if dice.random() < 0.5:
        lines.append(f"nexthop add id 9 via 10.0.0.200 dev v0\nnexthop add id 8 dev {LINKS[1]}")
        lines.append("nexthop add id 7 group 9/8,3")
        lines.append("route add 10.2.0.0/16 nhid 7")
        lines.append("route add 10.3.0.0/16 nhid 9")
    for version in (4, 6):
        lines += [random_route(dice, version, rules) for _ in range(50)]
        if rules:
            lines += [random_rule(dice, version) for _ in range(8)]
    lines += [
        "route add 10.1.0.0/16 nexthop dev v0 nexthop dev v1",
        "route add fd00::3:0/112 nexthop via fd00::5 dev v0 nexthop via fd00::1:5 dev v1",
    ]
    subprocess.run(
        ["ip", "-force", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    if dice.random() < 0.3:
        subprocess.run(["ip", "link", "set", dice.choice(LINKS), "down"], check=True)


def near(dice: random.Random, version: int) -> IPAddress:
    return ip_address(BASES[version] + dice.randrange(1 << 18))


def network(dice: random.Random, version: int, lengths: tuple[int, ...] | None = None) -> str:
    length = dice.choice(lengths or LENGTHS[version])
    return str(ip_network((near(dice, version), length), strict=False))


def random_route(dice: random.Random, version: int, rules: bool) -> str:
    kind = dice.choice(KINDS)
    way = "" if kind else f"dev {dice.choice(LINKS)}"
    if not kind and dice.random() < 0.3:
        way = "via 10.0.0.254 dev v0" if version == 4 else "via fd00::fe dev v0"
    table = dice.choice(TABLES) if rules else 254
    metric = f"metric {dice.choice([10, 20, 30])}" if dice.random() < 0.6 else ""
    tos = "tos 0x10" if version == 4 and dice.random() < 0.05 else ""
    where = network(dice, version)
    return f"-{version} route add {kind} {tos} {where} {way} table {table} {metric}"


def random_rule(dice: random.Random, version: int) -> str:
    lengths = tuple(each for each in LENGTHS[version] if each > 14)
    words = [f"-{version} rule add priority {dice.randrange(1, 30000)}"]
    if dice.random() < 0.2:
        words.append("not")
    if dice.random() < 0.7:
        words.append(f"to {network(dice, version, lengths)}")
    if dice.random() < 0.3:
        words.append(f"from {network(dice, version, lengths)}")
    if dice.random() < 0.3:
        words.append(f"iif {dice.choice([*LINKS, 'lo'])}")
    if dice.random() < 0.3:
        words.append(f"fwmark {dice.choice(['1', '0x2/0x2', '0x4/0xff'])}")
    if dice.random() < 0.2:
        words.append(
            dice.choice(["ipproto tcp", "ipproto udp dport 53", "ipproto tcp sport 1000-3000"])
        )
    action = dice.choice(["table 77", "table 88", "table 88", "table 254", "prohibit", "blackhole",
                          "unreachable"])  # fmt: skip
    if action.startswith("table") and dice.random() < 0.2:
        action += f" suppress_prefixlength {8 if version == 4 else 112}"
    return " ".join([*words, action])


def write(name: str, value: int) -> None:
    Path(f"/proc/sys/net/{name}").write_text(str(int(value)))


def switches(dice: random.Random) -> None:
    write("ipv4/ip_forward", dice.random() < 0.8)
    write("ipv6/conf/all/forwarding", dice.random() < 0.8)
    for name in ("all", *LINKS):
        write(f"ipv4/conf/{name}/rp_filter", dice.choice([0, 0, 1, 2]))
    for name in LINKS:
        if dice.random() < 0.2:
            write(f"ipv4/conf/{name}/forwarding", 0)
        write(f"ipv4/conf/{name}/src_valid_mark", dice.random() < 0.3)


def read_space() -> Space:
    descriptor = current_namespace()
    try:
        return Space(collect(descriptor, NamespaceRef(inode=inode_of(descriptor)), {}))
    finally:
        os.close(descriptor)


def random_packet(dice: random.Random, version: int, source: IPAddress) -> Packet:
    protocol = dice.choice([Protocol.TCP, Protocol.UDP, Protocol.ICMP])
    ports = protocol is not Protocol.ICMP
    # The namespace's own addresses as well: they stay its own when their link goes down.
    own = ip_address(BASES[version] + dice.choice([1, 0x101 if version == 4 else 0x10001]))
    return Packet(
        source=source,
        destination=own if dice.random() < 0.1 else near(dice, version),
        protocol=protocol,
        source_port=dice.choice([2000, 40000]) if ports else None,
        destination_port=dice.choice([53, 80]) if ports else None,
        mark=dice.choice([0, 0, 1, 2, 4, 6]),
    )


def made_here(dice: random.Random, space: Space, version: int) -> Lookup:
    own = ip_address("10.0.0.1" if version == 4 else "fd00::1")
    packet = random_packet(dice, version, own)
    source = own if dice.random() < 0.5 and space.link_with(own) is not None else None
    query = fib.with_packet(Query(destination=packet.destination, source=source), packet)
    return Lookup(inode=space.inode, hop=0, query=query, iif=None, answer=fib.lookup(space, query))


def coming_in(dice: random.Random, space: Space, version: int) -> Lookup:
    link = space.links_by_name[dice.choice([each for each in LINKS if up(space, each)])]
    prefix = "10.0.0." if version == 4 else "fd00::"
    source = dice.choice([ip_address(f"{prefix}9"), ip_address(f"{prefix}1"), near(dice, version)])
    packet = random_packet(dice, version, source)
    query = intake.input_query(link, source, packet.destination, packet)
    answer = intake.route_input(space, link, source, packet.destination, packet)
    return Lookup(inode=space.inode, hop=0, query=query, iif=link.index, answer=answer)


def up(space: Space, name: str) -> bool:
    return space.links_by_name[name].up


def skipped(lookup: Lookup) -> bool:
    """Broadcast and the networks' own numbers: no probe is sent there."""
    answer = lookup.answer
    kind = answer.decision and answer.decision.kind if isinstance(answer, Refusal) else answer.kind
    return kind in {RouteKind.BROADCAST, RouteKind.ANYCAST, RouteKind.MULTICAST}


def check(seed: int) -> int:
    dice = random.Random(seed)
    rules = bool(seed % 2)
    build(dice, rules=rules)
    switches(dice)
    space = read_space()
    lookups = [
        make(dice, space, version)
        for version in (4, 6)
        for make in (made_here, coming_in)
        for _ in range(LOOKUPS)
    ]
    compared = 0
    for lookup, kernel in ask_kernels(lookups):
        assert kernel.unasked is None, kernel
        if skipped(lookup):
            continue
        merged = space.has_default_rules_only(4)
        assert agrees(lookup.answer, kernel, merged), f"{lookup}\n{kernel}"
        compared += 1
    return compared


@pytest.mark.parametrize("seed", range(4))
def test_the_model_routes_as_the_kernel_does(seed: int) -> None:
    assert check(seed) > 250


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 130))
def test_the_model_routes_ten_thousand_packets_as_the_kernel_does(seed: int) -> None:
    assert check(seed) > 250
