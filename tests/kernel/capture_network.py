"""The network of two nodes, opened for observing."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.capture.observe import new_series, observe
from podwire.trace.flow import Flow
from podwire.trace.observation import OTHERHOST, Role
from tests.kernel.trace_network import NODES, PODS, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.drivers.capture.observe import Limits
    from podwire.trace.observation import Observation, Spot

WAY = {
    "none": "web-0/eth0:out vms103/caliweb-0:in vms103/ens32:out underlay/vms103:in "
    "underlay/vms105:out vms105/ens32:in vms105/calidb-0:out db-0/eth0:in",
    "vxlan": "web-0/eth0:out vms103/caliweb-0:in vms103/vxlan.calico:out vms103/ens32:out "
    "underlay/vms103:in underlay/vms105:out vms105/ens32:in vms105/vxlan.calico:in "
    "vms105/calidb-0:out db-0/eth0:in",
    "local": "web-0/eth0:out vms103/caliweb-0:in vms103/caliweb-1:out web-1/eth0:in",
}
"""Places from web-0 to db-0, and to web-1 on the same node."""
TURNED = {"in": "out", "out": "in"}


def back(way: str) -> str:
    """The way of the answer: the same places from behind."""
    places = [each.split(":") for each in reversed(way.split())]
    return " ".join(f"{place}:{TURNED[side]}" for place, side in places)


@dataclass
class OpenNetwork:
    """Descriptors of all its namespaces."""

    descriptors: dict[int, int]
    inodes: dict[str, int]

    def observe(
        self,
        source: str = "web-0",
        destination: str = "db-0",
        flow: Flow | None = None,
        *,
        limits: Limits | None = None,
        forget: str | None = None,
    ) -> Observation:
        ends = {
            **{pod: at for pod, (_, at) in PODS.items()},
            **{n: a for n, (a, _) in NODES.items()},
        }
        series = new_series(
            ip_address(ends[source]),
            ip_address(ends.get(destination, destination)),
            flow or Flow(),
        )
        inode = self.inodes[source]
        what = None if forget is None else {inode: frozenset({ip_address(forget)})}
        return observe(self.descriptors, inode, series, limits=limits, forget=what)

    def of(self, name: str) -> int:
        """Descriptor of a namespace."""
        return self.descriptors[self.inodes[name]]

    def way(self, spots: tuple[Spot, ...]) -> str:
        names = {inode: name for name, inode in self.inodes.items()}
        return " ".join(f"{names[each.inode]}/{each.interface}:{each.side}" for each in spots)

    def ways(self, observation: Observation, role: Role) -> list[str]:
        """One for each probe."""
        return [
            self.way(observation.spots(role, number)) for number in range(observation.series.count)
        ]

    def strays(self, observation: Observation) -> set[str]:
        """Places where a packet of ours came to a wrong MAC; a bridge's ports take any."""
        return {
            self.way((spot,))
            for role in (Role.REQUEST, Role.REPLY)
            for spot in observation.spots(role, 0)
            if spot.first.sighting.packet_type == OTHERHOST
            and spot.inode != self.inodes["underlay"]
        }


@contextmanager
def network(encapsulation: str) -> Iterator[OpenNetwork]:
    """Build it, and open every namespace of it."""
    build(encapsulation)
    inodes = namespaces.named()
    opened = {
        inode: namespaces.open_namespace(namespaces.named_path(name))
        for name, inode in inodes.items()
    }
    try:
        yield OpenNetwork(opened, inodes)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
