"""Ends: from what the caller typed to a namespace and an address, by the kernel's state alone."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.route import MAIN_TABLE, RouteKind
from podwire.trace import fib
from podwire.trace.fib import Query
from podwire.trace.schema import EndView
from podwire.trace.space import Lacking, Space

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.world import Pod, World

NUMBERED = re.compile(r"netns:\[?(\d+)\]?")
"""A namespace by its inode, as `ls -l /proc/PID/ns/net` shows it; brackets may be left out."""
TUNNELS = frozenset({"vxlan", "ipip"})
ANYWHERE = ip_address("0.0.0.0")  # noqa: S104
NOBODYS = frozenset({ANYWHERE, ip_address("::"), ip_address("255.255.255.255")})


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a flow."""

    kind: str
    """pod, node, netns, address."""
    title: str
    space: Space | None
    """None: outside of what was read."""
    address: IPAddress | None
    pod: Pod | None = None
    interface: str | None = None
    others: tuple[str, ...] = ()
    """Further namespaces that carry the same address."""

    def view(self, world: World) -> EndView:
        """For the reader."""
        namespace, _, name = (self.pod.title if self.pod else "").partition("/")
        return EndView(
            kind=self.kind,
            title=self.title,
            ip=self.address,
            namespace=namespace or None,
            pod=name or None,
            node=None if self.space is None else world.node_of(self.space),
            netns=None if self.space is None else self.space.title,
            interface=self.interface,
        )


def resolve(world: World, text: str) -> End:
    """Find what `text` names: an address, `namespace/pod`, a node, a pod, a network namespace.

    Raises:
        BadInput: nothing, or too much, is called so; the fix names what is near.
        Lacking: the state of the named pod was not read.
    """
    address = _address(text)
    if address is not None:
        return _by_address(world, address)
    numbered = NUMBERED.fullmatch(text)
    if numbered is not None and int(numbered[1]) in world.spaces:
        return _of_space(world, world.spaces[int(numbered[1])], text)
    pods = _pods_called(world, text)
    if not pods:
        spaces = _spaces_called(world, text)
        if spaces:
            return _of_space(world, _only_space(world, spaces, text), text)
        pods = _pods_called(world, text, short=True)
    if pods:
        return _of_pod(world, _only_pod(world, pods, text))
    for space in world.spaces.values():
        space.need(space.state.links, "links (and with them the pods)")
    raise BadInput(
        f"no pod, node or network namespace {text!r} is visible here", fix=_near(world, text)
    )


def _pods_called(world: World, text: str, *, short: bool = False) -> list[Pod]:
    """Pods of that name, each namespace once: a pod with several interfaces is one pod."""
    found: dict[int, Pod] = {}
    for number, pod in enumerate(world.pods.values()):
        name = pod.title.partition("/")[2] if short else pod.title
        if name == text:
            found.setdefault(-number if pod.inode is None else pod.inode, pod)
    return list(found.values())


def _only_pod(world: World, pods: list[Pod], text: str) -> Pod:
    """The one pod that is meant.

    Raises:
        BadInput: there are several; the fix says how to name each.
    """
    if len(pods) == 1:
        return pods[0]
    titles = sorted({pod.title for pod in pods})
    ways = titles if len(titles) == len(pods) else [_pod_apart(world, pod) for pod in pods]
    raise BadInput(f"{text!r} is the name of {len(pods)} pods", fix=f"say which: {', '.join(ways)}")


def _only_space(world: World, spaces: list[Space], text: str) -> Space:
    """The one namespace that is meant.

    Raises:
        BadInput: there are several; the fix says how to name each.
    """
    if len(spaces) == 1:
        return spaces[0]
    lodgers = ((space, world.pod_in(space)) for space in spaces)
    ways = ", ".join(
        _space_apart(space) if pod is None else _pod_apart(world, pod) for space, pod in lodgers
    )
    raise BadInput(f"{text!r} is the name of {len(spaces)} namespaces", fix=f"say which: {ways}")


def _pod_apart(world: World, pod: Pod) -> str:
    """`netns:4026532001 (demo/web-0 on vms100, 10.244.1.5)`."""
    space = world.spaces.get(pod.inode or 0)
    where = f"{pod.title} on {pod.host.space.title}"
    if space is None:
        return f"{where} (its namespace was not read)"
    return _space_apart(space, where)


def _space_apart(space: Space, where: str | None = None) -> str:
    """The number that names it, and what a reader may know it by."""
    try:
        carried = [each for link in space.links.values() if not link.loopback
                   for each in space.addresses_of(link)]  # fmt: skip
    except Lacking:
        carried = []
    known = ([] if where is None else [where]) + [str(each.interface.ip) for each in carried[:1]]
    return f"netns:{space.inode}" + (f" ({', '.join(known)})" if known else "")


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _near(world: World, text: str) -> str:
    titles = {pod.title for pod in world.pods.values()}
    names = sorted({*titles, *(title.partition("/")[2] for title in titles), *_names(world)})
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if names:
        return f"known are: {', '.join(names[:12])}{' …' if names[12:] else ''}"
    return "run it as root: no other network namespace could be read"


def _names(world: World) -> dict[str, list[Space]]:
    """Names of namespaces that are not pods, and of nodes."""
    found: dict[str, list[Space]] = {}
    for space in world.spaces.values():
        ref = space.state.namespace
        if world.pod_in(space) is not None:
            continue
        for name in {ref.name, ref.node if ref.root else None, space.title} - {None}:
            found.setdefault(str(name), []).append(space)
    return found


def _spaces_called(world: World, text: str) -> list[Space]:
    named = _names(world).get(text)
    if named:
        return named
    return [each for each in world.spaces.values() if each.state.namespace.name == text]


def _by_address(world: World, address: IPAddress) -> End:
    if address.is_loopback:
        raise BadInput(f"{address} is an address of every namespace", fix="name a pod or a node")
    if address.is_multicast or address in NOBODYS:
        raise BadInput(f"{address} is not one receiver's address", fix="name one receiver")
    owners = world.owners(address)
    if not owners:
        pod = pod_routed(world, address)
        if pod is not None:
            return _of_pod(world, pod)
        return End(kind="address", title=str(address), space=None, address=address)
    first = owners[0]
    pod = world.pod_in(first.space)
    return End(
        kind="pod" if pod is not None else "address",
        title=pod.title if pod is not None else str(address),
        space=first.space,
        address=address,
        pod=pod,
        interface=first.link.name,
        others=tuple(port.space.title for port in owners[1:]),
    )


def pod_routed(world: World, address: IPAddress) -> Pod | None:
    """The pod into whose host-side veth some node routes the address, though it lacks it."""
    return next((pod for pod in world.pods.values() if _routed_address(pod) == address), None)


def _of_pod(world: World, pod: Pod) -> End:
    space = world.spaces.get(pod.inode or 0)
    if space is None:
        raise Lacking(f"network namespace of {pod.title}", "it cannot be opened from here")
    link = space.links_by_name.get(pod.interface)
    both = () if link is None else (*space.addresses_of(link), *space.addresses_of(link, 6))
    addresses = list(both)
    found = next((each.interface.ip for each in addresses if each.scope == 0), None)
    return End(
        kind="pod",
        title=pod.title,
        space=space,
        address=found or _routed_address(pod),
        pod=pod,
        interface=pod.interface,
    )


def _routed_address(pod: Pod) -> IPAddress | None:
    """The /32 that the node routes into the pod's veth."""
    host = pod.host
    try:
        routes = host.space.need(host.space.state.routes, "routes")
    except Lacking:
        return None
    for route in routes:
        network = route.key.destination
        single = network.version == 4 and network.prefixlen == 32
        plain = route.kind is RouteKind.UNICAST and route.key.table == MAIN_TABLE
        if single and plain and any(hop.device == host.link.index for hop in route.hops):
            return network.network_address
    return None


def _of_space(world: World, space: Space, text: str) -> End:
    pod = world.pod_in(space)
    if pod is not None:
        return _of_pod(world, pod)
    kind = "node" if world.is_node(space) else "netns"
    address, interface = _main_address(space)
    return End(kind=kind, title=text, space=space, address=address, interface=interface)


def _main_address(space: Space) -> tuple[IPAddress | None, str | None]:
    """The address by which others know a node: that of its default route's link, or the first."""
    decision = fib.lookup(space, Query(destination=ANYWHERE))
    preferred = [hop.device for hop in decision.hops]
    indexes = [index for index in preferred if index is not None] + sorted(space.links)
    for index in indexes:
        link = space.links[index]
        if link.loopback or link.kind in TUNNELS:
            continue
        for address in space.addresses_of(link):
            if address.scope == 0:
                return address.interface.ip, link.name
    return None, None
