"""What of an attachment in the kernel differs from its endpoint; reads, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.agent.sandbox import find_host_link, pod_routes
from podwire.desired import sysctls, workloads
from podwire.drivers import sysctl
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError
from podwire.model.link import HOST_MAC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.agent.sandbox import Inside, Pod
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.link import Link


def differences(
    endpoint: WorkloadEndpoint, pod: Pod, inside: Inside | None, mtu: int | None = None
) -> tuple[str, ...]:
    """Sentences, one for each difference; empty when all is as it was attached.

    Both ends are compared: address, MAC and the two routes in the pod (more of them are allowed),
    alias, MAC, route, neighbour and sysctls on the host. `mtu`: the one expected, None: any.
    """
    with Session.open() as host:
        link = find_host_link(host, endpoint.container_id, endpoint.endpoint, endpoint.interface)
        if inside is None:
            return (f"{endpoint.endpoint} is missing in the pod",)
        return (
            *_of_pod(endpoint, inside, mtu if link is None else _expected_mtu(mtu, inside, link)),
            *_of_pair(host, endpoint, pod, inside.link, link),
            *(() if link is None else _of_host(host, endpoint, link)),
        )


def _expected_mtu(mtu: int | None, inside: Inside, link: Link) -> int | None:
    """What was told at ADD, unless the pair has another MTU at both ends.

    The agent changes both when the cluster's MTU changes and it was told to; a pod can reach its
    own end only.
    """
    return link.mtu if inside.link.mtu == link.mtu else mtu


def _of_pod(endpoint: WorkloadEndpoint, inside: Inside, mtu: int | None) -> Iterator[str]:
    name = endpoint.endpoint
    link = inside.link
    if not link.up:
        yield f"{name} is down"
    if link.mac != endpoint.mac.lower():
        yield f"{name} has MAC {link.mac}, not {endpoint.mac}"
    if mtu is not None and link.mtu != mtu:
        yield f"{name} has MTU {link.mtu}, not {mtu}"
    for address in endpoint.addresses:
        if address not in inside.addresses:
            yield f"{name} lacks address {address}"
    there = {(route.key.destination, route.hops) for route in inside.routes}
    for route in pod_routes(link.index):
        if (route.key.destination, route.hops) not in there:
            yield f"the pod lacks the route to {route.key.destination} through {name}"


def _of_pair(
    host: Session, endpoint: WorkloadEndpoint, pod: Pod, inside: Link, link: Link | None
) -> Iterator[str]:
    if link is None:
        yield f"host interface {endpoint.interface} is missing"
        return
    if link.name != endpoint.interface:
        yield f"host interface is named {link.name}, not {endpoint.interface}"
    is_there = link.peer_netnsid == host.namespace_id(pod.descriptor)
    if link.peer_index != inside.index or not is_there:
        yield f"{link.name} and {inside.name} are not the two ends of one veth"


def _of_host(host: Session, endpoint: WorkloadEndpoint, link: Link) -> Iterator[str]:
    if not link.up:
        yield f"{link.name} is down"
    if link.mac != HOST_MAC:
        yield f"{link.name} has MAC {link.mac}, not {HOST_MAC}"
    for address in endpoint.addresses:
        wanted = workloads.route(address.ip, link.index)
        try:
            found = host.lookup(address.ip, entry=True)
        except KernelError:
            found = None
        if found is None or (found.key.destination, found.hops) != (
            wanted.key.destination,
            wanted.hops,
        ):
            yield f"the host lacks the route to {address.ip} through {link.name}"
    for name, value in sysctls.of_workload(link.name, endpoint.addresses).items():
        now = sysctl.read(name)
        if name.endswith("/rp_filter") and endpoint.allowed_source_prefixes:
            continue  # FelixConfiguration decides, and may have changed
        if now is not None and now != value:
            yield f"sysctl {name} is {now}, not {value}"
