"""Healthy networks: predicted and observed are the same everywhere, and nothing is called a fault.

Every way (same node, two nodes, two subnets) with every encapsulation, protocol and size, without
and with a firewall that accepts. IPIP runs where the kernel has it (scripts/with-ipip-kernel).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podwire.cli.trace_live import Wish, trace_live
from podwire.drivers import namespaces
from podwire.trace.flow import Flow, Protocol
from podwire.trace.report import Style, render
from podwire.trace.schema import Direction, Disposition, Result
from tests.kernel.capture_network import back
from tests.kernel.trace_network import DEVICE, MTU, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.trace.schema import Hop, Trace

PORT = 7007
LONG_RUNS = 200
DESTINATIONS = ("web-1", "db-0", "far-0")
FIREWALL = """
table inet gate {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        udp dport 4789 accept
        meta l4proto { 4, icmp } accept
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "cali*" accept
        oifname "cali*" accept
    }
}
"""
TABLES = """
*filter
:INPUT DROP
:FORWARD DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p 4 -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i cali+ -j ACCEPT
-A FORWARD -o cali+ -j ACCEPT
COMMIT
"""
WITHOUT_IPIP = pytest.mark.skipif(
    not Path("/proc/sys/net/ipv4/conf/tunl0").exists(),
    reason="needs a kernel with IPIP (scripts/with-ipip-kernel has one)",
)
ENCAPSULATIONS = ["none", "vxlan", pytest.param("ipip", marks=WITHOUT_IPIP)]


def flows(mtu: int) -> list[Flow]:
    """Every protocol, small and as big as a packet may be."""
    return [
        Flow(protocol=protocol, port=None if protocol is Protocol.ICMP else PORT, size=size)
        for protocol, size in product(Protocol, (None, mtu))
        if protocol in {Protocol.ICMP, Protocol.UDP, Protocol.TCP}
    ]


def way(encapsulation: str, destination: str) -> str:
    """All places from web-0 to another pod."""
    if destination == "web-1":
        return "web-0/eth0:out vms103/caliweb-0:in vms103/caliweb-1:out web-1/eth0:in"
    node, between = {
        "db-0": ("vms105", ""),
        "far-0": ("vms107", "underlay/br0:in underlay/br1:out "),
    }[destination]
    tunnel = DEVICE[encapsulation]
    leave, enter = f"vms103/{tunnel}:out ", f"{node}/{tunnel}:in "
    if encapsulation == "none":
        leave = enter = ""
    return (
        f"web-0/eth0:out vms103/caliweb-0:in {leave}vms103/ens32:out underlay/vms103:in {between}"
        f"underlay/{node}:out {node}/ens32:in {enter}{node}/cali{destination}:out "
        f"{destination}/eth0:in"
    )


def place(hop: Hop) -> str:
    return f"{str(hop.where.netns).rpartition('/')[2]}/{hop.where.interface}:{hop.side}"


def assert_healthy(encapsulation: str, destination: str, flow: Flow) -> None:
    """All of it: the verdict, no fault, every place predicted and seen, in order."""
    trace = trace_live(Wish(source="demo/web-0", destination=f"demo/{destination}", flow=flow))
    text = f"{encapsulation} {flow}\n{render(trace, Style())}"
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, text
    assert trace.confidence == "certain", text
    assert [fault.id for fault in trace.faults] == [], text
    there = way(encapsulation, destination)
    assert ways(trace) == {Direction.FORWARD: there, Direction.RETURN: back(there)}, text
    hops = [hop for path in trace.paths for hop in path.hops]
    assert {hop.result for hop in hops} == {Result.MATCH}, text
    times = [hop.observed.timestamp_ns for hop in hops if hop.observed is not None]
    assert len(times) == len(hops), text
    assert times == sorted(times), text


def ways(trace: Trace) -> dict[Direction, str]:
    return {path.direction: " ".join(place(hop) for hop in path.hops) for path in trace.paths}


@contextmanager
def serving(*pods: str) -> Iterator[None]:
    """In each pod somebody who accepts TCP and sends back what comes by UDP."""

    def listen() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", PORT))
        return socket.create_server(("0.0.0.0", PORT)), udp

    with ExitStack() as running:
        for pod in pods:
            with namespaces.opened(namespaces.named_path(pod)) as descriptor:
                tcp, udp = namespaces.call_in(descriptor, listen)
            running.enter_context(tcp)
            running.enter_context(udp)
            running.enter_context(forked(partial(send_back, udp)))
        yield


def send_back(udp: socket.socket) -> None:
    while True:
        data, peer = udp.recvfrom(65536)
        udp.sendto(data, peer)


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[None]:
    """A process that works until the block ends."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def accept_all(encapsulation: str) -> None:
    """A firewall on every node that lets through what it knows."""
    program, rules = "nft -f -", FIREWALL
    if encapsulation == "ipip":  # user-mode Linux has no nftables for IPv4
        program, rules = "iptables-legacy-restore", TABLES
    for node in ("vms103", "vms105", "vms107"):
        command = ["ip", "netns", "exec", node, *program.split()]
        subprocess.run(command, input=rules, text=True, check=True)


@pytest.mark.parametrize("encapsulation", ENCAPSULATIONS)
def test_a_healthy_network_is_seen_as_predicted(encapsulation: str) -> None:
    build(encapsulation, far=True)
    cells = list(product(DESTINATIONS, flows(MTU[encapsulation])))
    with serving(*DESTINATIONS):
        for destination, flow in cells:
            assert_healthy(encapsulation, destination, flow)
        accept_all(encapsulation)
        for destination, flow in cells:
            assert_healthy(encapsulation, destination, flow)


def burn() -> None:
    while True:
        pass


@pytest.mark.long
@pytest.mark.parametrize("encapsulation", ["none", "vxlan"])
def test_a_busy_machine_changes_nothing(encapsulation: str) -> None:
    """Round-robin through all ways and flows, while every processor is wanted twice."""
    build(encapsulation, far=True)
    accept_all(encapsulation)
    cells = cycle(product(DESTINATIONS, flows(MTU[encapsulation])))
    with serving(*DESTINATIONS), ExitStack() as load:
        for _ in range(2 * (os.cpu_count() or 1)):
            load.enter_context(forked(burn))
        for destination, flow in islice(cells, LONG_RUNS):
            assert_healthy(encapsulation, destination, flow)
