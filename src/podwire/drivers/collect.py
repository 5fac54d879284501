"""Collect: the KernelState of one network namespace, or of all this process can see.

Everything is read once, without locks; a section that cannot be read is `Missing` with the reason.
Sysctls are files that show the namespace of the thread that opens them, so they and the programs
run in a thread that has entered it.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from podwire.drivers import namespaces
from podwire.drivers.conntable import read_connections
from podwire.drivers.netlink.session import Session
from podwire.drivers.procfiles import read_sockets, read_sysctls
from podwire.drivers.rulesets import (
    read_classifiers,
    read_compatible,
    read_ipsets,
    read_legacy,
    read_nft,
)
from podwire.errors import Forbidden, PodwireError
from podwire.model.endpoint import parse_link_alias
from podwire.model.kernelstate import KernelState, Missing, NamespaceRef, Read, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podwire.model.link import Link
    from podwire.model.route import Route

T = TypeVar("T")

NOT_ENTERED = (
    "this needs CAP_SYS_ADMIN; what root saves with `podwire collect -o FILE`, anybody who may "
    "read it can trace in with --from FILE"
)
"""What is missing to read another namespace, and what can be done all the same."""


def collect(
    namespace_fd: int, ref: NamespaceRef, others: Mapping[int, int] | None = None
) -> KernelState:
    """Read one namespace.

    `others`: descriptors by inode of the namespaces that its veths may lead to (None: all that
    this process can see are looked up).
    """
    return namespaces.call_in(namespace_fd, _collect_here, ref, others)


def _collect_here(ref: NamespaceRef, others: Mapping[int, int] | None) -> KernelState:
    with Session.open() as session:
        links = _read(lambda: tuple(session.links().values()))
        names = [] if isinstance(links, Missing) else [link.name for link in links.value]
        return replace(
            collect_rules(ref),
            links=links,
            addresses=_read(session.addresses),
            routes=_read(lambda: _routes(session)),
            rules=_read(session.rules),
            neighbours=_read(session.neighbours),
            fdb=_read(session.fdb),
            netns_ids=_read(lambda: _namespace_ids(session, links, others)),
            sysctls=_read(lambda: read_sysctls(names)),
            sockets=_read(read_sockets),
            conntrack=_read(read_connections),
            qdiscs=_read(read_classifiers),
        )


def collect_rules(ref: NamespaceRef) -> KernelState:
    """Read the rules of the calling thread's namespace, and nothing else."""
    nft, legacy = _as_section(read_nft), _as_section(read_legacy)
    compatible = _as_section(lambda: read_compatible(nft))
    return KernelState(
        namespace=ref,
        nft=nft,
        iptables_legacy=legacy,
        iptables_nft=compatible,
        ipsets=_as_section(lambda: read_ipsets(legacy, compatible)),
    )


def _routes(session: Session) -> tuple[Route, ...]:
    """All routes; the hops of those that only name a nexthop object are put in."""
    found = session.routes(table=None)
    if all(route.hops or route.nexthop_id is None for route in found):
        return found
    objects = session.nexthops()
    return tuple(
        route
        if route.hops or route.nexthop_id is None
        else replace(route, hops=objects.get(route.nexthop_id, ()))
        for route in found
    )


def collect_all() -> tuple[KernelState, ...]:
    """Read every namespace this process can see, pods and nodes named where the kernel tells."""
    with ExitStack() as open_files:
        found: dict[int, int] = {}
        paths = namespaces.paths()
        for inode, path in paths.items():
            try:
                descriptor = namespaces.open_namespace(path)
            except PodwireError:  # it has ended, or is not ours to look at
                continue
            open_files.callback(os.close, descriptor)
            found[inode] = descriptor
        states = []
        for ref in _references({inode: paths[inode] for inode in found}):
            try:
                states.append(collect(found[ref.inode], ref, found))
            except Forbidden as error:
                states.append(unread(ref, f"{error.message}: {NOT_ENTERED}"))
            except PodwireError as error:  # it has ended meanwhile
                states.append(unread(ref, str(error)))
    return with_pods(states)


def unread(ref: NamespaceRef, reason: str) -> KernelState:
    """A namespace that is there and of which nothing could be read."""
    sections = {field.name for field in fields(KernelState)} - {"namespace"}
    return KernelState(namespace=ref, **dict.fromkeys(sections, Missing(reason)))


def _references(paths: Mapping[int, str]) -> list[NamespaceRef]:
    """How each namespace is called; nodes' before pods', which are many."""
    names = {inode: name for name, inode in namespaces.named().items()}
    root = _root(names)
    host = socket.gethostname()
    references = [
        NamespaceRef(
            inode=inode,
            node=host if inode == root else None,
            name=names.get(inode),
            path=path,
            root=inode == root,
        )
        for inode, path in paths.items()
    ]
    return sorted(references, key=lambda ref: (not ref.root, ref.name or "", ref.inode))


def _root(names: Mapping[int, str]) -> int | None:
    """The host's own namespace: that of process 1, else ours if it has no name."""
    for path in ("/proc/1/ns/net", "/proc/thread-self/ns/net"):
        try:
            inode = Path(path).stat().st_ino
        except OSError:
            continue
        if inode not in names:
            return inode
    return None


def with_pods(states: Iterable[KernelState]) -> tuple[KernelState, ...]:
    """Give the namespaces behind marked veths the name of their pod."""
    pods: dict[int, tuple[str, str | None]] = {}
    states = tuple(states)
    for state in states:
        if isinstance(state.links, Missing) or isinstance(state.netns_ids, Missing):
            continue
        for link in state.links.value:
            owner = parse_link_alias(link.alias)
            inode = state.netns_ids.value.get(
                -1 if link.peer_netnsid is None else link.peer_netnsid
            )
            if owner is not None and inode is not None:
                pods[inode] = (owner.title, state.namespace.node or state.namespace.name)
    return tuple(
        replace(state, namespace=_named(state.namespace, pods.get(state.namespace.inode)))
        for state in states
    )


def _named(ref: NamespaceRef, pod: tuple[str, str | None] | None) -> NamespaceRef:
    return ref if pod is None else replace(ref, pod=pod[0], node=pod[1])


def _read(function: Callable[[], T]) -> Section[T]:
    try:
        return Read(function(), time_ns=time.time_ns())
    except PodwireError as error:
        return Missing(str(error))


def _namespace_ids(
    session: Session, links: Section[tuple[Link, ...]], others: Mapping[int, int] | None
) -> dict[int, int]:
    """Inode by nsid of the namespaces that links lead to; the search ends when all are known."""
    if others is None:
        return session.namespace_ids()
    wanted = (
        set()
        if isinstance(links, Missing)
        else {link.peer_netnsid for link in links.value if link.peer_netnsid is not None}
    )
    found: dict[int, int] = {}
    for inode, descriptor in others.items():
        if wanted <= found.keys():
            break
        nsid = session.namespace_id(descriptor)
        if nsid is not None:
            found[nsid] = inode
    return found


def _as_section(function: Callable[[], Section[T]]) -> Section[T]:
    try:
        return function()
    except PodwireError as error:
        return Missing(str(error))
