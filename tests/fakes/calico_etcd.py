"""What Calico leaves in an etcd: the files of tests/golden/calico, and stores filled with them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers.store.jsontext import from_stored
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.boundary import Store
    from podwire.model.resource import Wire

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "calico"
RELEASES = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def texts(release: str) -> dict[str, str]:
    """Key → value as it lies in etcd: a key at the margin, its value in the line below."""
    lines = (FOLDER / f"{release}.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    keys = [line for line in lines if line.startswith("/")]
    values = [line.removeprefix("  ") for line in lines if not line.startswith("/")]
    return dict(zip(keys, values, strict=True))


def values(release: str) -> dict[str, Wire]:
    return {key: from_stored(key, text) for key, text in texts(release).items()}


def fill(store: Store, release: str) -> dict[str, Wire]:
    """Write all of it into an empty store; what was written."""
    written = values(release)
    write(store, written)
    return written


def write(store: Store, wires: Mapping[str, Wire]) -> None:
    for key, value in wires.items():
        store.create(key, value)


def without_tunnels(wires: Mapping[str, Wire]) -> dict[str, Wire]:
    """The cluster of `bgp` as Calico leaves it when its pool has no encapsulation."""
    found: dict[str, Wire] = {}
    for key, wire in deepcopy(dict(wires)).items():
        if "ipip-tunnel-addr" in key:
            continue
        if keys.parse_pool_key(key):
            wire["spec"]["ipipMode"] = "Never"
        elif keys.parse_node_key(key):
            del wire["spec"]["bgp"]["ipv4IPIPTunnelAddr"]
        elif keys.parse_block_key(key):
            # The tunnel's is the first address and the last attribute of each block.
            wire["allocations"][0] = None
            wire["unallocated"].append(0)
            wire["attributes"].pop()
            del wire["sequenceNumberForAllocation"]["0"]
        found[key] = wire
    return found


def contents(store: Store) -> dict[str, Wire]:
    return {entry.key: entry.value for entry in store.list("").entries}
