"""Which faults are tried in which networks, and what a trace must say of each: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.lab.fault import Place
from podwire.lab.fault_catalogue import FAULTS
from podwire.lab.faults_source import TWIN_VETH
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault import Fault

HEALTHY = "healthy"
"""A request without a fault."""
BY_NAME = {fault.name: fault for fault in FAULTS}
NODES = ("vms100", "vms101")
FIRST, SECOND, AWAY = "demo/first", "demo/second", "demo/away"
PODS = {FIRST: NODES[0], SECOND: NODES[0], AWAY: NODES[1]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A lab of two nodes, and the two pods between which is traced."""

    name: str
    options: tuple[str, ...]
    """Of `podwire lab up`."""
    encapsulation: Encapsulation
    """Between these two pods."""
    destination: str = AWAY
    one_subnet: bool = True

    @property
    def one_node(self) -> bool:
        """Whether both pods live on one node."""
        return PODS[self.destination] == PODS[FIRST]

    @property
    def tunnel(self) -> str:
        """The device by which packets leave for the other node."""
        names = {Encapsulation.VXLAN: "vxlan.calico", Encapsulation.IPIP: "tunl0"}
        return names.get(self.encapsulation, UPLINK)


UPLINK = "ens32"
SAME_NODE = Network(
    name="same-node",
    options=("--encapsulation", "none"),
    encapsulation=Encapsulation.NONE,
    destination=SECOND,
)
NONE = Network(name="none", options=("--encapsulation", "none"), encapsulation=Encapsulation.NONE)
NONE_ROUTED = Network(
    name="none-two-subnets",
    options=("--encapsulation", "none", "--subnets", "2"),
    encapsulation=Encapsulation.NONE,
    one_subnet=False,
)
VXLAN = Network(
    name="vxlan", options=("--encapsulation", "vxlan"), encapsulation=Encapsulation.VXLAN
)
VXLAN_ROUTED = Network(
    name="vxlan-two-subnets",
    options=("--encapsulation", "vxlan", "--subnets", "2"),
    encapsulation=Encapsulation.VXLAN,
    one_subnet=False,
)
IPIP = Network(name="ipip", options=("--encapsulation", "ipip"), encapsulation=Encapsulation.IPIP)
IPIP_ROUTED = Network(
    name="ipip-two-subnets",
    options=("--encapsulation", "ipip", "--subnets", "2"),
    encapsulation=Encapsulation.IPIP,
    one_subnet=False,
)
NETWORKS = (VXLAN, VXLAN_ROUTED, NONE, NONE_ROUTED, SAME_NODE)
IPIP_NETWORKS = (IPIP, IPIP_ROUTED)
BY_TITLE = {network.name: network for network in (*NETWORKS, *IPIP_NETWORKS)}

BLOCKS_AT_THE_ROUTER = frozenset(
    {
        "no-route-to-block",
        "blackhole-covers-pod",
        "unreachable-route",
        "prohibit-route",
        "next-hop-dead",
        "route-loop",
    }
)
"""They change a node's route to a block; without encapsulation two subnets need none."""


def makes_sense(fault: Fault, network: Network) -> bool:
    """Whether a fault can be made between the two pods of a network."""
    if network.one_node:
        return not fault.between_nodes and Encapsulation.NONE in fault.encapsulations
    if fault.same_subnet and not network.one_subnet:
        return False
    plainly_routed = network.encapsulation is Encapsulation.NONE and not network.one_subnet
    if plainly_routed and fault.name in BLOCKS_AT_THE_ROUTER:
        return False
    return network.encapsulation in fault.encapsulations


def cells(network: Network) -> Iterator[str]:
    """The requests for a network: every fault that makes sense, health before and after."""
    yield HEALTHY
    yield from (fault.name for fault in FAULTS if makes_sense(fault, network))


QUICK = frozenset(
    {HEALTHY, "tunnel-down", "next-hop-dead", "strict-rpf", "missing-host-route",
     "tunnel-address-twice"}
)  # fmt: skip
"""With IPIP: what differs there, for a kernel on which each takes many seconds."""
NEED_RULES = frozenset(
    fault.name
    for fault in FAULTS
    if fault.id.startswith("policy.") or fault.name in {"mtu-black-hole", "node-shut-out"}
) - {"wire-drops-tunnel"}
"""What nftables for IPv4 makes; that kernel has it for bridges alone."""


def covering(networks: tuple[Network, ...], times: int) -> frozenset[tuple[str, str]]:
    """Network and request: every fault so often, in the networks that have fewest; and health.

    What is chosen with fewer times is among what is chosen with more. All labs are to be busy
    equally long, and one of them has the faults of `TWO_AT_ONCE` besides.
    """
    beside = {VXLAN.name: 2 * len(TWO_AT_ONCE)}
    chosen: dict[str, list[str]] = {network.name: [HEALTHY] for network in networks}
    for _ in range(times):
        for fault in FAULTS:
            fitting = [
                network.name
                for network in networks
                if makes_sense(fault, network) and fault.name not in chosen[network.name]
            ]
            if fitting:
                busy = {name: len(chosen[name]) + beside.get(name, 0) for name in fitting}
                chosen[min(fitting, key=lambda name: busy[name])].append(fault.name)
    return frozenset((name, request) for name, requests in chosen.items() for request in requests)


TWO_AT_ONCE = (
    ("proxy-arp-off", "egress-policy-reject"),
    ("forwarding-off", "strict-rpf"),
    ("missing-block-route", "ingress-policy-drop"),
    ("fdb-entry-missing", "pod-ignores-ping"),
    ("egress-policy-drop", "no-route-back-in-pod"),
    ("missing-host-route-blackholed", "reply-dropped-by-rule"),
)
"""The one that a packet meets first, and the one behind it."""

LOOK_ALIKES = (
    ("proxy-arp-off", "no-default-route-on-node", "veth-forwarding-off-cold"),
    ("veth-forwarding-off", "forwarding-off", "tunnel-forwarding-off"),
    ("forwarding-off", "unreachable-route"),
    ("blackhole-covers-pod", "missing-host-route-blackholed"),
    ("pod-ignores-ping", "no-route-back-in-pod"),
)
"""Seen from outside they are the same; only the state tells them apart."""

WITHOUT_COMMAND = frozenset({"port-closed", "mtu-too-big"})
"""No command mends them: the sender, or whoever runs the pod, has to do something else."""
LEFT_OVER = {"mtu-black-hole": "mtu.too-big"}
"""What is still there when the fault itself is mended."""
SEVERAL_FIXES = {("no-route-to-block", VXLAN_ROUTED.name), ("no-route-to-block", IPIP_ROUTED.name)}
"""Two things are missing: the block's route, and that of the tunnel's own packets."""

_POD = "pod"
_HOST = "the sender's host veth"
_IN = "link in"
_OUT = "link out"
_TUNNEL = "tunnel"
_INTERFACES = {
    None: ("no-default-route-in-pod", "no-route-back-in-pod"),
    _POD: ("pod-address-missing", "pod-link-down", "port-closed", "pod-ignores-ping"),
    _IN: (
        "route-loop",
        "missing-host-route",
        "missing-host-route-blackholed",
        "tunnel-forwarding-off",
        "ingress-policy-drop",
        "reply-dropped-as-invalid",
        "reply-dropped-by-rule",
    ),
    _OUT: ("mtu-too-big", "mtu-black-hole"),
    _TUNNEL: (
        "tunnel-neighbour-missing",
        "fdb-entry-missing",
        "fdb-wrong-node",
        "vni-differs",
        "tunnel-down",
        "strict-rpf",
    ),
    UPLINK: (
        "host-firewall-drops-tunnel",
        "node-shut-out",
        "next-hop-dead",
        "tunnel-mtu-too-large",
        "asymmetric-strict-rpf",
    ),
    TWIN_VETH: ("duplicate-address",),
}
_ROLE = {name: role for role, names in _INTERFACES.items() for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The two pods' host veths, whose names nobody knows beforehand."""

    source: str
    destination: str


def expected_place(fault: Fault, network: Network, ends: Ends) -> tuple[str, str, str | None]:
    """Node, namespace and interface that a trace must name."""
    here, there = PODS[FIRST], PODS[network.destination]
    role = _ROLE.get(fault.name, _HOST)
    match fault.place:
        case Place.WIRE:
            return ("underlay", "underlay", here if network.one_subnet else "br0")
        case Place.SOURCE_POD:
            return (here, FIRST, "eth0" if role == _POD else None)
        case Place.DESTINATION_POD:
            return (there, network.destination, "eth0" if role == _POD else None)
    node = there if fault.place is Place.DESTINATION_NODE else here
    back = fault.name.startswith("reply-")
    # Between pods of one node the packet comes in by one's cable and leaves by the other's.
    way_in = ends.destination if back else ends.source
    interface = {
        _HOST: ends.source,
        _IN: way_in if network.one_node else network.tunnel,
        _OUT: network.tunnel,
        _TUNNEL: network.tunnel,
    }.get(str(role), role)
    return (node, node, interface)
