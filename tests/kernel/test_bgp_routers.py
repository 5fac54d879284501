"""Routers of other makes as peers: they learn the blocks and only those, and miss no restart.

pod 10.244.1.5 ─ here (reflector, AS 64512) ─ switch ┬ outside (eBGP, password): 198.51.100.0/24
                                                     ├ inside (iBGP, client of the reflector)
                                                     └ node-2 (a BIRD of ours, client, one block)
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.desired.bgp import Advertisement, BirdConfig, BirdPeer, BirdPool, PeerType
from podwire.desired.bgptext import render
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import observe
from podwire.drivers.bird.program import find_program
from podwire.drivers.frr import add_users, ask_frr
from podwire.lab.router import GOBGP_PORT, Make, Router, RouterPeer, files, programs
from podwire.model.bgp import Community, SecretKey
from podwire.model.bgpfilter import BGPFilter, FilterAction, FilterRule, MatchOperator, PrefixMatch
from podwire.model.pool import Mode
from podwire.model.resource import Metadata
from tests.fakes.awaiting import wait_until
from tests.kernel.agent_cluster import run, until
from tests.kernel.bird_pair import Bird, require_bird

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

HERE, NODE_2, OUTSIDE, INSIDE = (IPv4Address(f"10.0.0.{n}") for n in (1, 2, 11, 12))
BEHIND = IPv4Network("198.51.100.0/24")
HIDDEN = IPv4Network("203.0.113.0/24")
BLOCKS = {"10.244.1.0/26", "10.244.2.0/26"}
SECRET = SecretKey(name="bgp", key="outside")
PASSWORDS = {SECRET: "correct-horse"}
FRR_CHILDHOOD_S = 121.0
COMMUNITY = Community((64512, 77))

NOT_HIDDEN = BGPFilter(
    metadata=Metadata(name="not-hidden"),
    import4=(
        FilterRule(
            action=FilterAction.REJECT,
            prefix=PrefixMatch(cidr=HIDDEN, operator=MatchOperator.IN),
        ),
    ),
)


def to_peer(address: IPv4Address, as_number: int, **fields: object) -> BirdPeer:
    peer = BirdPeer(
        protocol=f"peer_{int(address)}",
        type=PeerType.GLOBAL,
        name=f"router-{address}",
        address=address,
        as_number=as_number,
        local_as=64512,
        source=HERE,
    )
    return replace(peer, **fields)  # type: ignore[arg-type]


REFLECTOR = BirdConfig(
    node="here",
    router_id=HERE,
    address=IPv4Interface(f"{HERE}/24"),
    as_number=64512,
    cluster_id=IPv4Address("224.0.0.1"),
    pools=(BirdPool(cidr=ip_network("10.244.0.0/16"), mode=Mode.NEVER),),
    advertisements=(Advertisement(cidr=ip_network("10.244.1.0/24"), communities=(COMMUNITY,)),),
    filters=(NOT_HIDDEN,),
    peers=(
        to_peer(NODE_2, 64512, client=True),
        to_peer(OUTSIDE, 65000, password=SECRET, filters=("not-hidden",)),
        to_peer(INSIDE, 64512, client=True),
    ),
)
CLIENT = replace(
    REFLECTOR,
    node="node-2",
    router_id=NODE_2,
    address=IPv4Interface(f"{NODE_2}/24"),
    cluster_id=None,
    advertisements=(),
    filters=(),
    peers=(replace(to_peer(HERE, 64512), source=NODE_2),),
)


@dataclass
class Foreign:
    """A router of another make in a namespace of its own."""

    make: Make
    name: str
    folder: Path

    @property
    def frr_socket(self) -> Path:
        return self.folder / "bgpd.vty"

    def start(self, router: Router) -> list[subprocess.Popen[bytes]]:
        self.folder.mkdir()
        for name, text in files(router).items():
            (self.folder / name).write_text(text)
        started = []
        for program in programs(router, self.folder):
            path = find_program(program.name)
            assert path is not None
            with (self.folder / f"{program.name}.log").open("wb") as log:
                words = ["ip", "netns", "exec", self.name, path, *program.words]
                started.append(subprocess.Popen(words, stdout=log, stderr=log))
        return started

    def gobgp(self, *words: str) -> str:
        program = find_program("gobgp")
        assert program is not None
        command = (program, "-u", "127.0.0.1", "-p", str(GOBGP_PORT), *words)
        return run("ip", "netns", "exec", self.name, *command, check=False)

    def announce(self, *networks: object) -> None:
        """What FRR reads from its file GoBGP is told."""
        if self.make is Make.GOBGP:
            for network in networks:
                until("gobgpd", lambda: "Peer" in self.gobgp("neighbor"))
                self.gobgp("global", "rib", "add", str(network), "-a", "ipv4")

    def rib(self) -> dict[str, str]:
        """What it has learnt: prefix → communities as text."""
        if self.make is Make.GOBGP:
            return self._rib_of_gobgp()
        if not self.frr_socket.exists():
            return {}
        shown = json.loads(ask_frr(self.frr_socket, "show bgp ipv4 unicast json detail"))
        return {
            prefix: str(path.get("community", {}).get("string", ""))
            for prefix, found in shown.get("routes", {}).items()
            for path in (found["paths"] if isinstance(found, dict) else found)
            if "local" not in path.get("peer", {}).get("type", "local")
        }

    def _rib_of_gobgp(self) -> dict[str, str]:
        text = self.gobgp("global", "rib", "-j")
        if not text.strip().startswith("{"):
            return {}
        found = {}
        for prefix, paths in json.loads(text).items():
            [path] = paths[:1]
            if path.get("neighbor-ip") or path.get("source-id"):
                values = [
                    f"{each >> 16}:{each & 0xFFFF}"
                    for one in path["attrs"]
                    for each in one.get("communities", ())
                ]
                found[prefix] = " ".join(values)
        return found

    def log(self) -> str:
        return "".join(one.read_text() for one in self.folder.glob("*.log"))


def require_routers() -> None:
    require_bird()
    missing = [name for name in ("zebra", "bgpd", "gobgpd", "gobgp") if find_program(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: scripts/setup test brings them along")


def build_network() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "link", "set", "switch", "up")
    run("ip", "addr", "add", f"{HERE}/24", "dev", "switch")
    for netns, address in (("outside", OUTSIDE), ("inside", INSIDE), ("node-2", NODE_2)):
        run("ip", "netns", "add", netns)
        run("ip", "link", "add", netns, "type", "veth", "peer", "name", "ens32", "netns", netns)
        run("ip", "link", "set", netns, "master", "switch", "up")
        run("ip", "-n", netns, "link", "set", "lo", "up")
        run("ip", "-n", netns, "link", "set", "ens32", "up")
        run("ip", "-n", netns, "addr", "add", f"{address}/24", "dev", "ens32")
    run("ip", "-n", "outside", "addr", "add", "198.51.100.1/32", "dev", "lo")
    # The pod, and what the agent writes for it; its /32 is nobody else's business.
    run("ip", "netns", "add", "pod")
    run("ip", "link", "add", "cali0", "type", "veth", "peer", "name", "eth0", "netns", "pod")
    run("ip", "link", "set", "cali0", "up")
    run("ip", "-n", "pod", "link", "set", "eth0", "up")
    run("ip", "-n", "pod", "addr", "add", "10.244.1.5/32", "dev", "eth0")
    run("ip", "-n", "pod", "route", "add", "169.254.1.1", "dev", "eth0")
    run("ip", "-n", "pod", "route", "add", "default", "via", "169.254.1.1")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.cali0.proxy_arp=1")
    run("ip", "route", "add", "169.254.1.1", "dev", "switch", "scope", "link", "proto", "80")
    run("ip", "route", "add", "10.244.1.5", "dev", "cali0", "scope", "link", "proto", "80")
    run("ip", "route", "add", "blackhole", "10.244.1.0/26", "proto", "80")
    run("ip", "-n", "node-2", "route", "add", "blackhole", "10.244.2.0/26", "proto", "80")


@pytest.fixture(params=[(Make.FRR, Make.GOBGP), (Make.GOBGP, Make.FRR)], ids="-".join)
def network(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Bird, Foreign, Foreign]]:
    """Our reflector, and the two others around it."""
    require_routers()
    build_network()
    add_users(tmp_path)
    outer, inner = (
        Foreign(make, name, tmp_path / name)
        for make, name in zip(request.param, ("outside", "inside"), strict=True)
    )
    with ExitStack() as stack:
        ours, second = Bird(tmp_path, "here"), Bird(tmp_path, "node-2", "node-2")
        for bird in (ours, second):
            stack.callback(bird.end)
        for router, peer, networks in (
            (
                outer,
                RouterPeer(address=HERE, as_number=64512, password=PASSWORDS[SECRET]),
                (BEHIND, HIDDEN),
            ),
            (inner, RouterPeer(address=HERE, as_number=64512), ()),
        ):
            value = Router(
                make=router.make,
                router_id=OUTSIDE if router is outer else INSIDE,
                as_number=65000 if router is outer else 64512,
                peers=(peer,),
                networks=networks,
            )
            for process in router.start(value):
                stack.callback(process.wait)
                stack.callback(process.kill)
            router.announce(*networks)
        second.start(render(CLIENT, {}))
        ours.start(render(REFLECTOR, PASSWORDS))
        yield ours, outer, inner


def test_they_learn_the_blocks_and_only_those_and_miss_no_restart(
    network: tuple[Bird, Foreign, Foreign],
) -> None:
    ours, outer, inner = network

    def everything() -> str:
        return "\n".join((ours.log(), str(outer.rib()), str(inner.rib()), outer.log(), inner.log()))

    for router in (outer, inner):
        until(f"{router.make} to learn", lambda: set(router.rib()) >= BLOCKS, everything)  # noqa: B023
    assert set(outer.rib()) - {str(BEHIND), str(HIDDEN)} == BLOCKS
    assert set(inner.rib()) == BLOCKS
    for router in (outer, inner):
        assert "64512:77" in router.rib()["10.244.1.0/26"]
        assert "64512:77" not in router.rib()["10.244.2.0/26"]
    until(
        "the network behind the router",
        lambda: "198.51.100.0/24 via 10.0.0.11" in run("ip", "route"),
        everything,
    )
    assert str(HIDDEN) not in run("ip", "route")
    if outer.make is Make.FRR:
        # What the reflector tells of leads to the node that holds it, not to the reflector.
        until("its route", lambda: f"via {NODE_2} " in run("ip", "-n", "outside", "route"))
    if outer.make is Make.GOBGP:
        # It writes no kernel routes.
        run("ip", "-n", "outside", "route", "add", "10.244.1.0/26", "via", str(HERE))
    # A router writes into its kernel a moment after it has learnt.
    ping = ("ip", "netns", "exec", "pod", "ping", "-c", "1", "-W", "1", "198.51.100.1")
    until(
        "the pod to get through", lambda: " 0% packet loss" in run(*ping, check=False), everything
    )
    gobgp = outer if outer.make is Make.GOBGP else inner
    crash(ours)

    def back() -> bool:
        # Kept all the time, while it looked for us.
        assert set(gobgp.rib()) >= BLOCKS
        return settled(ours)

    until("all to come back", back, everything)
    for router in (outer, inner):
        until(f"{router.make} to know all", lambda: set(router.rib()) >= BLOCKS, everything)  # noqa: B023


@pytest.mark.long
@pytest.mark.timeout(300)
def test_frr_misses_no_restart(network: tuple[Bird, Foreign, Foreign]) -> None:
    """In its first two minutes FRR calls itself restarting, and BIRD expects no patience of it."""
    ours, outer, inner = network
    frr = outer if outer.make is Make.FRR else inner
    until("FRR to learn", lambda: set(frr.rib()) >= BLOCKS, ours.log)
    grown_up = time.monotonic() + FRR_CHILDHOOD_S
    wait_until(lambda: time.monotonic() > grown_up, timeout_s=FRR_CHILDHOOD_S + 9)
    # It says so only when a session begins.
    with Control.open(str(ours.socket)) as control:
        control.do("restart all")
    until("FRR to learn again", lambda: settled(ours) and set(frr.rib()) >= BLOCKS, ours.log)
    with subprocess.Popen(
        ["ip", "-n", frr.name, "monitor", "route"], stdout=subprocess.PIPE, text=True
    ) as monitor:
        crash(ours)
        until("all to come back", lambda: settled(ours), ours.log)
        monitor.terminate()
        assert monitor.stdout is not None
        assert "Deleted 10.244." not in monitor.stdout.read()


def crash(bird: Bird) -> None:
    bird.send(signal.SIGKILL)
    bird.processes[-1].wait()
    bird.start(bird.config.read_text())


def settled(bird: Bird) -> bool:
    """Whether every session is back, and nothing waits for another any more."""
    with Control.open(str(bird.socket)) as control:
        view = observe(control)
    return not view.daemon.recovering and all(one.established for one in view.sessions.values())
