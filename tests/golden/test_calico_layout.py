"""An etcd that Calico filled: read, used and written back without losing a field or a key."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.jsontext import Opaque, to_text
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.drivers.store.transfer import export_lines, import_objects, parse_lines
from podwire.ipam.check import check
from podwire.ipam.records import Records
from podwire.ipam.service import IPAM, AssignRequest
from podwire.ipam.usage import read_address, read_usage
from podwire.model import codec, keys
from podwire.model.block import AffinityState
from tests.fakes.calico_etcd import RELEASES, contents, fill, texts, values

if TYPE_CHECKING:
    from pathlib import Path

    from podwire.boundary import Store
    from podwire.model.resource import Wire

KNOWN = (
    *(keys.POOLS, keys.NODES, keys.ENDPOINTS, keys.RESERVATIONS, keys.CLUSTER),
    *(keys.BGP_CONFIGURATIONS, keys.BGP_PEERS, keys.BGP_FILTERS),
    *(keys.BLOCKS, keys.AFFINITIES, keys.HANDLES, keys.IPAM_CONFIG_KEY),
)
OLD_BLOCK = "/calico/ipam/v2/assignment/ipv4/block/192.168.5.0-26"
BLOCK = "/calico/ipam/v2/assignment/ipv4/block/192.168.221.64-26"
NODE = "node-1"

MODELLED = [
    (release, key)
    for release in RELEASES
    for key in texts(release)
    if key.startswith(KNOWN) and key.removeprefix(keys.AFFINITIES).count("/") != 0
]


def exact(wire: Wire) -> Any:
    """What the JSON says, numbers and the order of lists included."""
    return json.loads(to_text(wire) or "{}")


@pytest.mark.parametrize(("release", "key"), MODELLED)
def test_what_calico_wrote_is_written_back_field_by_field(release: str, key: str) -> None:
    wire = values(release)[key]
    value = codec.decode(key, wire)
    assert codec.key_of(value) == key
    expected = exact(wire)
    if key == OLD_BLOCK:
        # The spelling before Calico 3 is read, and the present one written, as Calico does.
        expected["affinity"] = f"host:{expected.pop('hostAffinity')}"
    if not expected:
        # Nothing at all is a confirmed claim; who writes it again says so.
        expected = {"state": "confirmed", "deleted": False}
    assert exact(codec.encode(value)) == expected


def test_what_calico_wrote_means_what_it_means_there() -> None:
    wires = values("oldest")
    states = {
        key: affinity.state
        for key in wires
        if keys.parse_affinity_key(key)
        for affinity in [codec.decode_affinity(key, wires[key])]
    }
    assert len(states) == 3
    assert set(states.values()) == {AffinityState.CONFIRMED}
    block = codec.decode_block(OLD_BLOCK, wires[OLD_BLOCK])
    assert block.node == NODE
    assert block.allocations[1].handle == "default.older"
    assert isinstance(values("vxlan")["/calico/ipam/v2/host/node-3"], Opaque)


@pytest.mark.parametrize("release", RELEASES)
def test_everything_moves_whoever_wrote_it(release: str) -> None:
    source, target = SingleObjectStore(batches=True), SingleObjectStore(batches=True)
    written = fill(source, release)
    import_objects(target, parse_lines(export_lines(source), release))
    there = {key: to_text(value) for key, value in contents(target).items()}
    assert there == {
        key: to_text(value) for key, value in written.items() if not key.startswith(keys.FELIX)
    }


def test_a_check_finds_only_what_is_wrong() -> None:
    found = {}
    for release in RELEASES:
        store = SingleObjectStore()
        fill(store, release)
        found[release] = [problem.sentence for problem in check(store.list("").entries).problems]
    assert found == {
        "bgp": [],
        "ipip": [],
        "newest": [],
        "oldest": ["192.168.7.10 is allocated and names no pod, and nobody uses it"],
        "vxlan": [
            "192.168.221.71 is allocated and names no pod, and nobody uses it",
            "192.168.221.72 is allocated and names no pod, and nobody uses it",
            "handle odd/one%two has no address",
        ],
    }


def ipam_of(store: Store, node: str) -> IPAM:
    return IPAM(store, node, SystemClock(), SystemDice())


def changed(before: dict[str, Wire], after: dict[str, Wire]) -> set[str]:
    return {
        key
        for key in before.keys() | after.keys()
        if key not in before or key not in after or to_text(before[key]) != to_text(after[key])
    }


@pytest.mark.parametrize("batches", [True, False])
def test_new_addresses_fit_in_and_go_without_a_trace(batches: bool) -> None:
    store = SingleObjectStore(batches=batches)
    before = fill(store, "vxlan")
    ipam = ipam_of(store, NODE)
    given = [
        ipam.assign(AssignRequest(handle=f"k8s-pod-network.{n}", attributes={"node": NODE}))
        for n in range(3)
    ]
    # The head of Calico's own queue of free addresses.
    head = exact(before[BLOCK])["unallocated"][:3]
    first = ip_address("192.168.221.64")
    assert [each.address for each in given] == [first + ordinal for ordinal in head]
    assert not any(each.borrowed for each in given)
    during = contents(store)
    assert changed(before, during) == {
        BLOCK,
        *(keys.handle_key(f"k8s-pod-network.{n}") for n in range(3)),
    }
    old, new = exact(before[BLOCK]), exact(during[BLOCK])
    assert [each for each in new["allocations"] if each is not None][: len(head)] == [0, 1, 2]
    for ordinal, index in enumerate(old["allocations"]):
        if index is not None:
            assert new["attributes"][new["allocations"][ordinal]] == old["attributes"][index]
    assert new["sequenceNumberForAllocation"].items() >= old["sequenceNumberForAllocation"].items()
    assert new["sequenceNumber"] == old["sequenceNumber"] + 3
    assert new["unallocated"] == old["unallocated"][3:]
    for n in range(3):
        ipam.release_handle(f"k8s-pod-network.{n}")
    after = contents(store)
    assert changed(before, after) == {BLOCK}
    last = exact(after[BLOCK])
    assert last.pop("sequenceNumber") == old.pop("sequenceNumber") + 6
    assert last.pop("unallocated") == [*old.pop("unallocated")[3:], *head]
    assert last == old


def test_what_calico_allocated_is_released_by_its_handle_and_nothing_else() -> None:
    store = SingleObjectStore(batches=True)
    before = fill(store, "vxlan")
    handle = exact(before[BLOCK])["attributes"][1]["handle_id"]
    released = ipam_of(store, NODE).release_handle(handle)
    assert [str(address) for address in released] == ["192.168.221.65"]
    after = contents(store)
    assert changed(before, after) == {BLOCK, keys.handle_key(handle)}
    old, new = exact(before[BLOCK]), exact(after[BLOCK])
    assert new["unallocated"] == [*old["unallocated"], 1]
    assert new["attributes"] == [each for each in old["attributes"] if each["handle_id"] != handle]
    assert "1" not in new["sequenceNumberForAllocation"]


def test_a_claim_of_another_node_is_never_touched() -> None:
    """Pending, given up, empty or very old: only its own node may do its steps again."""
    store = SingleObjectStore(batches=True)
    before = fill(store, "vxlan")
    ipam = ipam_of(store, "node-9")
    given = ipam.assign(AssignRequest(handle="pods.c1", attributes={"node": "node-9"}))
    claimed = {entry.block for entry in map(affinity_of, contents(store)) if entry is not None}
    assert given.block in claimed
    for key in changed(before, contents(store)):
        assert key not in before
    assert given.block not in {
        ip_network(text) for text in ("192.168.30.0/26", "192.168.66.0/26", "192.168.20.0/26")
    }


def affinity_of(key: str) -> Any:
    claim = keys.parse_affinity_key(key)
    return None if claim is None else codec.decode_affinity(key, {})


def test_addresses_of_both_families_and_of_services_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    fill(store, "vxlan")
    usage = {
        pool.pool.name: pool.count.in_use
        for pool in read_usage(Records(store)).pools
        if pool.pool is not None
    }
    assert usage == {
        "default-ipv4-ippool": 13,
        "default-ipv6-ippool": 2,
        "retired": 0,
        "vips": 2,
    }
    found = read_address(Records(store), ip_address("fd00:10:244:dd40::2"))
    assert found.allocation is not None
    assert found.allocation.attributes["pod"] == "api-0"
    for pool in ("default-ipv6-ippool", "vips"):
        words = ["delete", "ippool", pool, "--datastore", str(path)]
        done = CliRunner().invoke(podwire, words)
        assert "is in use: 2 addresses" in str(done.exception)
        assert store.get(keys.pool_key(pool)) is not None
    store.close()
