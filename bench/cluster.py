"""A big cluster that exists in a datastore only: 1,000 nodes with 10 blocks each."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from podwire.boundary import Verb, Write
from podwire.drivers.store import ensure_cluster, open_store
from podwire.model.block import Affinity
from podwire.model.codec import encode, key_of
from podwire.model.config import DatastoreConfig
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Store
    from podwire.model.resource import Stored

POOL = IPv4Network("10.128.0.0/9")
NODES = 1000
BLOCKS = 10_000
CHUNK = 1000


def block(number: int) -> IPv4Network:
    """The block of a number, from the end of the pool: what the agent under test claims is free."""
    return IPv4Network((int(POOL.broadcast_address) + 1 - (number + 1) * 64, 26))


def affinity(number: int) -> Affinity:
    return Affinity(node=f"node-{number % NODES}", block=block(number))


def stored() -> Iterator[Stored]:
    for number in range(NODES):
        # The bench's own host is 172.20.0.1/16: every node is its neighbour.
        address = IPv4Interface(f"172.20.{4 + number // 250}.{1 + number % 250}/16")
        yield Node(metadata=Metadata(name=f"node-{number}"), address=address)
    for number in range(BLOCKS):
        yield affinity(number)


def pool(cidr: IPv4Network = POOL) -> IPPool:
    return IPPool(metadata=Metadata(name="bench"), cidr=cidr)


def write(path: Path, *values: Stored) -> None:
    """Have a datastore that holds these objects as well."""
    store = open_store(DatastoreConfig(path=str(path)))
    ensure_cluster(store)
    writes = [Write(verb=Verb.CREATE, key=key_of(each), value=encode(each)) for each in values]
    for start in range(0, len(writes), CHUNK):
        store.batch(writes[start : start + CHUNK])
    store.close()


def toggle(store: Store, number: int) -> bool:
    """One change: a block more, or that block gone again. Says whether it is there now."""
    key = key_of(affinity(number))
    there = store.get(key)
    if there is None:
        store.create(key, encode(affinity(number)))
        return True
    store.delete(key, there.revision)
    return False
