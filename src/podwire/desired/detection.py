"""Detection: by which of its addresses a node is known. Pure, over the kernel's tables.

Calico's methods, so that a setting moves over as it is, and one of our own, which is the default:
the address of the device that the default route leaves by. A machine has bridges, DNS caches and
management ports with addresses, and the first found is often one of those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from podwire.desired.here import TUNNELS
from podwire.desired.ways import find_route
from podwire.model.addressing import contains
from podwire.model.detection import Method
from podwire.model.link import INTERFACE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from podwire.desired.ways import Foreign
    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.detection import Detection
    from podwire.model.link import Address, Link
    from podwire.model.route import Route

SKIPPED = (
    *("^docker", "^cbr", "^dummy", "^podman", "^virbr", "^lxcbr", "^veth", "^lo", "^br-", "^tunl"),
    *("^flannel", "^kube-ipvs", "^cni", r"^vxlan\.calico", r"^vxlan-v6\.calico"),
    *(r"^wireguard\.cali", r"^wg-v6\.cali", "^nodelocaldns"),
)
"""Names that first-found passes over: what container tools make, and what leads nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a kernel says of itself, as far as an address can be found in it."""

    links: Mapping[int, Link]
    addresses: Sequence[Address]
    default_routes: Sequence[Route]
    """The preferred one first."""
    routes: Foreign


def detect(detection: Detection, tables: Tables, known: IPInterface | None) -> IPInterface | None:
    """The node's address; None when the method finds none.

    `known` is what it was until now, and stays while it may: an address that is added must not
    move a node. It is found again by the address alone, as its prefix length may have changed.
    """
    found = candidates(detection, tables)
    staying = found
    if detection.method is Method.DEFAULT_ROUTE:
        # Default routes come and go; what was chosen by one stays as long as a device carries it.
        staying = tuple(on_devices(tables, ()))
    again = (each for each in staying if known is not None and each.ip == known.ip)
    return next(again, found[0] if found else None)


def candidates(detection: Detection, tables: Tables) -> tuple[IPInterface, ...]:
    """The addresses a method allows, the one it takes first; none when it finds none."""
    match detection.method:
        case Method.DEFAULT_ROUTE:
            return tuple(_leaving_by(tables.default_routes, tables))
        case Method.CAN_REACH:
            assert detection.destination is not None
            route = find_route(tables.routes, detection.destination)
            return tuple(_leaving_by([] if route is None else [route], tables))
        case Method.FIRST_FOUND:
            return tuple(on_devices(tables, SKIPPED))
        case Method.SKIP_INTERFACE:
            return tuple(on_devices(tables, detection.patterns))
        case Method.INTERFACE:
            return tuple(
                address
                for pattern in detection.patterns
                for link in _usable(tables)
                if re.search(pattern, link.name)
                for address in _on(link, tables)
            )
        case Method.CIDR:
            return tuple(
                address
                for address in on_devices(tables, ())
                if any(contains(network, address.ip) for network in detection.networks)
            )
        case unknown:
            assert_never(unknown)


def on_device(name: str, tables: Tables) -> tuple[IPInterface, ...]:
    """The addresses of the device of that name, up or not."""
    return tuple(
        address
        for link in tables.links.values()
        if link.name == name
        for address in _on(link, tables)
    )


def on_devices(tables: Tables, skipped: Iterable[str]) -> Iterator[IPInterface]:
    """The addresses of all devices that are up, in the kernel's order, some names left out."""
    for link in _usable(tables):
        if not any(re.search(pattern, link.name) for pattern in skipped):
            yield from _on(link, tables)


def _usable(tables: Tables) -> Iterator[Link]:
    """Devices that are up and not ours: a tunnel's address is one of the pods' pools."""
    for _, link in sorted(tables.links.items()):
        ours = link.name in TUNNELS or link.name.startswith(INTERFACE_PREFIX)
        if link.up and not ours:
            yield link


def _on(link: Link, tables: Tables) -> Iterator[IPInterface]:
    """The device's IPv4 addresses that are known beyond their link."""
    for address in tables.addresses:
        interface = address.interface
        known = interface.version == 4 and address.scope == 0 and not interface.ip.is_link_local
        if address.device == link.index and known:
            yield interface


def _leaving_by(routes: Iterable[Route], tables: Tables) -> Iterator[IPInterface]:
    """What packets that take these routes may have as their source, the likeliest first.

    That is the route's preferred source, wherever it stands; else what the device has in the
    gateway's subnet; else whatever the device has.
    """
    for route in routes:
        for hop in route.hops:
            link = tables.links.get(hop.device or 0)
            if link is None:
                continue
            yield from (a.interface for a in tables.addresses if a.interface.ip == route.source)
            yield from sorted(_on(link, tables), key=lambda each: not _covers(each, hop.gateway))


def _covers(interface: IPInterface, gateway: IPAddress | None) -> bool:
    return gateway is not None and contains(interface.network, gateway)
