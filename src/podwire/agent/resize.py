"""Resize: give live pods another MTU, at both ends of their cables, without losing a packet.

A cable drops what is longer than the MTU of the end that receives (is_skb_forwardable in
net/core/dev.c), and the ends cannot be changed in one stroke. So for that moment the route into the
pod keeps to the smaller of both sizes: what is longer is cut, or its sender told, before it reaches
the cable. What the pod itself sends is no longer than its own end allows, and the host's end is
never smaller than that one.

The host's end gets its size last of all: while it has another, the work is not done, whoever died.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from podwire.drivers import namespaces
from podwire.drivers.netlink.requests import replace_route, set_link
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError, LinkNotReady, NotThere, PodwireError
from podwire.model.endpoint import parse_link_alias
from podwire.model.link import LARGEST_MTU
from podwire.model.route import PROTOCOL_PODWIRE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from podwire.model.link import Link
    from podwire.model.route import Route

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one pod's cable should be."""

    host: Link
    """The host's end, as it is."""
    mtu: int
    routes: tuple[Route, ...]
    """Those that lead into the pod, as they should be in the end."""


class Resizer:
    """A thread that sleeps until there are cables to change. Thread-safe."""

    def __init__(self, held: Callable[[], bool], on_done: Callable[[], None]) -> None:
        self._held = held
        self._on_done = on_done
        self._offered: tuple[Size, ...] = ()
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._problems: tuple[PodwireError, ...] = ()

    def offer(self, sizes: tuple[Size, ...]) -> None:
        """These cables should be changed; those of an earlier offer no longer."""
        self._offered = sizes
        if sizes and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="resize", daemon=True)
            self._thread.start()
        self._wanted.set()

    def concerns(self) -> tuple[str, ...]:
        """What did not succeed at the last try."""
        return tuple(map(str, self._problems))

    def stop(self) -> None:
        """End the thread soon; a cable that is begun is finished."""
        self._stopped.set()
        self._wanted.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self._problems = tuple(self._work(self._offered))
            self._on_done()

    def _work(self, sizes: Sequence[Size]) -> list[PodwireError]:
        problems: list[PodwireError] = []
        with ExitStack() as stack:
            host = stack.enter_context(Session.open())
            doors = open_doors(host, {size.host.peer_netnsid for size in sizes}, stack)
            for size in sizes:
                if self._stopped.is_set() or self._held():
                    break
                try:
                    resize(size, host, doors.get(size.host.peer_netnsid))
                except NotThere:
                    continue  # the pod has gone
                except PodwireError as error:
                    problems.append(error)
        return problems


def open_doors(
    host: Session, wanted: Iterable[int | None], stack: ExitStack
) -> Mapping[int | None, int]:
    """Descriptors of the network namespaces that the host knows by these numbers."""
    missing = {nsid for nsid in wanted if nsid is not None}
    found: dict[int | None, int] = {}
    for path in namespaces.paths().values() if missing else ():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # its process has ended
        stack.callback(os.close, descriptor)
        nsid = host.namespace_id(descriptor)
        if nsid in missing:
            found[nsid] = descriptor
            missing.discard(nsid)
        if not missing:
            break
    return found


def resize(size: Size, host: Session, door: int | None) -> None:
    """Change one cable, if there is anything to change.

    Raises:
        LinkNotReady: the pod's namespace cannot be found.
        KernelError: the kernel refuses a step; the next try begins anew.
    """
    link = host.link(size.host.index)
    if link is None or parse_link_alias(link.alias) != parse_link_alias(size.host.alias):
        return
    if link.mtu == size.mtu:
        return
    if door is None or link.peer_index is None:
        raise LinkNotReady(
            f"{link.name}: its MTU stays {link.mtu}, not {size.mtu}: no process and no name leads"
            " to the pod's network namespace",
            fix="the pod gets the new one when it is made anew",
        )
    bounds = [replace(route, mtu=min(link.mtu, size.mtu)) for route in size.routes]
    with Session.open(door) as pod:
        host.run(*(replace_route(route) for route in bounds if _is_standing(host, route)))
        try:
            for end, mtu in strokes(link.mtu, size.mtu):
                if end is End.HOST:
                    host.run(set_link(link.index, mtu=mtu))
                else:
                    pod.run(set_link(link.peer_index, mtu=mtu))
        finally:
            host.run(*(replace_route(route) for route in size.routes if _is_standing(host, route)))
    log.info("pod's MTU changed", interface=link.name, before=link.mtu, now=size.mtu)


class End(Enum):
    """One end of a cable."""

    HOST = "host"
    POD = "pod"


def strokes(before: int, wanted: int) -> tuple[tuple[End, int], ...]:
    """In which steps a cable goes from one MTU to another.

    A cable that grows has one byte too many at the host's end in between: that tells it from one
    that is done.
    """
    last = ((End.POD, wanted), (End.HOST, wanted))
    return last if wanted < before else ((End.HOST, min(wanted + 1, LARGEST_MTU)), *last)


def _is_standing(host: Session, route: Route) -> bool:
    """Whether the route into this cable is in the kernel: a pod's newer container may have it."""
    try:
        found = host.lookup(route.key.destination.network_address, entry=True)
    except KernelError:
        return False  # the pod has gone: its own block's blackhole is all there is
    return (found.key.destination, found.hops, found.protocol) == (
        route.key.destination,
        route.hops,
        PROTOCOL_PODWIRE,
    )
