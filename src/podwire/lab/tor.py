"""Tor: the router of another make in front of a lab's nodes, as processes of the lab."""

from __future__ import annotations

import json
import os
import subprocess
import time
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from podwire.drivers.bird.program import find_program
from podwire.drivers.frr import add_users
from podwire.drivers.netlink import requests
from podwire.drivers.netlink.session import Session
from podwire.errors import Unsupported
from podwire.lab.entry import enter_place, execute, rename_process
from podwire.lab.keeper import redirect
from podwire.lab.router import GOBGP_PORT, NODES_AS, Make, Router, RouterPeer, files, programs
from podwire.lab.state import STATE
from podwire.lab.topology import OUTSIDE_HOST, UNDERLAY, gateway_of
from podwire.model.route import NextHop, Route, RouteKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.lab.router import Program
    from podwire.lab.topology import Topology

FOLDER = STATE / "tor"
PROTOCOL_BGP = 186
"""RTPROT_BGP of linux/rtnetlink.h, as FRR stamps its routes."""
LOOK_EVERY_S = 1.0
NEEDED = {Make.FRR: ("zebra", "bgpd"), Make.GOBGP: ("gobgpd", "gobgp"), Make.BIRD: ("bird",)}


def require_router(make: Make) -> None:
    """See that the router's programs are here.

    Raises:
        Unsupported: one is not; names it.
    """
    for name in NEEDED[make]:
        if find_program(name) is None:
            raise Unsupported(
                f"--tor {make} needs {name}, which is not here",
                fix=f"install the package of {make}, or bring it along with scripts/setup test",
            )


def router_of(topology: Topology) -> Router:
    """What the router is to do."""
    assert topology.tor is not None
    return Router(
        make=topology.tor,
        router_id=gateway_of(topology.networks[0]).ip,
        peers=tuple(
            RouterPeer(address=node.address.ip, as_number=NODES_AS) for node in topology.nodes
        ),
        networks=(OUTSIDE_HOST.network,),
    )


def works(topology: Topology) -> Iterator[tuple[str, Callable[[], int]]]:
    """Writes the router's files; its processes by name, for the keeper to run."""
    router = router_of(topology)
    FOLDER.mkdir()
    for name, text in files(router).items():
        (FOLDER / name).write_text(text)
    for program in programs(router, FOLDER):
        yield f"tor {program.name}", lambda program=program: _run(program, router.make)  # type: ignore[misc]
    if router.make is Make.GOBGP:
        yield "tor copy", lambda: _copy(router)


def explain(topology: Topology) -> Iterator[str]:
    """What a person would type."""
    router = router_of(topology)
    yield f"\n# {router.make} in front of the nodes, AS {router.as_number}; files in {FOLDER}"
    for program in programs(router, FOLDER):
        yield f"ip netns exec {UNDERLAY} {program.name} {' '.join(program.words)} &"
    if router.make is Make.GOBGP:
        yield "# gobgpd writes no routes into the kernel: the lab copies what it has learnt"


def _run(program: Program, make: Make) -> int:
    redirect(FOLDER / f"{program.name}.log")
    enter_place(f"/run/netns/{UNDERLAY}", UNDERLAY, keep_names=True)
    if make is Make.FRR:
        add_users(FOLDER)
    path = find_program(program.name)
    assert path is not None
    return execute([path, *program.words], dict(os.environ))


def _copy(router: Router) -> int:
    """Announce the router's networks, and keep the kernel's routes as gobgpd's RIB has them."""
    redirect(FOLDER / "copy.log")
    rename_process("tor copy")
    enter_place(f"/run/netns/{UNDERLAY}", UNDERLAY, keep_names=True)
    for network in router.networks:
        if _gobgp("global", "rib", "add", str(network), "-a", "ipv4").returncode:
            return 1  # it is not up yet; the keeper runs us again
    written: dict[IPv4Network, Route] = {}
    with Session.open() as session:
        while True:
            wanted = {
                network: route_to(network, gateway, session)
                for network, gateway in parse_rib(_gobgp("global", "rib", "-j").stdout).items()
            }
            news = [route for route in wanted.values() if route not in written.values()]
            session.apply([requests.replace_route(route) for route in news])
            gone = [route for network, route in written.items() if network not in wanted]
            session.apply([requests.delete_route(route) for route in gone])
            written = wanted
            time.sleep(LOOK_EVERY_S)


def parse_rib(text: str) -> dict[IPv4Network, IPv4Address]:
    """Destination → next hop of the best paths that `gobgp global rib -j` shows."""
    if not text.strip().startswith("{"):
        return {}
    found: dict[IPv4Network, IPv4Address] = {}
    for prefix, paths in json.loads(text).items():
        best: dict[str, Any] = next((one for one in paths if one.get("best")), paths[0])
        hops = [one["nexthop"] for one in best["attrs"] if "nexthop" in one]
        if hops and hops[0] != "0.0.0.0":  # noqa: S104  # its own networks
            found[IPv4Network(prefix)] = IPv4Address(hops[0])
    return found


def route_to(network: IPv4Network, gateway: IPv4Address, session: Session) -> Route:
    """The kernel's route for a path; the device is that of the route to its next hop."""
    device = session.lookup(gateway).hops[0].device
    return Route(
        key=RouteKey(destination=network),
        protocol=PROTOCOL_BGP,
        hops=(NextHop(device=device, gateway=gateway),),
    )


def _gobgp(*words: str) -> subprocess.CompletedProcess[str]:
    program = find_program("gobgp")
    assert program is not None
    return subprocess.run(
        [program, "-u", "127.0.0.1", "-p", str(GOBGP_PORT), *words],
        capture_output=True,
        text=True,
        check=False,
    )
