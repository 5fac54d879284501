"""A bundle of 50 nodes with 100 pods each: how long it takes to write and to load."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from bench.measure import Comparison
from podwire.drivers.bundle import Facts, read_bundle, write_bundle
from podwire.drivers.procfiles import PER_LINK, WHOLE
from podwire.model.addressing import POD_GATEWAY
from podwire.model.kernelstate import KernelState, NamespaceRef, Read
from podwire.model.link import HOST_MAC, Address, Link
from podwire.model.overlay import Neighbour, vtep_mac
from podwire.model.route import (
    LOCAL_TABLE,
    MAIN_TABLE,
    PROTOCOL_KERNEL,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
    Rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from podwire.model.addressing import IPNetwork

NODES = 50
PODS = 100
FACTS = Facts(podwire="bench", host="bench", kernel="6.18", time_ns=1)
RULES = tuple(
    Rule(family=4, priority=priority, table=table, protocol=PROTOCOL_KERNEL)
    for priority, table in ((0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, 253))
)
LO = Link(index=1, name="lo", mtu=65536, up=True, carrier=True, loopback=True)


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """Seconds; and the file's size."""
    states = tuple(cluster())
    times = Comparison(title=f"bundle of {NODES} nodes with {PODS} pods", unit="s")
    size = Comparison(title="its size", unit="MB")
    path = folder / "bundle.tgz"
    for _ in range(rounds):
        start = time.perf_counter()
        write_bundle(path, states, FACTS)
        written = time.perf_counter()
        bundle = read_bundle(path)
        times.add("write", written - start)
        times.add("load", time.perf_counter() - written)
        assert len(bundle.states) == len(states)
    assert bundle.states == states
    size.add("compressed", path.stat().st_size / 1e6)
    return [times, size]


def cluster() -> Iterator[KernelState]:
    for node in range(NODES):
        yield node_state(node)
        for pod in range(PODS):
            yield pod_state(node, pod)


def pod_address(node: int, pod: int) -> IPv4Address:
    return IPv4Address("10.244.0.0") + node * 128 + pod + 1


def inode(node: int, pod: int = -1) -> int:
    return 4_026_532_000 + node * 1000 + pod


def node_state(node: int) -> KernelState:
    own = IPv4Address("192.168.0.1") + node
    links = [LO, Link(index=2, name="eth0", mtu=1500, up=True, carrier=True, mac=vtep_mac("e"))]
    routes = [route("0.0.0.0/0", 2, gateway=IPv4Address("192.168.255.254"))]
    for other in range(NODES):
        block = f"{pod_address(other, -1)}/25"
        routes.append(route(block, 2, gateway=IPv4Address("192.168.0.1") + other))
    addresses = [Address(device=2, interface=IPv4Interface(f"{own}/16"))]
    neighbours = []
    for pod in range(PODS):
        links.append(host_veth(node, pod))
        address = pod_address(node, pod)
        routes.append(route(f"{address}/32", pod + 3))
        neighbours.append(Neighbour(device=pod + 3, address=address, mac=vtep_mac(str(address))))
    return KernelState(
        namespace=NamespaceRef(inode=inode(node), node=f"node-{node}", root=True),
        netns_ids=Read({pod: inode(node, pod) for pod in range(PODS)}),
        addresses=Read(tuple(addresses)),
        neighbours=Read(tuple(neighbours)),
        **shared(links, routes),  # type: ignore[arg-type]  # sections by name
    )


def pod_state(node: int, pod: int) -> KernelState:
    address = pod_address(node, pod)
    eth0 = Link(
        index=2, name="eth0", mtu=1450, up=True, carrier=True, kind="veth", peer_index=pod + 3,
        peer_netnsid=0, mac=vtep_mac(str(address)), operstate="up",
    )  # fmt: skip
    local = [
        route(f"{each}/32", device, table=LOCAL_TABLE, kind=RouteKind.LOCAL)
        for each, device in ((address, 2), ("127.0.0.1", 1))
    ]
    routes = [route("0.0.0.0/0", 2, gateway=POD_GATEWAY), route(f"{POD_GATEWAY}/32", 2), *local]
    return KernelState(
        namespace=NamespaceRef(
            inode=inode(node, pod), node=f"node-{node}", pod=f"bench/pod-{node}-{pod}"
        ),
        netns_ids=Read({0: inode(node)}),
        addresses=Read((Address(device=2, interface=IPv4Interface(f"{address}/32")),)),
        neighbours=Read((Neighbour(device=2, address=POD_GATEWAY, mac=HOST_MAC, state=4),)),
        **shared([LO, eth0], routes),  # type: ignore[arg-type]  # sections by name
    )


def shared(links: list[Link], routes: list[Route]) -> dict[str, object]:
    """The sections that nodes and pods have alike."""
    return {
        "links": Read(tuple(links)),
        "routes": Read(tuple(routes)),
        "rules": Read(RULES),
        "sysctls": Read(dict(sysctls(link.name for link in links))),
        "fdb": Read(()),
        "nft": Read(()),
        "iptables_legacy": Read(""),
        "sockets": Read(("tcp 0.0.0.0 5432",)),
        "qdiscs": Read(()),
    }


def sysctls(links: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in WHOLE:
        yield f"ipv4.{name}", "1"
    for link in ("all", "default", *links):
        for name in PER_LINK:
            yield f"ipv4.conf/{link}/{name}", "0"


def host_veth(node: int, pod: int) -> Link:
    return Link(
        index=pod + 3, name=f"cali{node:05}{pod:06}", mtu=1450, up=True, carrier=True, kind="veth",
        mac=HOST_MAC, alias=f"podwire id{pod} bench/pod-{node}-{pod} eth0", peer_index=2,
        peer_netnsid=pod, operstate="up",
    )  # fmt: skip


def route(
    network: str,
    device: int,
    *,
    gateway: IPv4Address | None = None,
    table: int = MAIN_TABLE,
    kind: RouteKind = RouteKind.UNICAST,
) -> Route:
    destination: IPNetwork = IPv4Network(network)
    return Route(
        key=RouteKey(destination=destination, table=table),
        kind=kind,
        hops=(NextHop(device=device, gateway=gateway),),
    )
