"""The FIB model against the kernel itself: random routes, rules, switches, many lookups."""

from __future__ import annotations

import os
import random
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.collect import collect
from podwire.drivers.namespaces import current_namespace, inode_of
from podwire.errors import KernelError
from podwire.model.kernelstate import NamespaceRef
from podwire.model.route import RouteKind
from podwire.trace import fib
from podwire.trace.fib import Query
from podwire.trace.intake import Refusal, route_input
from podwire.trace.space import Space

if TYPE_CHECKING:
    from podwire.drivers.netlink.session import Session
    from podwire.model.route import Route

LINKS = ("v0", "v1", "v2")
LOOKUPS = 300
KINDS = ("", "", "", "", "blackhole", "unreachable", "prohibit", "throw")


def batch(lines: list[str]) -> None:
    """Commands for `ip -batch`; what the kernel refuses (doubles) is left out."""
    subprocess.run(
        ["ip", "-force", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True,
        check=False,
    )  # fmt: skip


def build(dice: random.Random, *, rules: bool) -> None:
    lines = ["link set lo up"]
    for number, name in enumerate(LINKS):
        lines += [
            f"link add {name} type veth peer name p{number}",
            f"link set {name} up",
            f"link set p{number} up",
        ]
    # v2 stays without an address: rp_filter treats such a link in its own way.
    lines += ["addr add 10.0.0.1/24 dev v0", "addr add 10.0.1.1/24 dev v1"]
    tables = [254, 254, 77, 88] if rules else [254]
    for _ in range(60):
        lines.append(random_route(dice, dice.choice(tables)))
    lines += ["route add 10.1.0.0/16 nexthop dev v0 nexthop dev v1"]
    if rules:
        for _ in range(8):
            lines.append(random_rule(dice))
    batch(lines)


ROUTES = (0, 8, 14, 16, 20, 24, 26, 30, 32)
RULES = (15, 16, 17, 18, 20, 24)


def random_network(dice: random.Random, lengths: tuple[int, ...] = ROUTES) -> IPv4Network:
    address = int(IPv4Address("10.0.0.0")) + dice.randrange(1 << 18)
    return IPv4Network((address, dice.choice(lengths)), strict=False)


def random_route(dice: random.Random, table: int) -> str:
    kind = dice.choice(KINDS)
    way = "" if kind else f"dev {dice.choice(LINKS)}"
    if not kind and dice.random() < 0.3:
        way = "via 10.0.0.254 dev v0"
    metric = dice.choice([0, 0, 10, 20])
    return f"route add {kind} {random_network(dice)} {way} metric {metric} table {table}"


def random_rule(dice: random.Random) -> str:
    words = [f"rule add priority {dice.randrange(1, 30000)}"]
    if dice.random() < 0.2:
        words.append("not")
    words.append(f"to {random_network(dice, RULES)}")
    if dice.random() < 0.4:
        words.append(f"from {random_network(dice, RULES)}")
    if dice.random() < 0.3:
        words.append(f"iif {dice.choice(LINKS)}")
    action = dice.choice(["table 77", "table 88", "table 88", "table 254", "prohibit"])
    if action.startswith("table") and dice.random() < 0.2:
        action += " suppress_prefixlength 8"
    return " ".join([*words, action])


def read_space() -> Space:
    descriptor = current_namespace()
    try:
        state = collect(descriptor, NamespaceRef(inode=inode_of(descriptor)), {})
    finally:
        os.close(descriptor)
    return Space(state)


def destinations(dice: random.Random) -> list[IPv4Address]:
    base = IPv4Address("10.0.0.0")
    own = [IPv4Address("10.0.0.1"), IPv4Address("10.0.1.1")]
    found = [base + dice.randrange(1 << 18) for _ in range(LOOKUPS)]
    return found + own + [base + dice.randrange(1 << 9) for _ in range(LOOKUPS // 10)]


@pytest.mark.parametrize("rules", [False, True], ids=["plain", "rules"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_model_finds_what_the_kernel_finds(session: Session, seed: int, rules: bool) -> None:
    dice = random.Random(seed)
    build(dice, rules=rules)
    space = read_space()
    checked = 0
    for destination in destinations(dice):
        decision = fib.lookup(space, Query(destination=destination))
        try:
            real = session.lookup(destination, entry=True)
        except KernelError:
            assert decision.kind not in {RouteKind.UNICAST, RouteKind.LOCAL}, (
                destination,
                decision,
            )
            continue
        assert decision.route is not None, (destination, real)
        if decision.kind is RouteKind.BROADCAST:
            continue
        assert decision.kind is real.kind, (destination, real)
        assert decision.route.key.destination == real.key.destination, (destination, real)
        if decision.kind is RouteKind.UNICAST:
            # The trie that holds local and main as one calls all of it main.
            assert decision.route.key.table == real.key.table, (destination, real)
        assert decision.route.key.metric == real.key.metric, (destination, real)
        checked += 1
    assert checked > LOOKUPS / 10


REFUSED = {
    "forwarding-off": {113},
    "unreachable": {113},
    "no-route": {101},
    "blackhole": {22},
    "prohibit": {13},
    "rpf": {18, 22},
    "own-source": {18, 22},
    "martian": {18, 22},
}
"""errno of RTM_GETROUTE for an incoming packet; 18 is EXDEV, 22 EINVAL."""


@pytest.mark.parametrize("rules", [False, True], ids=["plain", "rules"])
@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("forwarding", [True, False])
def test_incoming_packets_are_judged_as_the_kernel_does(
    session: Session, rp_filter: int, forwarding: bool, rules: bool
) -> None:
    dice = random.Random(rp_filter * 2 + forwarding)
    build(dice, rules=rules)
    Path("/proc/sys/net/ipv4/ip_forward").write_text(str(int(forwarding)))
    for name in LINKS:
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text(str(rp_filter))
    space = read_space()
    answers: set[str] = set()
    for destination in destinations(dice):
        link = space.links_by_name[dice.choice(LINKS)]
        source = dice.choice(
            [
                IPv4Address("10.0.0.9"),
                IPv4Address("10.0.0.1"),
                IPv4Address("192.0.2.9"),
                destination + 7,
            ]
        )
        predicted = route_input(space, link, source, destination)
        code = predicted.code if isinstance(predicted, Refusal) else str(predicted.kind)
        answers.add(code)
        real = ask_kernel(session, destination, source, link.index)
        place = (source, destination, link.name, real, predicted)
        if isinstance(real, int):
            assert isinstance(predicted, Refusal), place
            assert real in REFUSED[code], place
            continue
        assert not isinstance(predicted, Refusal), place
        if predicted.kind is RouteKind.UNICAST:
            assert predicted.route is not None
            assert predicted.route.key.destination == real.key.destination, place
    assert len(answers) > 1


def ask_kernel(
    session: Session, destination: IPv4Address, source: IPv4Address, iif: int
) -> Route | int:
    """The FIB entry, or the errno."""
    try:
        return session.lookup(destination, source=source, iif=iif, entry=True)
    except KernelError as error:
        return error.errno
