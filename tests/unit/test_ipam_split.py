"""A pool is split without anybody's address noticing, even when the splitting is cut off."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cli.ipam_split import split_stored
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.single_object import Crash, SingleObjectStore
from podwire.errors import BadInput, InUse
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.ipam.split import part_name, split_pool
from podwire.model import codec, keys
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from pathlib import Path

POOL = IPPool(
    metadata=Metadata(name="pods", labels={"zone": "a"}, uid="u"),
    cidr=ip_network("10.244.0.0/16"),
    vxlan_mode=Mode.ALWAYS,
    nat_outgoing=True,
    wire={"spec": {"unheardOf": 1}},
)


@given(st.integers(1, 6), st.integers(16, 24))
def test_the_parts_are_the_whole(power: int, prefix: int) -> None:
    pool = replace(POOL, cidr=ip_network(f"10.244.0.0/{prefix}"), block_size=30)
    parts = split_pool(pool, 2**power)
    assert len(parts) == 2**power
    assert sum(part.cidr.num_addresses for part in parts) == pool.cidr.num_addresses
    assert all(part.cidr.subnet_of(pool.cidr) for part in parts)  # type: ignore[arg-type]  # one family
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        same = replace(part, metadata=pool.metadata, cidr=pool.cidr)
        assert same == pool
        assert part.metadata.labels == {"zone": "a"}
        assert codec.encode(part)["spec"]["unheardOf"] == 1


@pytest.mark.parametrize(
    ("parts", "fix"),
    [(0, "write 2"), (1, "write 2"), (3, "write 4"), (-4, "write 2"), (5000, "write 1024")],
)
def test_the_number_is_a_power_of_two(parts: int, fix: str) -> None:
    with pytest.raises(BadInput, match="must be a power of 2") as bad:
        split_pool(POOL, parts)
    assert bad.value.fix == fix


def test_a_part_holds_a_block_at_least() -> None:
    with pytest.raises(BadInput, match="smaller than a block") as bad:
        split_pool(replace(POOL, cidr=ip_network("10.0.0.0/24")), 8)
    assert bad.value.fix == "choose fewer parts; possible are at most 4"
    with pytest.raises(BadInput):
        split_pool(replace(POOL, cidr=ip_network("10.0.0.0/26")), 2)


def test_a_long_name_is_cut() -> None:
    assert part_name("pods", 3) == "split-pods-3"
    assert len(part_name("p" * 253, 17)) == 253
    assert part_name("p" * 253, 17).endswith("-17")


def filled(store: SingleObjectStore) -> dict[str, object]:
    """A locked cluster with a pod's address; the keys and values outside of pools."""
    cluster = ensure_cluster(store)
    store.create(keys.pool_key("pods"), codec.encode(POOL))
    ipam = IPAM(store, "n1", SystemClock(), SystemDice(), node_labels={})
    ipam.assign(AssignRequest(handle="net.1", attributes={"node": "n1", "pod": "web"}))
    entry = store.get(keys.cluster_key())
    assert entry is not None
    store.update(entry.key, codec.encode(replace(cluster, ready=False)), entry.revision)
    return rest(store)


def rest(store: SingleObjectStore) -> dict[str, object]:
    entries = store.list("/").entries
    return {e.key: e.value for e in entries if not e.key.startswith(keys.POOLS)}


def pools(store: SingleObjectStore) -> dict[str, IPPool]:
    found = [codec.decode_pool(e.key, e.value) for e in store.list(keys.POOLS).entries]
    return {pool.name: pool for pool in found}


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("writes", range(7))
def test_cut_off_anywhere_the_same_command_goes_on(writes: int, batches: bool) -> None:
    store = SingleObjectStore(batches=batches)
    before = filled(store)
    block = ip_network("10.244.0.0/26")
    store.fail_after(writes, Crash())
    with suppress(Crash):
        split_stored(store, 4, name="pods")
    # At no moment is an address in no pool, and all pools it is in say the same.
    holding = [p for p in pools(store).values() if p.cidr.supernet_of(block)]  # type: ignore[arg-type]  # one family
    assert holding
    assert {(p.encapsulation, p.mode, p.nat_outgoing) for p in holding} == {
        (POOL.encapsulation, POOL.mode, True)
    }
    store.recover()
    split_stored(store, 4, name="pods")
    assert sorted(pools(store)) == [f"split-pods-{number}" for number in range(4)]
    assert len({pool.metadata.uid for pool in pools(store).values()}) == 4
    assert rest(store) == before
    split_stored(store, 4, name="pods")  # again: all is done already


def test_a_foreign_pool_in_the_place_of_a_part_is_left_alone() -> None:
    store = SingleObjectStore()
    filled(store)
    other = IPPool(metadata=Metadata(name="split-pods-2"), cidr=ip_network("10.9.0.0/16"))
    store.create(keys.pool_key(other.name), codec.encode(other))
    with pytest.raises(InUse, match="split-pods-2 is there and is not 10"):
        split_stored(store, 4, name="pods")
    assert sorted(pools(store)) == ["pods", "split-pods-2"]


def test_from_the_command_line(tmp_path: Path) -> None:
    with command_line(tmp_path / "datastore.db") as podwire:
        podwire.put(POOL)
        assert "holds no ClusterInformation" in podwire("datastore", "migrate", "lock").err
        ensure_cluster(podwire.store)
        said = podwire("ipam", "split", "2", "--name=pods")
        assert (said.code, "podwire datastore migrate lock" in said.err) == (1, True)
        assert podwire.done("datastore", "migrate", "lock").out == "Datastore locked\n"
        assert podwire.done("datastore", "migrate", "lock").out == "Datastore was locked\n"
        assert podwire.done("get", "clusterinfo").rows[1][-1] == "false"
        for words, problem in (
            ((), "which pool"),
            (("--name=pods", "--cidr=10.244.0.0/16"), "which pool"),
            (("--name=none",), "there is no IPPool none"),
            (("--cidr=10.9.0.0/16",), "there is no IPPool 10.9.0.0/16"),
            (("--cidr=banana",), "not a network"),
        ):
            said = podwire("ipam", "split", "2", *words)
            assert said.code in {1, 64}
            assert problem in said.err
        done = podwire.done("ipam", "split", "--cidr=10.244.0.0/16", "2")
        assert "Successfully split IPPool pods into 2 pools" in done.out
        assert podwire.done("get", "ippool").rows[1:] == [
            ["split-pods-0", "10.244.0.0/17", "all()"],
            ["split-pods-1", "10.244.128.0/17", "all()"],
        ]
        assert podwire.done("datastore", "migrate", "unlock").out == "Datastore unlocked\n"
