"""The demo as a value: what is shown, in which order, and why one looks at it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.node import Routing
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One of the two pods the demo looks at."""

    title: str
    """`namespace/name`."""
    node: str
    ip: str
    host_interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One thing to look at."""

    title: str
    why: str
    commands: tuple[tuple[str, ...], ...]
    """Arguments of `podwire lab`."""
    essential: bool = False
    """Whether the demo has failed when a command here fails."""


def compute_tour(
    source: Guest, destination: Guest, encapsulation: Encapsulation, routing: Routing
) -> Iterator[Stop]:
    """The stops, once both pods run."""
    yield Stop(
        title="Two pods of one Deployment, on two nodes",
        why="Each has an address of its own out of the block that its node holds.",
        commands=(("pods", "-n", "demo", "-o", "wide"),),
    )
    yield Stop(
        title="A ping from one to the other",
        why="It leaves with ttl=64 and arrives with 62: both nodes have routed it.",
        commands=(("exec", source.title, "--", "ping", "-c", "3", "-i", "0.2", destination.ip),),
        essential=True,
    )
    yield from _routes(source, destination, encapsulation)
    if routing is Routing.BIRD:
        yield _sessions(source)
    yield from _veth(source)
    yield Stop(
        title="The way of the packet, there and back",
        why="Predicted from the kernel's tables, and beside it where a probe was really seen.",
        commands=(("trace", source.title, destination.title),),
    )


def _routes(source: Guest, destination: Guest, encapsulation: Encapsulation) -> Iterator[Stop]:
    yield Stop(
        title="What the pods know",
        why="The same in every pod: everything goes to 169.254.1.1, an address that nobody has.",
        commands=(
            ("exec", source.title, "--", "ip", "route"),
            ("exec", destination.title, "--", "ip", "route"),
        ),
    )
    answers = f"/proc/sys/net/ipv4/conf/{source.host_interface}/proxy_arp"
    yield Stop(
        title="Who answers for 169.254.1.1",
        why="The node, by proxy ARP, with the MAC of the pod's cable: so it gets every packet.",
        commands=(
            ("exec", source.title, "--", "ip", "neigh"),
            ("node", source.node, "--", "cat", answers),
        ),
    )
    way = {
        Encapsulation.IPIP: "through tunl0, which puts the packet into another (IPIP)",
        Encapsulation.VXLAN: "through vxlan.calico, which puts the packet into a UDP packet",
        Encapsulation.NONE: "straight to the node that holds it",
    }[encapsulation]
    yield Stop(
        title=f"The routes of the sender's node, {source.node}",
        why=f"One line a node: its block, {way}. One line a pod of its own: a cali device.",
        commands=(("node", source.node, "--", "ip", "route"),),
    )
    yield Stop(
        title=f"The routes of the receiver's node, {destination.node}",
        why=f"{destination.ip} has a line of its own there, and it leads into the pod.",
        commands=(("node", destination.node, "--", "ip", "route"),),
    )


def _sessions(source: Guest) -> Stop:
    return Stop(
        title="Who told this node of the others' blocks",
        why="BIRD, which every node has: each announces its block to all others by BGP.",
        commands=(
            ("node", source.node, "--", "podwire", "node", "status"),
            ("node", source.node, "--", "podwire", "bgp", "routes"),
        ),
    )


def _veth(pod: Guest) -> Iterator[Stop]:
    index = f"cat /sys/class/net/{pod.host_interface}/ifindex"
    yield Stop(
        title="One cable, two ends, seen in three ways",
        why="eth0 in the pod and cali… on the node are the ends of one veth pair: the number "
        "behind @if is the other end's index, and so is iflink.",
        commands=(
            ("exec", pod.title, "--", "ip", "link", "show", "eth0"),
            ("node", pod.node, "--", "ip", "link", "show", pod.host_interface),
            ("exec", pod.title, "--", "cat", "/sys/class/net/eth0/iflink"),
            ("node", pod.node, "--", "sh", "-c", index),
            ("node", pod.node, "--", "podwire", "veth", "peer", pod.host_interface),
        ),
    )
