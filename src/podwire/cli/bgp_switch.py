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
from podwire.errors import BadInput, InUse, NotFound, Stale
from podwire.model import keys
from podwire.model.codec import decode_cluster, encode
from podwire.model.handover import decode_handover
from podwire.model.node import ClusterInformation, Routing

if TYPE_CHECKING:
    from podwire.boundary import Clock, Store

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

    Both write until every node has all routes of the new owner; then those of the old one go.

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
    before = _read(store)
    if before.routing is owner and before.next_routing is None:
        return f"{_title(owner)} write the routes already"
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
    return f"{_title(owner)} write the routes now, on all nodes"


def _lacking(store: Store, owner: Routing) -> dict[str, str]:
    """The nodes that lack routes of the new owner, and what each says."""
    lines = {entry.key: entry.value for entry in store.list(keys.APPLIED).entries}
    lacking: dict[str, str] = {}
    for entry in store.list(keys.NODES).entries:
        name = keys.parse_node_key(entry.key)
        if name is None:
            continue
        handover = decode_handover(lines.get(keys.applied_key(name), {}))
        if handover is None:
            lacking[name] = "its agent has not answered"
        elif owner not in handover.complete:
            lacking[name] = handover.missing or "its routes are being written"
    return lacking


def _read(store: Store) -> ClusterInformation:
    entry = store.get(keys.cluster_key())
    if entry is None:
        raise NotFound(
            "the datastore has no ClusterInformation", fix="start an agent: it creates it"
        )
    return decode_cluster(entry.key, entry.value)


def _write(store: Store, *, next_routing: Routing | None, routing: Routing | None = None) -> None:
    for attempt in range(TRIES):
        entry = store.get(keys.cluster_key())
        if entry is None:
            raise NotFound("the datastore has no ClusterInformation any more")
        cluster = decode_cluster(entry.key, entry.value)
        changed = replace(cluster, next_routing=next_routing, routing=routing or cluster.routing)
        try:
            store.update(entry.key, encode(changed), entry.revision)
        except Stale:
            if attempt == TRIES - 1:
                raise
        else:
            return


def _title(owner: Routing) -> str:
    return "BIRDs" if owner is Routing.BIRD else "agents"
