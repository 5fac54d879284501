"""Local pods: the /32 that leads into each veth, and the neighbour entry that spares its ARP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.desired.entries import RouteClass, Sysctl, Want
from podwire.desired.sysctls import of_workload
from podwire.model.addressing import host_network
from podwire.model.overlay import Neighbour
from podwire.model.route import SCOPE_LINK, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.model.endpoint import WorkloadEndpoint


def route(address: IPAddress, device: int) -> Route:
    """`<address> dev <veth> scope link proto 80`."""
    return Route(
        key=RouteKey(destination=host_network(address)),
        scope=SCOPE_LINK,
        hops=(NextHop(device=device),),
    )


def neighbour(address: IPAddress, device: int, mac: str) -> Neighbour:
    """The permanent entry pod address → pod MAC, so that the first packet never waits for ARP."""
    return Neighbour(device=device, address=address, mac=mac)


def of_endpoint(
    endpoint: WorkloadEndpoint, device: int, *, may_spoof: bool = False
) -> tuple[Want, ...]:
    """Everything the host side of one pod interface needs, once its veth has index `device`."""
    entries = [
        entry
        for interface in endpoint.addresses
        if interface.version == 4
        for entry in (
            route(interface.ip, device),
            neighbour(interface.ip, device, endpoint.mac.lower()),
        )
    ]
    spoofs = may_spoof and bool(endpoint.allowed_source_prefixes)
    wanted = of_workload(endpoint.interface, endpoint.addresses, spoofs=spoofs)
    switches = (Sysctl(name=name, value=value) for name, value in wanted.items())
    return tuple(Want(entry, RouteClass.LOCAL_WORKLOAD) for entry in (*entries, *switches))
