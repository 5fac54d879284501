"""A pod's network namespace and the veth that leads into it.

The host side is furnished first and the pod's side set up last. The end that is set up second has
carrier at once; the first one's queue is started by the kernel's link watch a moment later
(net/sched/sch_generic.c: dev_activate waits for carrier), and until then its packets are dropped.
So the last step waits until the host side says that it runs.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from podwire.desired import sysctls, workloads
from podwire.drivers import namespaces, sysctl
from podwire.drivers.netlink.requests import (
    create_route,
    create_veth,
    delete_link,
    replace_address,
    replace_neighbour,
    replace_route,
    set_link,
)
from podwire.drivers.netlink.session import Session
from podwire.errors import InterfaceExists, KernelError, LinkNotReady, NotThere
from podwire.model.addressing import POD_GATEWAY, host_network
from podwire.model.endpoint import parse_link_alias
from podwire.model.link import HOST_MAC, INTERFACE_PREFIX, Address
from podwire.model.route import (
    PROTOCOL_BOOT,
    PROTOCOL_PODWIRE,
    SCOPE_LINK,
    NextHop,
    Route,
    RouteKey,
)

if TYPE_CHECKING:
    from contextlib import ExitStack

    from podwire.boundary import Clock
    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.link import Link

LOOPBACK_INDEX = 1
"""lo is the first device of every namespace (net/core/dev.c)."""
RUNNING_TIMEOUT_S = 2.0
_EVERYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth:
    """The pair to build."""

    host: str
    inside: str
    mac: str
    """Of the pod's side."""
    mtu: int
    alias: str
    addresses: tuple[IPInterface, ...]
    spoofs: bool = False
    """The pod may send from other addresses, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a pod's namespace holds of one interface."""

    link: Link
    addresses: tuple[IPInterface, ...]
    routes: tuple[Route, ...]
    """Of the main table, IPv4, through this interface."""


class Pod:
    """An open door into a pod's network namespace; one thread at a time.

    With `interface`, and when there is none of that name yet, the namespace is made ready for it
    in the same visit: entering one takes a thread, which costs more than all that is done there.
    """

    def __init__(
        self, descriptor: int, interface: str | None = None, *, forwarding: bool = False
    ) -> None:
        self.descriptor = descriptor
        self._forwarding = "1" if forwarding else "0"
        self._changed: dict[str, str] = {}
        self.is_taken = False
        """Whether there was one of that name already."""
        self._session = namespaces.call_in(descriptor, self._enter, interface)

    def _enter(self, interface: str | None) -> Session:
        session = Session.open()
        try:
            if interface is not None:
                self.is_taken = session.link(interface) is not None
                if not self.is_taken:
                    self._set_forwarding()
        except BaseException:
            session.close()
            raise
        return session

    def _set_forwarding(self) -> None:
        """A new namespace copies these from the first one, where a node has them on."""
        for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            before = sysctl.read(name)
            if before not in {None, self._forwarding}:
                self._changed[name] = str(before)
                sysctl.write(name, self._forwarding)

    def restore(self) -> None:
        """Undo what was made ready."""
        for name, before in self._changed.items():
            namespaces.call_in(self.descriptor, sysctl.write, name, before)

    def close(self) -> None:
        """Close the door; the descriptor stays its owner's."""
        self._session.close()

    def look(self, interface: str) -> Inside | None:
        """What is there of the interface; None when there is none of that name."""
        link = self._session.link(interface)
        if link is None:
            return None
        return Inside(
            link=link,
            addresses=tuple(
                address.interface
                for address in self._session.addresses()
                if address.device == link.index
            ),
            routes=tuple(
                route
                for route in self._session.routes(family=4)
                if any(hop.device == link.index for hop in route.hops)
            ),
        )

    def index_of(self, interface: str) -> int:
        """The interface's number.

        Raises:
            LinkNotReady: there is none of that name.
        """
        link = self._session.link(interface)
        if link is None:
            raise LinkNotReady(f"{interface} has gone from the pod's network namespace")
        return link.index

    def furnish(self, index: int, addresses: tuple[IPInterface, ...]) -> None:
        """Give the pod's side its addresses and routes and set it up."""
        replaced = [
            replace_address(Address(device=index, interface=address), detect_duplicates=False)
            for address in addresses
        ]
        self._session.run(
            set_link(LOOPBACK_INDEX, up=True),
            *replaced,
            # A route needs its device up, and the gateway's own route before the default's.
            set_link(index, up=True),
            *(create_route(route) for route in pod_routes(index)),
        )


def pod_routes(device: int) -> tuple[Route, ...]:
    """The two routes of every pod, as `ip route add` would make them."""
    return (
        Route(
            key=RouteKey(destination=host_network(POD_GATEWAY)),
            protocol=PROTOCOL_BOOT,
            scope=SCOPE_LINK,
            hops=(NextHop(device=device),),
        ),
        Route(
            key=RouteKey(destination=_EVERYWHERE),
            protocol=PROTOCOL_BOOT,
            hops=(NextHop(device=device, gateway=POD_GATEWAY),),
        ),
    )


def build(veth: Veth, pod: Pod, host: Session, undo: ExitStack, clock: Clock) -> None:
    """Make the veth, both sides complete and running.

    `undo` takes the pair away again.

    Raises:
        InterfaceExists: a name is taken; then nothing was touched.
        KernelError, Forbidden, LinkNotReady: the kernel refused a step.
    """
    if host.link(veth.host) is not None:
        raise InterfaceExists(
            f"host interface {veth.host} exists and is not this pod's",
            fix=f"see what made it (ip -d link show {veth.host}) and delete it",
        )
    undo.callback(delete_link_if_there, veth.host)
    host.run(
        create_veth(
            veth.host,
            peer_name=veth.inside,
            peer_namespace=pod.descriptor,
            mtu=veth.mtu,
            mac=HOST_MAC,
            peer_mac=veth.mac,
            alias=veth.alias,
        )
    )
    link = host.link(veth.host)
    if link is None:
        raise LinkNotReady(f"host interface {veth.host} has gone")
    furnish_host(host, veth, link.index)
    # Before Linux 5.1 a peer of the same number is not told (nla_put_iflink).
    pod.furnish(link.peer_index or pod.index_of(veth.inside), veth.addresses)
    wait_until_running(host, link.index, clock)


def furnish_host(host: Session, veth: Veth, index: int) -> None:
    """Sysctls before the link is up, so that no packet ever sees the kernel's defaults."""
    for name, value in sysctls.of_workload(veth.host, veth.addresses, spoofs=veth.spoofs).items():
        with suppress(NotThere):  # a kernel without IPv6
            sysctl.put(name, value)
    addresses = [address.ip for address in veth.addresses]
    host.run(
        set_link(index, up=True),
        *(replace_neighbour(workloads.neighbour(ip, index, veth.mac)) for ip in addresses),
    )
    for ip in addresses:
        write_route(host, workloads.route(ip, index))


def write_route(host: Session, route: Route) -> None:
    """Add a pod's /32; one that we wrote before is replaced, a foreign one is a conflict."""
    error = host.apply([create_route(route)])[0]
    if error is None:
        return
    if error.errno != errno.EEXIST:
        raise error
    held = host.lookup(route.key.destination.network_address, entry=True)
    if held.protocol != PROTOCOL_PODWIRE:
        raise KernelError(
            f"route {route.key.destination} is held by protocol {held.protocol}",
            errno=errno.EEXIST,
            subject=str(route.key.destination),
            fix=f"delete it: ip route del {route.key.destination}",
        )
    host.run(replace_route(route))


def wait_until_running(host: Session, index: int, clock: Clock) -> None:
    """Wait until the kernel has started the queue of a link whose both ends are up."""
    deadline = clock.monotonic() + RUNNING_TIMEOUT_S
    while (link := host.link(index)) is not None and link.operstate != "up":
        if clock.monotonic() > deadline:
            raise LinkNotReady(f"{link.name} does not run: its state is {link.operstate}")
        clock.sleep(0.0005)


def delete_link_if_there(link: int | str) -> None:
    """Take a host side away, by index or name; none of that is success."""
    with Session.open() as host, suppress(NotThere):
        host.run(delete_link(link))


def try_veth(mtu: int) -> None:
    """Make a veth pair in the calling thread's namespace, which is to end with it.

    Raises:
        KernelError, Forbidden: the kernel refused.
    """
    with Session.open() as session:
        session.run(create_veth("host", peer_name="pod", mtu=mtu, mac=HOST_MAC))


def find_host_link(host: Session, container_id: str, interface: str, likely: str) -> Link | None:
    """The host side of an attachment, by its alias alone; `likely` is the name to look at first."""

    def is_it(link: Link | None) -> bool:
        owner = None if link is None else parse_link_alias(link.alias)
        return owner is not None and (owner.container_id, owner.interface) == (
            container_id,
            interface,
        )

    link = host.link(likely) if likely else None
    if is_it(link):
        return link
    return next((link for link in host.links().values() if is_it(link)), None)


def rename(index: int, name: str) -> None:
    """Give a host side another name; none of that index is success."""
    with Session.open() as host, suppress(NotThere):
        error = host.apply([set_link(index, new_name=name)])[0]
        if error is not None and error.errno == errno.EBUSY:
            # Before Linux 6.2 a device must be down to be renamed.
            host.run(
                set_link(index, up=False),
                set_link(index, new_name=name),
                set_link(index, up=True),
            )
        elif error is not None:
            raise error


def is_carried(host: Session, address: IPAddress) -> bool:
    """Whether a route into a pod's veth still leads to the address."""
    try:
        route = host.lookup(address, entry=True)
    except KernelError:
        return False  # no way at all, or our own block's blackhole
    if route.key.destination.prefixlen != address.max_prefixlen:
        return False
    links = [host.link(hop.device) for hop in route.hops if hop.device is not None]
    return any(link is not None and link.name.startswith(INTERFACE_PREFIX) for link in links)
