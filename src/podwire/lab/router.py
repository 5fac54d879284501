"""Router: a real one in front of the nodes, of another make: its configuration as text, pure.

FRR and BIRD write the routes they learn into the kernel; GoBGP does not, so that somebody has to
copy them (`lab.tor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Network
    from pathlib import Path

ROUTER_AS = 65000
NODES_AS = 64512
HOLD_S, KEEPALIVE_S = 9, 3
RESTART_S = 120
"""How long its peers keep its routes while it restarts (RFC 4724)."""
GOBGP_PORT = 50051
"""Where gobgpd takes commands, on the loopback of its namespace."""


class Make(StrEnum):
    """Who made it."""

    FRR = "frr"
    GOBGP = "gobgp"
    BIRD = "bird"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPeer:
    """One session of the router's."""

    address: IPv4Address
    as_number: int
    password: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What the router is to do."""

    make: Make
    router_id: IPv4Address
    as_number: int = ROUTER_AS
    peers: tuple[RouterPeer, ...] = ()
    networks: tuple[IPv4Network, ...] = ()
    """What it announces: networks of its own."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the router: its name, which is that of its program, and its words."""

    name: str
    words: tuple[str, ...]


def files(router: Router) -> dict[str, str]:
    """The router's configuration files, by name."""
    match router.make:
        case Make.FRR:
            return {"zebra.conf": "log stdout\n", "bgpd.conf": _text(_frr(router))}
        case Make.GOBGP:
            return {"gobgpd.toml": _text(_gobgp(router))}
        case Make.BIRD:
            return {"bird.conf": _text(_bird(router))}


def programs(router: Router, folder: Path) -> tuple[Program, ...]:
    """The router's processes; their files, sockets and process ids are in `folder`."""
    match router.make:
        case Make.FRR:
            return tuple(_frr_program(name, folder) for name in ("zebra", "bgpd"))
        case Make.GOBGP:
            return (
                Program(
                    "gobgpd",
                    (
                        *("-f", str(folder / "gobgpd.toml"), "--log-plain"),
                        *("--api-hosts", f"127.0.0.1:{GOBGP_PORT}"),
                    ),
                ),
            )
        case Make.BIRD:
            paths = ("-c", str(folder / "bird.conf"), "-s", str(folder / "bird.ctl"))
            return (Program("bird", ("-f", *paths, "-P", str(folder / "bird.pid"))),)


def _frr_program(name: str, folder: Path) -> Program:
    # Without -u and -g it would change to a user that only the installed package makes.
    return Program(
        name,
        (
            *("-u", "root", "-g", "root", "-f", str(folder / f"{name}.conf")),
            *("-z", str(folder / "zserv.api"), "--vty_socket", str(folder)),
            *("-i", str(folder / f"{name}.pid"), "-P", "0"),
        ),
    )


def _frr(router: Router) -> Iterator[str]:
    yield "log stdout"
    yield f"router bgp {router.as_number}"
    yield f" bgp router-id {router.router_id}"
    # RFC 8212 would have it refuse everything until somebody writes a policy.
    yield " no bgp ebgp-requires-policy"
    yield " no bgp network import-check"
    # No `bgp graceful-restart`: it keeps the routes of a peer that restarts anyway; with that line
    # it calls itself restarting for two minutes after its start, and of such a one BIRD expects
    # no patience.
    yield f" timers bgp {KEEPALIVE_S} {HOLD_S}"
    for peer in router.peers:
        yield f" neighbor {peer.address} remote-as {peer.as_number}"
        yield f" neighbor {peer.address} timers connect 2"
        if peer.password is not None:
            yield f" neighbor {peer.address} password {peer.password}"
    yield " address-family ipv4 unicast"
    yield "  maximum-paths 16"
    for network in router.networks:
        yield f"  network {network}"
    yield " exit-address-family"


def _gobgp(router: Router) -> Iterator[str]:
    yield "[global.config]"
    yield f"  as = {router.as_number}"
    yield f'  router-id = "{router.router_id}"'
    for peer in router.peers:
        yield "[[neighbors]]"
        yield "  [neighbors.config]"
        yield f'    neighbor-address = "{peer.address}"'
        yield f"    peer-as = {peer.as_number}"
        if peer.password is not None:
            yield f'    auth-password = "{peer.password}"'
        yield "  [neighbors.timers.config]"
        yield f"    hold-time = {HOLD_S}"
        yield f"    keepalive-interval = {KEEPALIVE_S}"
        yield "    connect-retry = 2"
        yield "  [neighbors.graceful-restart.config]"
        yield "    enabled = true"
        yield f"    restart-time = {RESTART_S}"
        yield "  [[neighbors.afi-safis]]"
        yield "    [neighbors.afi-safis.config]"
        yield '      afi-safi-name = "ipv4-unicast"'
        yield "    [neighbors.afi-safis.mp-graceful-restart.config]"
        yield "      enabled = true"


def _bird(router: Router) -> Iterator[str]:
    yield "log stderr all;"
    yield f"router id {router.router_id};"
    yield "protocol device { scan time 2; }"
    yield 'protocol direct { ipv4; interface "*"; }'
    yield "protocol kernel {"
    yield "  scan time 2; merge paths on; graceful restart; persist;"
    yield "  ipv4 { export where source = RTS_BGP; };"
    yield "}"
    yield "protocol static own {"
    yield "  ipv4;"
    for network in router.networks:
        yield f"  route {network} blackhole;"
    yield "}"
    for number, peer in enumerate(router.peers):
        yield f"protocol bgp peer{number} {{"
        yield f"  local as {router.as_number}; neighbor {peer.address} as {peer.as_number};"
        yield f"  hold time {HOLD_S}; keepalive time {KEEPALIVE_S}; graceful restart on;"
        yield f"  graceful restart time {RESTART_S};"
        yield "  connect delay time 1; connect retry time 2; error wait time 1, 5;"
        if peer.password is not None:
            yield f'  password "{peer.password}";'
        own = 'proto = "own"'
        # Nodes tell each other of their blocks themselves, over the mesh.
        yield f"  ipv4 {{ import all; export where {own}; }};"
        yield "}"


def _text(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"
