"""What must be known of a lab to break it and to undo that exactly: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

from podwire.errors import Rejected
from podwire.model.link import IPIP_DEVICE, VXLAN_DEVICE
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUTE_STATE = frozenset({"linkdown", "dead", "offload", "trap", "offload_failed"})
"""Words `ip route` prints but does not take."""
_KINDS = frozenset({"blackhole", "unreachable", "prohibit", "throw", "local", "unicast"})


class Impossible(Rejected):
    """The fault cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A network device."""

    name: str
    index: int
    mtu: int
    mac: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of a tunnel, as `ip -d -j link` says them."""
    addresses: tuple[str, ...] = ()
    """IPv4, with prefix length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The state of one namespace, in the words of `ip`, `bridge` and `sysctl`."""

    place: str
    """Node, `namespace/pod`, or the underlay."""
    routes: tuple[str, ...] = ()
    """Main table, IPv4."""
    neighbours: tuple[str, ...] = ()
    """The permanent ones, IPv4."""
    fdb: tuple[str, ...] = ()
    """Of the VXLAN device, without its name."""
    devices: Mapping[str, Device] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Written with slashes, from `net/` on."""

    def route_to(self, destination: str) -> str | None:
        """The line of the route to exactly this prefix (an address for a /32)."""
        return next((line for line in self.routes if prefix_of(line) == destination), None)

    def block_route(self, address: IPv4Address) -> str | None:
        """The longest route that covers an address, single hosts and the default left aside."""
        covering = [
            (network.prefixlen, line)
            for line in self.routes
            if (network := network_of(line)) is not None
            and 0 < network.prefixlen < 32
            and address in network
        ]
        return max(covering)[1] if covering else None

    def block_route_of(self, other: End) -> str:
        """The same, for a pod that must be covered.

        Raises:
            Impossible: nothing covers it.
        """
        line = self.block_route(other.ip)
        if line is None:
            raise Impossible(f"{self.place} has no route to the block of {other.pod} ({other.ip})")
        return line

    def routes_by(self, device: str) -> tuple[str, ...]:
        """Routes that leave by a device; the kernel's own come and go with its addresses."""
        return tuple(
            line
            for line in self.routes
            if f" dev {device} " in f"{line} " and " proto kernel " not in f"{line} "
        )

    def neighbours_on(self, device: str) -> tuple[str, ...]:
        """Permanent neighbours on a device."""
        return tuple(line for line in self.neighbours if f" dev {device} " in f"{line} ")

    def neighbour(self, address: str, device: str) -> str | None:
        """The permanent entry for an address."""
        wanted = f"{address} dev {device} "
        return next((line for line in self.neighbours if line.startswith(wanted)), None)

    def device(self, name: str) -> Device:
        """The device of that name.

        Raises:
            Impossible: there is none.
        """
        if name not in self.devices:
            raise Impossible(f"{self.place} has no device {name}")
        return self.devices[name]

    def sysctl(self, name: str) -> str:
        """Value of a setting.

        Raises:
            Impossible: this kernel does not have it.
        """
        if name not in self.sysctls:
            raise Impossible(f"{self.place} has no setting {name}")
        return self.sysctls[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of the way: a pod, and how it hangs on its node."""

    pod: str
    """`namespace/name`."""
    node: str
    ip: IPv4Address
    interface: str
    host_interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that recipes for faults look at."""

    encapsulation: Encapsulation
    """Between these two nodes; with CrossSubnet others may differ."""
    source: End
    destination: End
    kernels: Mapping[str, Kernel]
    """By place: both pods, both nodes."""
    addresses: Mapping[str, IPv4Interface]
    """Of the nodes, by name."""
    uplink: str
    """The device by which a node is on the wire."""
    programs: frozenset[str] = frozenset()
    """Optional programs that are installed."""

    @property
    def source_pod(self) -> Kernel:
        """The namespace of the source."""
        return self.kernels[self.source.pod]

    @property
    def source_node(self) -> Kernel:
        """That of its node."""
        return self.kernels[self.source.node]

    @property
    def destination_pod(self) -> Kernel:
        """The namespace of the destination."""
        return self.kernels[self.destination.pod]

    @property
    def destination_node(self) -> Kernel:
        """That of its node."""
        return self.kernels[self.destination.node]

    @property
    def pod_mtu(self) -> int:
        """What the source may send, in bytes."""
        return self.source_pod.device(self.source.interface).mtu

    @property
    def uplink_mtu(self) -> int:
        """What the wire takes, in bytes."""
        return self.source_node.device(self.uplink).mtu

    @property
    def same_subnet(self) -> bool:
        """Whether both nodes are on one subnet."""
        one, other = self.addresses[self.source.node], self.addresses[self.destination.node]
        return one.network == other.network

    @property
    def tunnel(self) -> str:
        """The device by which pods of one node reach those of another."""
        names = {Encapsulation.VXLAN: VXLAN_DEVICE, Encapsulation.IPIP: IPIP_DEVICE}
        return names.get(self.encapsulation, self.uplink)

    def tunnel_address(self, node: str) -> str:
        """Address of a node's tunnel device.

        Raises:
            Impossible: it has none yet.
        """
        addresses = self.kernels[node].device(self.tunnel).addresses
        if not addresses:
            raise Impossible(f"{self.tunnel} of {node} has no address")
        return addresses[0].partition("/")[0]


def clean_route(line: str) -> str:
    """A line of `ip route` as `ip route add` takes it."""
    return " ".join(word for word in line.split() if word not in ROUTE_STATE)


def prefix_of(line: str) -> str:
    """Destination of a route, as `ip route` writes it: an address for a single host."""
    words = line.split()
    return words[1] if words[0] in _KINDS else words[0]


def network_of(line: str) -> IPv4Network | None:
    """The same as a network; None for what is none."""
    prefix = prefix_of(line)
    try:
        return IPv4Network("0.0.0.0/0" if prefix == "default" else prefix)
    except ValueError:
        return None
