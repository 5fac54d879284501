"""A full mesh of 50 BIRDs on one wire: from the start of the first to the last session.

Linux counts the ARP entries of all namespaces together and keeps 1,024 (gc_thresh3), fewer than
such a mesh needs on one machine; so the neighbours are written down before.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from bench import birds, cluster
from bench.measure import Comparison
from bench.memory import memory
from bench.world import run
from podwire.desired.bgpcompute import compute_bird
from podwire.desired.bgptext import render
from podwire.drivers import namespaces
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import observe
from podwire.errors import PodwireError
from podwire.model.node import Node
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from podwire.desired.bgp import BirdConfig

SIZES = (50, 3)


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """Seconds; and megabytes of one BIRD among them."""
    took = Comparison(title="a full mesh of BIRDs, start to last session", unit="s")
    size = Comparison(title="memory of a BIRD in it (PSS)", unit="MB")
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "link", "set", "switch", "up")
    for number in range(max(SIZES)):
        _make(number)
    for _ in range(max(2, rounds // 3)):
        for nodes in SIZES:
            seconds, kilobytes = _mesh(folder, nodes)
            title = f"{nodes} nodes, {nodes * (nodes - 1) // 2:,} sessions"
            took.add(title, seconds)
            size.add(title, kilobytes / 1e3)
    return [took, size]


def _name(number: int) -> str:
    return f"node-{number}"


def _address(number: int) -> IPv4Interface:
    return IPv4Interface(f"10.50.0.{100 + number}/24")


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _make(number: int) -> None:
    name = _name(number)
    namespaces.create_named(name)
    peer = ("peer", "name", "ens32", "address", _mac(number), "netns", name)
    run("ip", "link", "add", name, "type", "veth", *peer)
    run("ip", "link", "set", name, "master", "switch", "up")
    run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", name, "link", "set", "ens32", "up")
    run("ip", "-n", name, "address", "add", str(_address(number)), "dev", "ens32")
    others = (each for each in range(max(SIZES)) if each != number)
    lines = (
        f"neigh add {_address(each).ip} lladdr {_mac(each)} dev ens32 nud permanent\n"
        for each in others
    )
    run("ip", "-n", name, "-batch", "-", text="".join(lines))
    block = str(cluster.block(number))
    run("ip", "-n", name, "route", "add", "blackhole", block, "proto", "80")


def _mesh(folder: Path, size: int) -> tuple[float, float]:
    """Seconds until each has all sessions; kilobytes of the first."""
    nodes = {
        _name(number): Node(metadata=Metadata(name=_name(number)), address=_address(number))
        for number in range(size)
    }
    snapshot = Snapshot(in_sync=True, pools={"bench": cluster.pool()}, nodes=nodes)
    texts = {name: render(_config(snapshot, name), {}) for name in nodes}
    with ExitStack() as stack:
        began = time.perf_counter()
        pids = [
            stack.enter_context(birds.bird(name, *_files(folder, name), text))
            for name, text in texts.items()
        ]
        for name in nodes:
            birds.wait(lambda name=name: _is_whole(folder, name, size), f"{name}", 0.02)  # type: ignore[misc]
        took = time.perf_counter() - began
        kilobytes = memory(pids[0])["PSS"]
    for name in nodes:
        run("ip", "-n", name, "route", "flush", "proto", "bird")
    return took, kilobytes


def _config(snapshot: Snapshot, name: str) -> BirdConfig:
    config = compute_bird(snapshot, name)
    assert config is not None
    return config


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.conf", folder / f"{name}.ctl"


def _is_whole(folder: Path, name: str, size: int) -> bool:
    with suppress(PodwireError), Control.open(str(_files(folder, name)[1])) as control:
        sessions = observe(control).sessions.values()
        return sum(one.established for one in sessions) == size - 1
    return False
