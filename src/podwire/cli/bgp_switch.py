"""`podwire bgp switch`: who writes the routes to other nodes' blocks, changed without a gap.

While both write, the agents' routes count: their metric is lower. Nothing of the old owner goes
before every node says that the new one's routes lead to all blocks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.drivers.clock import SystemClock
from podwire.drivers.store.standing import names, read_standing, running
from podwire.errors import BadInput, InUse, NotFound, Stale
from podwire.model import keys
from podwire.model.codec import decode_cluster, encode
from podwire.model.handover import decode_handover
from podwire.model.node import Routing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.boundary import Clock, Store
    from podwire.drivers.store.standing import Standing

LOOK_EVERY_S = 0.2
TRIES = 10


@click.command("switch")
@click.argument("owner", type=click.Choice([each.value for each in Routing]))
@click.option(
    "--timeout",
    "timeout_s",
    default=60.0,
    metavar="SECONDS",
    help="How long all nodes may take; then everything is as before.",
)
@datastore_option
@click.pass_context
def switch_command(ctx: click.Context, owner: str, timeout_s: float) -> None:
    """Let OWNER (agent or bird) write the routes to other nodes' blocks.

    Both write until every node has all routes of the new owner; then those of the old one go. While
    no agent of ours serves a node yet, as before a takeover of Calico's nodes, it is only written
    down: their BIRDs go on as they are, and are never waited for.

    \b
      podwire bgp switch bird
    """  # noqa: D301  # click wants the character
    if timeout_s <= 0:
        raise BadInput("--timeout must be more than 0")
    told = switch(open_datastore(ctx), Routing(owner), timeout_s, SystemClock())
    click.echo(told)


def switch(store: Store, owner: Routing, timeout_s: float, clock: Clock) -> str:
    """Carry the switch out; what came of it, in a sentence.

    Raises:
        NotFound: there is no cluster in this datastore.
        InUse: some node cannot do without the old owner; nothing has changed.
    """
    standing = read_standing(store)
    before = standing.cluster
    if before.routing is owner and before.next_routing is None and not standing.undecided:
        return f"{_title(owner)} write the routes already"
    if owner is Routing.AGENT:
        _refuse_calicos(store, standing)
    if not standing.ours:
        _write(store, routing=owner, next_routing=None)
        return _first_word(standing, owner)
    if before.routing is not owner:
        _write(store, next_routing=owner)
    deadline = clock.monotonic() + timeout_s
    while lacking := _lacking(store, owner):
        if clock.monotonic() >= deadline:
            if before.routing is not owner:
                _write(store, next_routing=None)
            told = "; ".join(f"{name}: {why}" for name, why in sorted(lacking.items()))
            raise InUse(
                f"after {timeout_s:g} s not every node has all routes of {_title(owner)} ({told}):"
                " nothing was switched",
                fix="mend these nodes, or delete the Node objects of those that are gone",
            )
        clock.sleep(LOOK_EVERY_S)
    _write(store, routing=owner, next_routing=None)
    return f"{_title(owner)} write the routes now, on all nodes{_beside(standing)}"


def _refuse_calicos(store: Store, standing: Standing) -> None:
    """Refuse to stop speaking BGP while nodes of Calico's hear nothing else.

    Raises:
        InUse: some run.
    """
    there = running(store, standing.calicos) if standing.pools else ()
    if there:
        raise InUse(
            f"Calico runs on {names(there)} and learns there of blocks by BGP alone"
            f" (pool {names(standing.pools)}): without it their pods and ours would lose each"
            " other; nothing was switched",
            fix="podwire bgp switch bird, and agent when Calico has left every node",
        )


def _first_word(standing: Standing, owner: Routing) -> str:
    """Nobody's routes change: no agent of ours has written any."""
    told = f"{_title(owner)} write the routes, from Podwire's first node on"
    return f"{told}: no agent serves one yet, so no route has changed{_beside(standing)}"


def _beside(standing: Standing) -> str:
    if not standing.calicos:
        return ""
    return f"; Calico's nodes go on as they are: {names(standing.calicos)}"


def _lacking(store: Store, owner: Routing) -> dict[str, str]:
    """The nodes that lack routes of the new owner, and what each says.

    Calico's say nothing. They speak BGP already, and where they do not need it nothing changes for
    them; `_refuse_calicos` has seen to the rest.
    """
    lines = {entry.key: entry.value for entry in store.list(keys.APPLIED).entries}
    standing = read_standing(store)
    lacking: dict[str, str] = {}
    for name in standing.ours if standing.calicos else _all_nodes(store):
        handover = decode_handover(lines.get(keys.applied_key(name), {}))
        if handover is None:
            lacking[name] = "its agent has not answered"
        elif owner not in handover.complete:
            lacking[name] = handover.missing or "its routes are being written"
    return lacking


def _all_nodes(store: Store) -> Iterator[str]:
    found = (keys.parse_node_key(entry.key) for entry in store.list(keys.NODES).entries)
    return (name for name in found if name is not None)


def _write(store: Store, *, next_routing: Routing | None, routing: Routing | None = None) -> None:
    for attempt in range(TRIES):
        entry = store.get(keys.cluster_key())
        if entry is None:
            raise NotFound("the datastore has no ClusterInformation any more")
        cluster = decode_cluster(entry.key, entry.value)
        changed = replace(
            cluster,
            next_routing=next_routing,
            routing=routing or cluster.routing,
            undecided=False,
        )
        try:
            store.update(entry.key, encode(changed), entry.revision)
        except Stale:
            if attempt == TRIES - 1:
                raise
        else:
            return


def _title(owner: Routing) -> str:
    return "BIRDs" if owner is Routing.BIRD else "agents"
