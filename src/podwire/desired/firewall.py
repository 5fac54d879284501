"""What this node's tables of nftables should hold, as values. Pure.

Pods reach the world with the node's address; a pod sends with its own address only; tunnels take
packets from nodes only. `nfttables` says it in nft's words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import TYPE_CHECKING

from podwire.errors import PodwireError
from podwire.model.addressing import host_network, parse_interface
from podwire.model.felix import settings_for
from podwire.model.link import INTERFACE_PREFIX
from podwire.model.nftelement import Element
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.node import Node
    from podwire.model.snapshot import Snapshot

NODES, ALLOWED_SOURCES, SENDERS, PODS = "nodes", "allowed-sources", "senders", "pods"
"""Sets whose elements come and go one by one."""
FROM_POD = "from-pod"
"""The chain that what pods send passes."""
_POD_INTERFACE = re.compile(rf"{INTERFACE_PREFIX}[\w.-]{{1,11}}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """What decides every rule; the nodes' and pods' own elements apart."""

    pools: tuple[IPv4Network, ...] = ()
    """Pods' addresses: between them nothing is ever translated."""
    masqueraded: tuple[IPv4Network, ...] = ()
    """Pools with natOutgoing."""
    external_nodes: tuple[IPv4Network, ...] = ()
    """Whom tunnels take packets from besides the nodes."""
    tunnels: frozenset[Encapsulation] = frozenset()
    """Which tunnels this node has, so that what comes in by them concerns us."""
    tunnels_from_pods: frozenset[Encapsulation] = frozenset()
    """Which of them pods may send to nodes."""
    spoofing: bool = False
    """Whether pods may send from the prefixes allowed to them besides their addresses."""


def firewall(snapshot: Snapshot, node: str) -> Firewall:
    """Decide for one node."""
    pools = snapshot.pools.values()
    felix = settings_for(node, snapshot.felix)
    from_pods = {
        Encapsulation.VXLAN: felix.vxlan_from_pods,
        Encapsulation.IPIP: felix.ipip_from_pods,
    }
    return Firewall(
        pools=_fewest(pool.cidr for pool in pools),
        masqueraded=_fewest(pool.cidr for pool in pools if pool.nat_outgoing),
        external_nodes=_fewest(felix.external_nodes or ()),
        tunnels=frozenset(pool.encapsulation for pool in pools) - {Encapsulation.NONE},
        tunnels_from_pods=frozenset(kind for kind, may in from_pods.items() if may),
        spoofing=bool(felix.source_spoofing),
    )


def of_node(node: Node) -> frozenset[Element]:
    """The addresses a node may send tunnelled packets from: its own, and others it is listed with.

    IPIP takes the address that the route to us prefers, which need not be the first one.
    """
    return frozenset(
        Element(family="ip", set=NODES, network=host_network(address))
        for address in _addresses(node)
        if address.version == 4
    )


def _addresses(node: Node) -> Iterator[IPAddress]:
    if node.address is not None:
        yield node.address.ip
    listed = (node.wire.get("spec") or {}).get("addresses")
    for entry in listed if isinstance(listed, list | tuple) else ():
        try:
            yield parse_interface(str(entry["address"])).ip
        except (PodwireError, KeyError, TypeError):
            continue  # a host's name is listed, too


def of_endpoint(endpoint: WorkloadEndpoint, *, spoofing: bool) -> frozenset[Element]:
    """Whom a pod may say it is: in ARP its addresses with its MAC, in IP what is allowed besides.

    Its addresses themselves need no element there: the route to them is asked.
    """
    name, mac = endpoint.interface, endpoint.mac.lower()
    if not (_POD_INTERFACE.fullmatch(name) and _MAC.fullmatch(mac)):
        return frozenset()  # made by hand, or by a program that gives other names
    allowed = endpoint.allowed_source_prefixes if spoofing else ()
    own = (host_network(interface.ip) for interface in endpoint.addresses)
    senders = [network for network in (*own, *allowed) if network.version == 4]
    if not senders:
        return frozenset()
    return frozenset(
        (
            *(
                Element(
                    family="ip" if prefix.version == 4 else "ip6",
                    set=ALLOWED_SOURCES,
                    interface=name,
                    network=prefix,
                )
                for prefix in collapsed(allowed)
            ),
            *(
                Element(family="arp", set=SENDERS, interface=name, network=network, mac=mac)
                for network in collapsed(senders)
            ),
            Element(family="arp", set=PODS, interface=name, goto=FROM_POD),
        )
    )


def collapsed(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Both families without overlaps, which a set of ranges would refuse."""
    networks = tuple(networks)
    four = collapse_addresses(n for n in networks if n.version == 4)
    six = collapse_addresses(n for n in networks if n.version == 6)
    return (*four, *six)


def _fewest(networks: Iterable[IPNetwork]) -> tuple[IPv4Network, ...]:
    return tuple(n for n in collapsed(networks) if isinstance(n, IPv4Network))
