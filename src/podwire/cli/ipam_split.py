"""`podwire ipam split`: smaller pools in the place of one."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from podwire.boundary import Verb, Write
from podwire.cli.completing import complete_pool
from podwire.cli.context import datastore_option, open_datastore
from podwire.errors import AlreadyExists, BadInput, InUse, NotFound
from podwire.ipam.split import missing_parts, part_name, split_pool
from podwire.model import codec, keys
from podwire.model.addressing import parse_network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.boundary import Entry, Store
    from podwire.model.pool import IPPool

AT_ONCE = 100
"""Writes in one batch; etcd takes 128."""


@click.command()
@click.argument("number", metavar="N", type=int)
@click.option("--cidr", metavar="CIDR", help="The pool with this CIDR.")
@click.option("--name", metavar="POOL", shell_complete=complete_pool, help="The pool's name.")
@datastore_option
@click.pass_context
def split(ctx: click.Context, number: int, cidr: str | None, name: str | None) -> None:
    """Put N pools of equal size (a power of 2) in the place of one.

    Blocks, addresses and pods stay as they are. The datastore has to be locked meanwhile, so that
    no agent takes addresses. Cut off in the middle, the same command goes on.

    \b
      podwire datastore migrate lock
      podwire ipam split 4 --name pods
      podwire datastore migrate unlock
    """  # noqa: D301  # click wants the character
    if (cidr is None) == (name is None):
        raise BadInput("which pool is to be split?", fix="write --name=POOL or --cidr=CIDR")
    done, parts = split_stored(open_datastore(ctx), number, cidr=cidr, name=name)
    click.echo(done)
    for part in parts:
        click.echo(f"  {part.name}  {part.cidr}")
    click.echo(
        "Next: podwire datastore migrate unlock; what names the old pool (annotations, CNI"
        " configurations) has to name the new ones"
    )


def split_stored(
    store: Store, number: int, *, cidr: str | None = None, name: str | None = None
) -> tuple[str, Sequence[IPPool]]:
    """Split the pool with that CIDR or name; what was done, and the parts.

    Raises:
        InUse: the datastore is not locked, or a part's name is taken; nothing was changed.
        NotFound: there is no such pool. BadInput: it cannot be split so.
    """
    _refuse_unlocked(store)
    pools = {entry.key: (entry, _pool(entry)) for entry in store.list(keys.POOLS).entries}
    stored = {keys.parse_pool_key(key) or "": pool for key, (_, pool) in pools.items()}
    whole = _whole(list(pools.values()), cidr, name)
    if whole is None:
        made = [] if name is None else _made(stored, name, number)
        if not made:
            raise NotFound(
                f"there is no IPPool {name or cidr}", fix="see what there is: podwire get ippool"
            )
        return f"IPPool {name} is split already", made
    entry, pool = whole
    parts = split_pool(pool, number)
    _carry_out(store, entry, missing_parts(parts, stored))
    return f"Successfully split IPPool {pool.name} into {number} pools", parts


def _refuse_unlocked(store: Store) -> None:
    entry = store.get(keys.cluster_key())
    if entry is None or not codec.decode_cluster(entry.key, entry.value).ready:
        return
    raise InUse(
        "the datastore is not locked: agents could take addresses of the pool meanwhile",
        fix="podwire datastore migrate lock, split, podwire datastore migrate unlock",
    )


def _pool(entry: Entry) -> IPPool | None:
    with suppress(BadInput):
        return codec.decode_pool(entry.key, entry.value)
    return None


def _whole(
    pools: Sequence[tuple[Entry, IPPool | None]], cidr: str | None, name: str | None
) -> tuple[Entry, IPPool] | None:
    wanted = None if cidr is None else parse_network(cidr, "--cidr")
    for entry, pool in pools:
        if pool is not None and (pool.cidr == wanted if name is None else pool.name == name):
            return entry, pool
    return None


def _made(stored: Mapping[str, IPPool | None], name: str, number: int) -> list[IPPool]:
    """The parts of a pool that is gone, when all are there."""
    names = [part_name(name, each) for each in range(max(number, 0))]
    parts = [part for each in names if (part := stored.get(each)) is not None]
    return parts if len(parts) == number else []


def _carry_out(store: Store, entry: Entry, missing: Sequence[IPPool]) -> None:
    """Make the parts, then delete the whole: at no time is an address in no pool.

    While both are there each block lies in two pools with the same settings, which harms nobody.
    """
    now = datetime.now(UTC)
    born = [replace(each, metadata=each.metadata.born(uuid.uuid4(), now)) for each in missing]
    writes = [
        Write(verb=Verb.CREATE, key=codec.key_of(each), value=codec.encode(each)) for each in born
    ]
    gone = Write(verb=Verb.DELETE, key=entry.key, revision=entry.revision)
    try:
        if store.can_batch:
            for start in range(0, len(writes), AT_ONCE):
                last = start + AT_ONCE >= len(writes)
                store.batch([*writes[start : start + AT_ONCE], *([gone] if last else [])])
            if not writes:
                store.delete(entry.key, entry.revision)
            return
        for write in writes:
            store.create(write.key, write.value or {})
        store.delete(entry.key, entry.revision)
    except AlreadyExists as error:
        raise InUse(
            f"somebody else makes pools meanwhile: {error.message}", fix="look, and split again"
        ) from None
