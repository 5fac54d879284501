"""Ten nodes take 2,000 addresses from one etcd at once, from a pool that has hardly more."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.ipam.check import check
from podwire.ipam.records import Records
from podwire.model import codec, keys
from podwire.model.addressing import address_at
from podwire.model.block import AffinityState
from podwire.model.config import EtcdConfig
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.address_taker import EXHAUSTED
from tests.fakes.awaiting import wait_until
from tests.fakes.etcd_server import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODES, EACH = 10, 200
POOL = ip_network("10.244.0.0/21")
"""32 blocks of 64: 200 addresses want four of them, and there are not four for everybody."""
KILLS = 12
PATIENCE_S = 90.0


@dataclass
class Crowd:
    """The nodes' processes, and what they were told."""

    folder: Path
    server: EtcdServer
    store: EtcdStore
    working: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def begin(self, node: str) -> None:
        words = (self.server.endpoint, node, str(EACH), str(self.folder / node))
        self.working[node] = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.address_taker", *words]
        )

    def kill(self, node: str) -> None:
        process = self.working.pop(node)
        process.kill()
        process.wait()

    def is_over(self) -> bool:
        """Whether nobody works any more."""
        for node, process in list(self.working.items()):
            if process.poll() is not None:
                self.ended[node] = process.returncode
                del self.working[node]
        return not self.working

    def wait_for(self, count: int) -> None:
        """Until that many addresses were taken."""
        wait_until(lambda: self.is_over() or len(self.told()) >= count, PATIENCE_S)

    def told(self) -> dict[str, str]:
        """Container → address."""
        lines = [
            line for path in self.folder.glob("node-*") for line in path.read_text().splitlines()
        ]
        return dict(line.split() for line in lines)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    store = EtcdStore(EtcdConfig(endpoints=(server.endpoint,)))
    ensure_cluster(store)
    pool = IPPool(metadata=Metadata(name="default"), cidr=POOL)
    nodes = [
        Node(metadata=Metadata(name=f"node-{n}"), address=ip_interface(f"10.0.0.{n + 1}/24"))
        for n in range(NODES)
    ]
    for resource in (pool, *nodes):
        store.create(codec.key_of(resource), codec.encode(resource))
    folder = tmp_path / "told"
    folder.mkdir()
    made = Crowd(folder, server, store)
    yield made
    for node in list(made.working):
        made.kill(node)
    store.close()
    server.kill()


def allow_borrowing(store: EtcdStore, allowed: bool) -> None:
    entry = store.get(keys.IPAM_CONFIG_KEY)
    assert entry is not None
    config = replace(codec.decode_ipam_config(entry.key, entry.value), strict_affinity=not allowed)
    store.update(entry.key, codec.encode(config), entry.revision)


def agrees(crowd: Crowd) -> None:
    """What was told exists once, nothing else does, and every block has one owner."""
    told = crowd.told()
    assert len(set(told.values())) == len(told)
    records = Records(crowd.store)
    blocks = [record.value for record in records.blocks()]
    allocated = {
        allocation.attributes["pod"]: str(address_at(block.cidr, ordinal))
        for block in blocks
        for ordinal, allocation in block.allocations.items()
    }
    assert sum(len(block.allocations) for block in blocks) == len(allocated)
    assert allocated == told
    claims = [record.value for record in records.affinities()]
    assert {claim.state for claim in claims} == {AffinityState.CONFIRMED}
    assert Counter((claim.block, claim.node) for claim in claims) == Counter(
        (block.cidr, block.node) for block in blocks
    )
    report = check(crowd.store.list("/calico/").entries)
    assert report.problems == ()
    assert (report.allocations, report.endpoints) == (len(told), len(told))


@pytest.mark.parametrize(
    ("borrowing", "kills"),
    [
        (False, 0),
        (True, KILLS),
        pytest.param(True, 0, marks=pytest.mark.long),
        pytest.param(False, KILLS, marks=pytest.mark.long),
    ],
)
def test_no_address_twice_and_every_block_with_one_owner(
    crowd: Crowd, borrowing: bool, kills: int
) -> None:
    allow_borrowing(crowd.store, borrowing)
    dice = random.Random(kills)
    for number in range(NODES):
        crowd.begin(f"node-{number}")
    for number in range(1, kills + 1):
        crowd.wait_for(number * NODES * EACH // (kills + 2))
        victim = dice.choice(sorted(crowd.working))
        crowd.kill(victim)
        crowd.begin(victim)
    wait_until(crowd.is_over, PATIENCE_S)
    agrees(crowd)
    count = len(crowd.told())
    if borrowing:
        assert set(crowd.ended.values()) == {0}
        assert count == NODES * EACH
    else:
        # Somebody had no fourth block; nobody was refused an address that its blocks had.
        assert set(crowd.ended.values()) == {0, EXHAUSTED}
        assert len(Records(crowd.store).blocks()) == POOL.num_addresses // 64
