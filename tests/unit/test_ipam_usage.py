"""How full pools are, and what `podwire ipam show` prints."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from threading import Lock, Thread
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.ipam import ipam as command
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.ipam.allocation import allocate, new_block, release
from podwire.ipam.records import collapsed
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.ipam.usage import compute_usage
from podwire.model.codec import encode, key_of
from tests.fakes.ipam_world import HandClock, asked, pool, reservation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podwire.model.addressing import IPNetwork
    from podwire.model.block import Block

CLOCK = HandClock()


def block(text: str, node: str, taken: Sequence[int], resting: Sequence[int] = ()) -> Block:
    found = new_block(ip_network(text), node, now=CLOCK.now(), now_ns=1)
    for ordinal in {*taken, *resting}:
        found = allocate(found, ordinal, "h", {"node": "b" if ordinal == 0 else node})
    return release(found, resting, now=CLOCK.now(), cooldown_s=60) if resting else found


def test_the_parts_of_a_pool_add_up() -> None:
    blocks = [
        block("10.0.0.0/30", "a", [0, 1], [2]),
        block("10.0.0.4/30", "b", [1]),
        block("10.9.0.0/30", "c", [1]),
    ]
    reserved = collapsed([ip_network("10.0.0.1/32"), ip_network("10.0.0.8/29")])
    usage = compute_usage([pool("p", "10.0.0.0/28")], reserved, blocks)
    ours, outside = usage.pools
    assert (ours.count.total, ours.count.in_use, ours.count.resting) == (16, 3, 1)
    # One reserved address was in use before the reservation.
    assert (ours.count.reserved, ours.count.free) == (8, 4)
    assert [(str(b.cidr), b.holder, b.borrowed) for b in ours.blocks] == [
        ("10.0.0.0/30", "a", 1),
        ("10.0.0.4/30", "b", 0),
    ]
    assert outside.pool is None
    assert [str(b.cidr) for b in outside.blocks] == ["10.9.0.0/30"]


NETWORKS = st.builds(
    lambda start, size: ip_network((start << (32 - size) & 0xFFFFFFFF, size)),
    st.integers(0, 31),
    st.integers(28, 32),
)


@given(st.lists(NETWORKS, max_size=5), st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
def test_every_address_is_counted_once(
    reserved: list[IPNetwork], one: set[int], two: set[int]
) -> None:
    blocks = [block("0.0.0.0/30", "a", sorted(one)), block("0.0.0.12/30", "b", [], sorted(two))]
    usage = compute_usage([pool("p", "0.0.0.0/28")], collapsed(reserved), blocks)
    count = usage.pools[0].count
    taken = {ip_address(o) for o in one} | {ip_address(12 + o) for o in two}
    kept = {a for a in ip_network("0.0.0.0/28") if any(a in network for network in reserved)}
    assert count.reserved == len(kept - taken)
    assert count.free == 16 - len(kept | taken)


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    path = tmp_path / "datastore.db"
    store = SQLiteStore(path)
    for value in (pool("p", "10.0.0.0/28"), reservation("r", "10.0.0.0/31")):
        store.create(key_of(value), encode(value))
    store.close()
    return path


def shown(datastore: Path, *arguments: str) -> str:
    result = CliRunner().invoke(command, ["show", "--datastore", str(datastore), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def allocated(datastore: Path, node: str, count: int) -> list[str]:
    store = SQLiteStore(datastore)
    ipam = IPAM(store, node, SystemClock(), SystemDice())
    found = [str(ipam.assign(asked(f"{node}{number}", node)).address) for number in range(count)]
    store.close()
    return found


class TestShow:
    def test_lists_pools(self, datastore: Path) -> None:
        allocated(datastore, "a", 3)
        header, row = shown(datastore).splitlines()
        assert header.split("   ")[0] == "GROUPING"
        assert row.split() == [
            *("IP", "Pool", "10.0.0.0/28", "16"),
            *("3", "(19%)", "2", "(12%)", "11", "(69%)"),
        ]

    def test_lists_blocks(self, datastore: Path) -> None:
        allocated(datastore, "a", 1)
        rows = shown(datastore, "--show-blocks", "-o", "wide").splitlines()[1:]
        assert [row.split()[0] for row in rows] == ["IP", "Block"]
        assert rows[0].endswith("p")
        assert rows[1].endswith("a")

    def test_says_who_has_an_address(self, datastore: Path) -> None:
        (address,) = allocated(datastore, "a", 1)
        lines = shown(datastore, "--ip", address).splitlines()
        assert lines[:2] == [f"IP {address} is in use", "Handle ID: a0"]
        assert "  pod: a0" in lines
        assert shown(datastore, "--ip", "10.0.0.1") == "10.0.0.1 is not assigned\n"

    def test_speaks_json(self, datastore: Path) -> None:
        (address,) = allocated(datastore, "a", 1)
        (found,) = json.loads(shown(datastore, "-o", "json"))["pools"]
        assert (found["name"], found["total"], found["inUse"], found["free"]) == ("p", 16, 1, 13)
        assert found["blocks"][0]["node"] == "a"
        one = json.loads(shown(datastore, "--ip", address, "-o", "json"))
        assert (one["inUse"], one["handle"], one["node"]) == (True, "a0", "a")
        assert one["sequence"] > 2**53

    def test_names_what_is_borrowed(self, datastore: Path) -> None:
        assert len(shown(datastore, "--show-borrowed").splitlines()) == 1
        holder, borrower = "a", {"node": "b", "namespace": "demo", "pod": "web"}
        store = SQLiteStore(datastore)
        ipam = IPAM(store, holder, SystemClock(), SystemDice(), node_labels={})
        taken = ipam.assign(AssignRequest(handle="net.1", attributes=borrower))
        store.close()
        header, row = shown(datastore, "--show-borrowed").splitlines()
        names = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"]
        assert re.split(r" {3,}", header) == names
        address, *rest = row.split()
        assert address == str(taken.address)
        assert rest == ["b", str(taken.block), "a", "pod", "demo/web"]
        (one,) = json.loads(shown(datastore, "--show-borrowed", "-o", "json"))
        assert (one["borrowing-node"], one["block-owner"]) == ("b", "a")

    def test_shows_the_configuration(self, datastore: Path) -> None:
        rows = [line.split() for line in shown(datastore, "--show-configuration").splitlines()]
        assert rows[0] == ["PROPERTY", "VALUE"]
        assert {"StrictAffinity", "MaxBlocksPerHost"} <= {row[0] for row in rows}
        arguments = ["show", "--datastore", str(datastore), "--show-borrowed", "--ip", "10.0.0.1"]
        result = CliRunner().invoke(command, arguments)
        assert "--show-borrowed and --ip exclude each other" in str(result.exception)

    def test_warns_of_what_it_cannot_read(self, datastore: Path) -> None:
        store = SQLiteStore(datastore)
        store.create("/calico/ipam/v2/assignment/ipv4/block/10.0.0.4-30", {"cidr": "x"})
        store.close()
        assert "warning: not counted: /calico/ipam/v2" in shown(datastore)

    def test_an_empty_datastore_has_no_pool(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "new.db")
        store.list("/")
        store.close()
        assert "no IPPool exists" in shown(tmp_path / "new.db")

    def test_a_wrong_address_is_refused(self, datastore: Path) -> None:
        arguments = ["show", "--datastore", str(datastore), "--ip", "x"]
        result = CliRunner().invoke(command, arguments)
        assert "--ip 'x' is not an IP address" in str(result.exception)


@pytest.mark.parametrize("turns", [True, False], ids=["in turn", "racing"])
def test_twenty_threads_get_twenty_addresses(tmp_path: Path, turns: bool) -> None:
    store = SQLiteStore(tmp_path / "datastore.db")
    value = pool("p", "10.0.0.0/24", block_size=26)
    store.create(key_of(value), encode(value))
    ipam = IPAM(store, "a", SystemClock(), SystemDice(), turn=Lock() if turns else None)
    found = []
    threads = [
        Thread(target=lambda n=number: found.append(ipam.assign(asked(f"h{n}")).address))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20
    store.close()


def test_nodes_share_a_datastore(datastore: Path) -> None:
    with ThreadPoolExecutor(3) as workers:
        parts = list(workers.map(lambda node: allocated(datastore, node, 4), "abc"))
    found = [address for part in parts for address in part]
    assert len(set(found)) == 12
