"""`podwire bgp reflectors`: route reflectors instead of a mesh, and back."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from podwire.boundary import Verb, Write
from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.writing import write_all
from podwire.desired.reflectors import (
    CANDIDATES,
    USUAL_COUNT,
    Change,
    elect,
    to_mesh,
    to_reflectors,
)
from podwire.errors import Conflict, Stale
from podwire.model import codec, keys
from podwire.model.bgp import BGPConfiguration, BGPPeer
from podwire.model.node import Node
from podwire.model.resource import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.boundary import Entry, Store

S = TypeVar("S", bound=Stored)
TRIES = 5


@click.group("reflectors")
def reflectors_command() -> None:
    """Route reflectors instead of a session between every two nodes.

    \b
      podwire bgp reflectors auto
    """  # noqa: D301  # click wants the character


@reflectors_command.command()
@click.option("--count", default=USUAL_COUNT, type=click.IntRange(min=1), help="How many.")
@click.option("--selector", default=CANDIDATES, show_default=True, help="Who may be elected.")
@click.option("--dry-run", is_flag=True, help="Say who it would be, and change nothing.")
@datastore_option
@click.pass_context
def auto(ctx: click.Context, count: int, selector: str, dry_run: bool) -> None:
    """Elect reflectors among labelled nodes and move the mesh over to them.

    While sessions end and begin the agents' own routes stand in, so no packet is lost.

    \b
      podwire bgp reflectors auto
    """  # noqa: D301  # click wants the character
    names: list[str] = []

    def decide(view: View) -> Change:
        chosen = elect(view.nodes, selector, count)
        names[:] = [node.name for node in chosen]
        return to_reflectors(chosen, view.nodes, view.configurations, view.peers)

    changed = _carry_out(open_datastore(ctx), decide, dry_run=dry_run)
    click.echo(_told(names, changed=changed, dry_run=dry_run))


@reflectors_command.command()
@datastore_option
@click.pass_context
def off(ctx: click.Context) -> None:
    """Go back to the mesh; reflectors made by hand stay.

    \b
      podwire bgp reflectors off
    """  # noqa: D301  # click wants the character

    def decide(view: View) -> Change:
        return to_mesh(view.nodes, view.configurations, view.peers)

    changed = _carry_out(open_datastore(ctx), decide, dry_run=False)
    click.echo("the mesh is back" if changed else "the mesh is there already")


class View:
    """What the datastore says of nodes and peerings, with the revisions to write over."""

    def __init__(self, store: Store) -> None:
        self.entries: dict[str, Entry] = {}
        self.nodes = self._read(store, keys.NODES, Node)
        configurations = self._read(store, keys.BGP_CONFIGURATIONS, BGPConfiguration)
        self.configurations = {each.name: each for each in configurations}
        self.peers = {each.name: each for each in self._read(store, keys.BGP_PEERS, BGPPeer)}

    def _read(self, store: Store, prefix: str, kind: type[S]) -> list[S]:
        found = store.list(prefix).entries
        self.entries |= {entry.key: entry for entry in found}
        values = (codec.decode(entry.key, entry.value) for entry in found)
        return [value for value in values if isinstance(value, kind)]

    def writes(self, change: Change) -> Iterable[Write]:
        """The change as writes over what was read."""
        for value in change.write:
            key = codec.key_of(value)
            entry = self.entries.get(key)
            if entry is None:
                yield Write(verb=Verb.CREATE, key=key, value=codec.encode(_born(value)))
            else:
                wire = codec.encode(value)
                yield Write(verb=Verb.UPDATE, key=key, value=wire, revision=entry.revision)
        for value in change.delete:
            key = codec.key_of(value)
            yield Write(verb=Verb.DELETE, key=key, revision=self.entries[key].revision)


def _carry_out(store: Store, decide: Callable[[View], Change], *, dry_run: bool) -> bool:
    """Write what is decided over what is read, as often as others come between."""
    for _ in range(TRIES):
        view = View(store)
        writes = tuple(view.writes(decide(view)))
        if dry_run or not writes:
            return bool(writes)
        try:
            write_all(store, writes, again="run it again: it goes on where it stopped")
        except Stale:
            continue
        return True
    raise Conflict("others keep changing the nodes", fix="try again")


def _born(value: Stored) -> Stored:
    assert isinstance(value, BGPPeer | BGPConfiguration)
    return replace(value, metadata=value.metadata.born(uuid.uuid4(), datetime.now(UTC)))


def _told(names: list[str], *, changed: bool, dry_run: bool) -> str:
    who = ", ".join(sorted(names))
    if not changed:
        return f"the route reflectors are {who} already"
    return f"the route reflectors would be {who}" if dry_run else f"the route reflectors are {who}"
