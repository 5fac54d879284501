"""Lookup: put the questions of a prediction to the kernels themselves (RTM_GETROUTE)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.netlink.selectors import Selectors
from podwire.drivers.netlink.session import Session
from podwire.errors import KernelError, PodwireError
from podwire.trace.flow import ROUTABLE
from podwire.trace.kernelanswer import KernelAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.trace.schema import Lookup


def ask_kernels(
    lookups: Iterable[Lookup], paths: Mapping[int, str] | None = None
) -> list[tuple[Lookup, KernelAnswer]]:
    """Ask each question in its own namespace; `paths` by inode (None: looked up)."""
    asked = {(each.inode, each.iif, each.query): each for each in lookups}.values()
    known = namespaces.paths() if paths is None else paths
    found: list[tuple[Lookup, KernelAnswer]] = []
    with ExitStack() as open_sessions:
        sessions: dict[int, Session | str] = {}
        for lookup in asked:
            inode = lookup.inode
            if inode not in sessions:
                sessions[inode] = _open(inode, known, open_sessions)
            session = sessions[inode]
            if isinstance(session, str):
                found.append((lookup, KernelAnswer(unasked=session)))
            else:
                found.append((lookup, _ask(session, lookup)))
    return found


def _open(inode: int, known: Mapping[int, str], stack: ExitStack) -> Session | str:
    """A session in the namespace, or why there is none."""
    if inode not in known:
        return "its namespace is not open to us"
    try:
        descriptor = namespaces.open_namespace(known[inode])
        try:
            return stack.enter_context(Session.open(descriptor))
        finally:
            os.close(descriptor)
    except PodwireError as error:
        return str(error)


def _ask(session: Session, lookup: Lookup) -> KernelAnswer:
    query = lookup.query
    made_here = lookup.iif is None
    try:
        route = session.lookup(
            query.destination,
            source=query.source,
            iif=lookup.iif,
            oif=query.oif if made_here else None,
            selectors=_selectors(lookup),
            entry=True,
        )
    except KernelError as error:
        return KernelAnswer(errno=error.errno)
    return KernelAnswer(route=route)


def _selectors(lookup: Lookup) -> Selectors:
    """The kernel refuses questions about protocols other than these, and half a pair of ports."""
    query = lookup.query
    return Selectors(
        mark=query.mark or None,
        protocol=query.protocol if query.protocol in ROUTABLE else None,
        source_port=query.source_port,
        destination_port=query.destination_port,
    )
