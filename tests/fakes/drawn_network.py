"""A network drawn by hand as KernelStates: namespaces, cables, addresses, routes; no kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from podwire.model.kernelstate import KernelState, NamespaceRef, Read
from podwire.model.link import HOST_MAC, Address, Link, VXLANSettings
from podwire.model.overlay import NUD_PERMANENT, FDBEntry, Neighbour
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
    from podwire.model.addressing import IPNetwork

RULES = (
    Rule(family=4, priority=0, table=255),
    Rule(family=4, priority=32766, table=254),
    Rule(family=4, priority=32767, table=253),
)
SWITCHES = ("forwarding", "rp_filter", "proxy_arp")


@dataclass
class Drawn:
    """One namespace that is being drawn."""

    inode: int
    name: str
    node: str | None = None
    root: bool = False
    links: dict[str, Link] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=lambda: list(RULES))
    neighbours: list[Neighbour] = field(default_factory=list)
    fdb: list[FDBEntry] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    netns_ids: dict[int, int] = field(default_factory=dict)
    nft: list[dict[str, object]] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    missing: dict[str, object] = field(default_factory=dict)
    """Sections to replace at the end."""

    def __post_init__(self) -> None:
        self.sysctls["ipv4.ip_forward"] = "0"
        for name in SWITCHES:
            self.sysctls[f"ipv4.conf/all/{name}"] = "0"
        self.add(Link(index=1, name="lo", mtu=65536, up=True, carrier=True, loopback=True))
        self.address("lo", "127.0.0.1/8", scope=254)

    def add(self, link: Link) -> Link:
        self.links[link.name] = link
        for name in SWITCHES:
            forward = name == "forwarding" and self.sysctls["ipv4.ip_forward"] == "1"
            self.sysctls.setdefault(f"ipv4.conf/{link.name}/{name}", "1" if forward else "0")
        self.sysctls.setdefault(f"ipv4.neigh/{link.name}/proxy_delay", "0")
        return link

    def change(self, name: str, **fields: object) -> None:
        self.links[name] = replace(self.links[name], **fields)  # type: ignore[arg-type]

    def forward(self) -> None:
        self.sysctls["ipv4.ip_forward"] = "1"
        for name in ("all", *self.links):
            self.sysctls[f"ipv4.conf/{name}/forwarding"] = "1"

    def switch(self, link: str, name: str, value: int) -> None:
        self.sysctls[f"ipv4.conf/{link}/{name}"] = str(value)

    def address(self, link: str, text: str, scope: int = 0) -> None:
        interface = ip_interface(text)
        index = self.links[link].index
        self.addresses.append(Address(device=index, interface=interface, scope=scope))
        kernel = {"protocol": PROTOCOL_KERNEL, "hops": (NextHop(device=index),)}
        one = ip_network(f"{interface.ip}/32")
        self.routes.append(
            Route(
                key=RouteKey(destination=one, table=LOCAL_TABLE),
                kind=RouteKind.LOCAL,
                scope=254,
                source=interface.ip,
                **kernel,  # type: ignore[arg-type]
            )
        )
        if interface.network.prefixlen < 32 and link != "lo":
            self.routes.append(
                Route(
                    key=RouteKey(destination=interface.network),
                    scope=253,
                    source=interface.ip,
                    **kernel,  # type: ignore[arg-type]
                )
            )

    def route(
        self,
        destination: str,
        *,
        via: str | None = None,
        dev: str | None = None,
        kind: RouteKind = RouteKind.UNICAST,
        table: int = MAIN_TABLE,
        onlink: bool = False,
        metric: int = 0,
        protocol: int = 80,
    ) -> None:
        gateway = None if via is None else ip_address(via)
        hops: tuple[NextHop, ...] = ()
        if dev is not None:
            hops = (NextHop(device=self.links[dev].index, gateway=gateway, onlink=onlink),)
        key = RouteKey(destination=_network(destination), table=table, metric=metric)
        scope = 253 if via is None else 0
        self.routes.append(Route(key=key, kind=kind, hops=hops, scope=scope, protocol=protocol))

    def unroute(self, destination: str) -> None:
        network = _network(destination)
        before = len(self.routes)
        self.routes = [
            each
            for each in self.routes
            if (each.key.destination, each.key.table) != (network, MAIN_TABLE)
        ]
        assert len(self.routes) < before, destination

    def neighbour(self, link: str, address: str, mac: str, state: int = NUD_PERMANENT) -> None:
        index = self.links[link].index
        self.neighbours.append(
            Neighbour(device=index, address=ip_address(address), mac=mac, state=state)
        )

    def state(self) -> KernelState:
        state = KernelState(
            namespace=NamespaceRef(
                inode=self.inode,
                name=None if self.root else self.name,
                node=self.node,
                root=self.root,
            ),
            links=Read(tuple(self.links.values())),
            addresses=Read(tuple(self.addresses)),
            routes=Read(tuple(self.routes)),
            rules=Read(tuple(self.rules)),
            neighbours=Read(tuple(self.neighbours)),
            fdb=Read(tuple(self.fdb)),
            sysctls=Read(dict(self.sysctls)),
            netns_ids=Read(dict(self.netns_ids)),
            nft=Read(tuple(self.nft)),
            iptables_legacy=Read(""),
            qdiscs=Read(()),
            sockets=Read(tuple(self.sockets)),
        )
        return replace(state, **self.missing)  # type: ignore[arg-type]


class Network:
    """Namespaces and the cables between them."""

    def __init__(self) -> None:
        self.drawn: dict[str, Drawn] = {}
        self._macs = 0

    def __getitem__(self, name: str) -> Drawn:
        return self.drawn[name]

    def states(self) -> tuple[KernelState, ...]:
        return tuple(each.state() for each in self.drawn.values())

    def namespace(self, name: str, *, forward: bool = False, root: bool = False) -> Drawn:
        inode = 4026531840 + len(self.drawn)
        made = Drawn(inode=inode, name=name, node=name if root else None, root=root)
        if forward:
            made.forward()
        self.drawn[name] = made
        return made

    def mac(self) -> str:
        self._macs += 1
        return f"02:00:00:00:00:{self._macs:02x}"

    def cable(self, near: Drawn, name: str, far: Drawn, peer: str, mtu: int = 1500) -> None:
        """A veth pair, both ends up; namespaces learn a number for each other."""
        for drawn, other in ((near, far), (far, near)):
            if other.inode not in drawn.netns_ids.values():
                drawn.netns_ids[len(drawn.netns_ids)] = other.inode
        indexes = (len(near.links) + 1, len(far.links) + 1)
        for place, (drawn, own, other) in enumerate(((near, name, far), (far, peer, near))):
            numbers = {inode: number for number, inode in drawn.netns_ids.items()}
            drawn.add(
                Link(
                    index=indexes[place],
                    name=own,
                    mtu=mtu,
                    up=True,
                    carrier=True,
                    kind="veth",
                    mac=self.mac(),
                    peer_index=indexes[1 - place],
                    peer_netnsid=numbers[other.inode],
                    operstate="up",
                )
            )

    def bridge(self, drawn: Drawn, name: str, *ports: str) -> None:
        index = len(drawn.links) + 1
        drawn.add(
            Link(
                index=index, name=name, mtu=1500, up=True, carrier=True, kind="bridge",
                mac=self.mac(),
            )
        )  # fmt: skip
        for port in ports:
            drawn.change(port, master=index)

    def pod(self, node: Drawn, title: str, address: str, mtu: int = 1450) -> Drawn:
        """A pod as the CNI plugin makes it."""
        name = title.partition("/")[2]
        pod = self.namespace(name)
        host = f"cali{name}"
        self.cable(node, host, pod, "eth0", mtu)
        node.change(host, mac=HOST_MAC, alias=f"podwire id{name} {title} eth0")
        node.switch(host, "proxy_arp", 1)
        node.switch(host, "rp_filter", 1)
        node.route(f"{address}/32", dev=host)
        node.neighbour(host, address, str(pod.links["eth0"].mac))
        pod.address("eth0", f"{address}/32")
        pod.route("169.254.1.1/32", dev="eth0", protocol=3)
        pod.route("0.0.0.0/0", via="169.254.1.1", dev="eth0", protocol=3)
        return pod

    def vxlan(self, drawn: Drawn, local: str, tunnel: str, vni: int = 4096) -> None:
        drawn.add(
            Link(
                index=len(drawn.links) + 1, name="vxlan.calico", mtu=1450, up=True, carrier=True,
                kind="vxlan", mac=self.mac(),
                vxlan=VXLANSettings(vni=vni, port=4789, local=ip_address(local), learning=False),
            )
        )  # fmt: skip
        drawn.address("vxlan.calico", f"{tunnel}/32")

    def ipip(self, drawn: Drawn, tunnel: str) -> None:
        drawn.add(
            Link(index=len(drawn.links) + 1, name="tunl0", mtu=1480, up=True, carrier=True,
                 kind="ipip")
        )  # fmt: skip
        drawn.address("tunl0", f"{tunnel}/32")


def _network(text: str) -> IPNetwork:
    return ip_network(text)


NODES = {
    "vms103": ("192.168.26.103", "10.244.38.128"),
    "vms105": ("192.168.26.105", "10.244.169.64"),
}


def story(encapsulation: str = "vxlan") -> Network:
    """Two nodes on one switch with a gateway; web-0 and web-1 on vms103, db-0 on vms105."""
    network = Network()
    wire = network.namespace("underlay", forward=True)
    for name, (address, tunnel) in NODES.items():
        node = network.namespace(name, forward=True)
        network.cable(node, "ens32", wire, name)
        node.address("ens32", f"{address}/24")
        node.route("0.0.0.0/0", via="192.168.26.2", dev="ens32", protocol=3)
        node.route(f"{tunnel}/26", kind=RouteKind.BLACKHOLE)
        if encapsulation == "vxlan":
            network.vxlan(node, address, tunnel)
        if encapsulation == "ipip":
            network.ipip(node, tunnel)
    network.bridge(wire, "br0", *NODES)
    wire.address("br0", "192.168.26.2/24")
    for name in NODES:
        _block_routes(network, name, encapsulation)
    mtu = {"vxlan": 1450, "ipip": 1480}.get(encapsulation, 1500)
    network.pod(network["vms103"], "demo/web-0", "10.244.38.174", mtu)
    network.pod(network["vms103"], "demo/web-1", "10.244.38.175", mtu)
    network.pod(network["vms105"], "demo/db-0", "10.244.169.66", mtu)
    return network


def _block_routes(network: Network, name: str, encapsulation: str) -> None:
    node = network[name]
    for other, (address, tunnel) in NODES.items():
        if other == name:
            continue
        block = f"{tunnel}/26"
        if encapsulation == "vxlan":
            mac = str(network[other].links["vxlan.calico"].mac)
            node.route(block, via=tunnel, dev="vxlan.calico", onlink=True)
            node.neighbour("vxlan.calico", tunnel, mac)
            node.fdb.append(
                FDBEntry(
                    device=node.links["vxlan.calico"].index,
                    mac=mac,
                    destination=ip_address(address),
                    own=True,
                )
            )
        elif encapsulation == "ipip":
            node.route(block, via=address, dev="tunl0", onlink=True)
        else:
            node.route(block, via=address, dev="ens32")
