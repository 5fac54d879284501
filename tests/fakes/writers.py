"""Several people who write at the same moment: each has checked before any of them writes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from podwire.cli.applying import apply_documents
from podwire.cli.yamlfile import parse_documents
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Entry, Store, Write


OVERLAPPING = ("10.0.0.0/16", "10.0.1.0/24", "10.0.0.0/8")


class Together:
    """A store whose first batch waits until all others come to theirs."""

    def __init__(self, store: Store, all_: threading.Barrier) -> None:
        self._store = store
        self._all: threading.Barrier | None = all_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def batch(self, writes: Sequence[Write]) -> Sequence[Entry | None]:
        """Carry them out, the first time with everybody else."""
        if self._all is not None:
            self._all.wait(20)
            self._all = None
        return self._store.batch(writes)


def apply_together(stores: Sequence[Store], texts: Sequence[str]) -> list[str]:
    """What became of each writer's documents: empty when they were written, else the error."""
    barrier = threading.Barrier(len(texts))

    def write(store: Store, text: str) -> str:
        together: Any = Together(store, barrier)
        try:
            apply_documents(together, parse_documents(text, "file"), "default")
        except PodwireError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(write, stores, texts))


def document(kind: str, name: str, spec: dict[str, Any]) -> str:
    """One resource as JSON."""
    whole = {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    return json.dumps(whole)


def pool(name: str, cidr: str) -> str:
    """An IPPool."""
    return document("IPPool", name, {"cidr": cidr})


def node(name: str, address: str) -> str:
    """A Node."""
    return document("Node", name, {"bgp": {"ipv4Address": address}})


def endpoint(name: str, address: str) -> str:
    """A WorkloadEndpoint."""
    spec = {
        "node": "a",
        "orchestrator": "cni",
        "containerID": name,
        "endpoint": "eth0",
        "interfaceName": f"cali{name}",
        "ipNetworks": [f"{address}/32"],
    }
    return document("WorkloadEndpoint", name, spec)


def check_that_one_wins(stores: Sequence[Store]) -> None:
    """Of writers that collide one is written, and the others are told why not."""
    pools = [pool(f"p{n}", cidr) for n, cidr in enumerate(OVERLAPPING)]
    nodes = [node(f"n{n}", "192.0.2.1/24") for n in range(len(stores))]
    endpoints = [endpoint(f"e{n}", "10.0.0.1") for n in range(len(stores))]
    for plural, texts in {
        "ippools": pools[: len(stores)],
        "nodes": nodes,
        "workloadendpoints": endpoints,
    }.items():
        told = apply_together(stores, texts)
        assert told.count("") == 1, told
        assert all(" overlaps " in each or " already" in each for each in told if each), told
        found = stores[0].list(f"/calico/resources/v3/projectcalico.org/{plural}/")
        assert len(found.entries) == 1


def check_that_all_are_written(stores: Sequence[Store]) -> None:
    """Writers that do not collide are all written."""
    texts = [pool(f"p{number}", f"10.{number}.0.0/16") for number in range(len(stores))]
    assert apply_together(stores, texts) == [""] * len(stores)
