"""A datastore with one node and one pool, for what looks at all of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.cluster import ensure_cluster
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.ipam.check import check
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.ipam_world import pod_endpoint, pool

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from podwire.boundary import Store
    from podwire.model.resource import Stored


def open_checked(file: Path) -> Store:
    """Node a, and a pool of /30 blocks."""
    store = SQLiteStore(str(file))
    ensure_cluster(store)
    put(store, pool("pods", "10.0.0.0/24"))
    put(store, Node(metadata=Metadata(name="a"), address=ip_interface("192.0.2.1/24")))
    return store


def put(store: Store, value: Stored) -> None:
    store.delete(codec.key_of(value))
    store.create(codec.key_of(value), codec.encode(value))


def change(store: Store, key: str, **fields: Any) -> None:
    entry = store.get(key)
    assert entry is not None
    store.update(key, {**entry.value, **fields}, entry.revision)


def ipam(store: Store, node: str = "a") -> IPAM:
    return IPAM(store, node, SystemClock(), SystemDice(), node_labels={})


def owner(name: str, node: str = "a") -> dict[str, str]:
    return {"node": node, "namespace": "demo", "pod": name}


def pod(store: Store, name: str, node: str = "a") -> str:
    """An address, its handle and its endpoint, as an ADD leaves them."""
    asked = AssignRequest(handle=f"net.{name}", attributes=owner(name, node))
    address = str(ipam(store, node).assign(asked).address)
    put(store, pod_endpoint(name, address, node))
    return address


def leak(store: Store) -> str:
    """A pod that went without its DEL; its address."""
    address = pod(store, "x")
    store.delete(endpoint_key("x"))
    return address


def endpoint_key(name: str, node: str = "a") -> str:
    return codec.key_of(pod_endpoint(name, "10.0.0.1", node))


def problems(store: Store) -> list[tuple[str, str]]:
    found = check(store.list("/").entries, SystemClock().now()).problems
    return [(each.trouble.value, each.subject) for each in found]


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(podwire, [*words[:2], "--datastore", str(file), *words[2:]])


def block_of(store: Store, address: str) -> str:
    for entry in store.list(keys.BLOCKS4).entries:
        if ip_address(address) in (keys.parse_block_key(entry.key) or ()):
            return entry.key
    raise AssertionError(address)
