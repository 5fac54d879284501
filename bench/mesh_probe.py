"""Inside a lab, on one of its nodes: pods on new blocks, as `bench.meshes` asks for them.

python -m bench.mesh_probe FIRST COUNT: a line of JSON for each
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import observe
from podwire.drivers.netlink.monitor import Monitor
from podwire.drivers.store import open_store
from podwire.lab.state import DATASTORE, NETWORK, NodePaths
from podwire.model import keys
from podwire.model.addressing import contains
from podwire.model.codec import decode_pool, encode, key_of
from podwire.model.config import DatastoreConfig
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from podwire.model.route import Route, RouteKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podwire.boundary import Store

SPACE = IPv4Network("10.200.0.0/14")
PATIENCE_S = 60


def main() -> None:
    first, amount = map(int, sys.argv[1:])
    nodes = sorted(path.name for path in NodePaths("any").directory.parent.iterdir())
    for found in new_blocks(nodes, first, amount):
        print(json.dumps(found))


def new_blocks(nodes: list[str], first: int, amount: int) -> Iterable[dict[str, float]]:
    """Each pod comes from a pool of its own, so its ADD has to claim a block."""
    store = open_store(DatastoreConfig(path=str(DATASTORE)))
    pools = [_pool(first + number) for number in range(amount)]
    _retire_usual_pools(store)
    for pool in pools:
        store.create(key_of(pool), encode(pool))
    for number, pool in enumerate(pools):
        _wait(lambda pool=pool: _is_told(nodes, pool), "BIRD to know the pool")  # type: ignore[misc]
        where = 1 + (first + number) % (len(nodes) - 1)
        yield _one(nodes[where], nodes[0], pool)
    store.close()


def _pool(number: int) -> IPPool:
    cidr = IPv4Network((int(SPACE.network_address) + number * 256, 24))
    return IPPool(
        metadata=Metadata(name=f"bench-{number}"),
        cidr=cidr,
        namespace_selector=f"projectcalico.org/name == 'bench-{number}'",
    )


def _retire_usual_pools(store: Store) -> None:
    for entry in store.list(keys.POOLS).entries:
        pool = decode_pool(entry.key, entry.value)
        if pool.automatic and pool.namespace_selector is None:
            store.update(entry.key, encode(replace(pool, automatic=False)), entry.revision)


def _is_told(nodes: list[str], pool: IPPool) -> bool:
    """Whether every BIRD has read of the pool; true where there are none."""
    for node in nodes:
        paths = NodePaths(node)
        if not paths.bird_config.exists():
            continue
        if str(pool.cidr) not in paths.bird_config.read_text():
            return False
    # The file is replaced just before BIRD is told; its answer comes after it has read.
    for node in nodes:
        if NodePaths(node).bird_config.exists():
            with Control.open(str(NodePaths(node).bird_socket)) as control:
                observe(control)
    return True


def _one(here: str, there: str, pool: IPPool) -> dict[str, float]:
    """Milliseconds from the start of the plugin on `here`."""
    name = pool.metadata.name
    namespaces.create_named(name)
    found: dict[str, float] = {}
    with (
        namespaces.opened(NodePaths(there).netns) as other,
        Monitor("route", namespace_fd=other) as far,
    ):
        began = time.perf_counter()
        plugin = _add(here, name)
        ended = os.pidfd_open(plugin.pid)
        while len(found) < 2:
            watched: list[Monitor | int] = [far] if "answer" in found else [far, ended]
            ready, _, _ = select.select(watched, [], [], PATIENCE_S)
            now = (time.perf_counter() - began) * 1e3
            if not ready:
                raise RuntimeError(f"{name}: only {found} within {PATIENCE_S} s")
            if ended in ready:
                found["answer"] = now
            if far in ready and _has_block(far, pool):
                found.setdefault("route there", now)
        os.close(ended)
    output, _ = plugin.communicate()
    if plugin.returncode != 0:
        raise RuntimeError(f"ADD: {output}")
    return found


def _has_block(door: Monitor, pool: IPPool) -> bool:
    return any(
        isinstance(event.value, Route)
        and not event.deleted
        and event.value.kind is RouteKind.UNICAST
        and event.value.key.destination.prefixlen == pool.block_size
        and contains(pool.cidr, event.value.key.destination)
        for event in door.read()
    )


def _add(node: str, name: str) -> subprocess.Popen[str]:
    paths = NodePaths(node)
    config = json.loads(paths.cni_config.read_text())
    plugin = config["plugins"][0] | {"cniVersion": config["cniVersion"], "name": NETWORK}
    process = subprocess.Popen(
        [str(paths.cni_programs / "podwire-cni")],
        env={
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": name.encode().hex().ljust(64, "0"),
            "CNI_NETNS": str(namespaces.named_path(name)),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(paths.cni_programs),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={name};K8S_POD_NAME=pod",
            "PATH": os.environ["PATH"],
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(plugin))
    process.stdin.close()
    process.stdin = None
    return process


def _wait(condition: Callable[[], bool], what: str, pause_s: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
