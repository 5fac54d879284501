"""What `podwire ipam check` finds, and what a release from its report leaves alone."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podwire.cli.main import podwire
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.ipam.check import Trouble, check
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import codec, keys
from podwire.model.block import Affinity
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.ipam_world import pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from podwire.boundary import Store
    from podwire.model.resource import Stored


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = SQLiteStore(str(file))
    put(store, pool("pods", "10.0.0.0/24"))
    put(store, Node(metadata=Metadata(name="a"), address=ip_interface("192.0.2.1/24")))
    yield store
    store.close()


def put(store: Store, value: Stored) -> None:
    store.delete(codec.key_of(value))
    store.create(codec.key_of(value), codec.encode(value))


def ipam(store: Store, node: str = "a") -> IPAM:
    return IPAM(store, node, SystemClock(), SystemDice(), node_labels={})


def endpoint(name: str, address: str, node: str = "a") -> WorkloadEndpoint:
    return WorkloadEndpoint(
        metadata=Metadata(name=f"{node}-k8s-{name}-eth0", namespace="demo"),
        orchestrator="k8s",
        node=node,
        container_id=name,
        pod=name,
        endpoint="eth0",
        interface="cali1",
        mac="02:00:00:00:00:01",
        addresses=(ip_interface(f"{address}/32"),),
    )


def pod(store: Store, name: str, node: str = "a") -> str:
    """An address, its handle and its endpoint, as an ADD leaves them."""
    asked = AssignRequest(handle=f"net.{name}", attributes={"node": node, "pod": name})
    address = str(ipam(store, node).assign(asked).address)
    put(store, endpoint(name, address, node))
    return address


def troubles(store: Store) -> dict[str, str]:
    return {
        each.trouble.value: each.subject for each in check(store.list("/calico/").entries).problems
    }


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(podwire, [*words[:2], "--datastore", str(file), *words[2:]])


def test_a_sound_datastore_has_no_problem(store: Store, file: Path) -> None:
    pod(store, "one")
    pod(store, "two")
    assert troubles(store) == {}
    done = run(file, "ipam", "check")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "Looked at 1 blocks, 2 allocated addresses and 2 endpoints.",
        "  a has 2 addresses",
        "Check complete; found 0 problems.",
    ]


def test_every_disagreement_is_found(store: Store) -> None:
    address = pod(store, "one")
    put(store, endpoint("gone", pod(store, "gone")))
    store.delete(keys.endpoint_key("demo", "a-k8s-gone-eth0"))
    put(store, endpoint("outside", "192.0.2.77"))
    put(store, endpoint("stranger", "10.0.0.251"))
    put(store, endpoint("twin", address))
    ipam(store).assign(AssignRequest(handle="net.lost", attributes={"node": "a", "pod": "lost"}))
    store.delete(keys.handle_key("net.lost"))
    store.create(keys.handle_key("net.empty"), {"block": {"10.0.0.0/30": 1}, "deleted": False})
    put(store, Affinity(node="a", block=ip_network("10.0.0.252/30")))
    pod(store, "far", "b")
    for entry in store.list(keys.AFFINITIES).entries:
        if "/b/" in entry.key:
            store.delete(entry.key)
    store.create(keys.pool_key("broken"), {"spec": {"cidr": 7}})
    found = troubles(store)
    assert found.pop("invalidBlock", None) is None
    assert set(found) == {each.value for each in Trouble} - {"invalidBlock"}
    assert found["outsidePools"] == "192.0.2.77"
    assert found["notAllocated"] == "10.0.0.251"
    assert found["usedTwice"] == address
    assert found["handleWithoutAddress"] == "net.empty"
    assert found["missingHandle"] == "net.lost"
    assert found["affinityWithoutBlock"] == "10.0.0.252/30"


def test_a_block_that_counts_wrongly_is_invalid(store: Store) -> None:
    pod(store, "one")
    (entry,) = store.list(keys.BLOCKS4).entries
    store.update(entry.key, {**entry.value, "unallocated": [0, 3]}, entry.revision)
    assert set(troubles(store)) == {"invalidBlock"}


def test_a_report_releases_what_leaked_and_nothing_else(store: Store, file: Path) -> None:
    kept, leaked, reused = (pod(store, name) for name in ("kept", "leaked", "reused"))
    for name in ("leaked", "reused"):
        store.delete(keys.endpoint_key("demo", f"a-k8s-{name}-eth0"))
    store.create(keys.handle_key("net.empty"), {"block": {"10.0.0.0/30": 1}, "deleted": False})
    report = file.parent / "report.json"
    done = run(file, "ipam", "check", "-o", str(report))
    assert done.exit_code == 1
    assert "leaked: 2" in done.stdout
    assert done.stdout.endswith("Check complete; found 3 problems.\n")
    # Meanwhile one of them is given back, and given to another pod.
    ipam(store).release_handle("net.reused")
    again = AssignRequest(handle="net.new", attributes={"node": "a"}, address=ip_address(reused))
    ipam(store).assign(again)
    put(store, endpoint("new", reused))
    done = run(file, "ipam", "release", "--from-report", str(report))
    assert done.stdout == (
        "1 addresses released, 1 belong to somebody else by now; 1 empty handles deleted\n"
    )
    assert troubles(store) == {}
    assert "not assigned" in run(file, "ipam", "show", "--ip", leaked).stdout
    for address in (kept, reused):
        assert "in use" in run(file, "ipam", "show", "--ip", address).stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "say what to release"),
        (("--ip", "10.0.0.300"), "not an IP address"),
        (("--ip", "10.0.0.250"), "not allocated: 10.0.0.250"),
        (("--ip", "10.0.0.0"), "is used by pod demo/one"),
        (("--from-report", "-"), "no report"),
    ],
)
def test_what_cannot_be_released_is_said(
    store: Store, file: Path, words: tuple[str, ...], error: str
) -> None:
    address = pod(store, "one")
    words = tuple(address if word == "10.0.0.0" else word for word in words)
    done = run(file, "ipam", "release", *words)
    assert done.exit_code != 0
    assert error in str(done.exception)
    assert troubles(store) == {}


def test_an_address_is_released_by_force(store: Store, file: Path) -> None:
    address = pod(store, "one")
    done = run(file, "ipam", "release", "--force", "--ip", address)
    assert done.stdout == f"Successfully released {address}\n"
    assert set(troubles(store)) == {"notAllocated"}


def test_the_configuration_is_changed_and_shown(store: Store, file: Path) -> None:
    done = run(
        file,
        "ipam",
        "configure",
        "--strictaffinity",
        "true",
        "--max-blocks-per-host",
        "7",
        "--ip-cooldown-seconds",
        "30",
    )
    assert done.exit_code == 0
    shown = dict(line.split() for line in run(file, "ipam", "configure").stdout.splitlines())
    assert shown == {
        "StrictAffinity": "true",
        "AutoAllocateBlocks": "true",
        "MaxBlocksPerHost": "7",
        "IPCooldownSeconds": "30",
    }
    done = run(file, "ipam", "configure", "--strictaffinity", "false")
    assert "block limit needs strict affinity" in str(done.exception)
    assert json.dumps(shown) == json.dumps(
        dict(line.split() for line in run(file, "ipam", "configure").stdout.splitlines())
    )


def test_a_load_balancers_address_is_no_leak(store: Store) -> None:
    attributes = {"type": "LoadBalancer", "service": "web"}
    ipam(store).assign(AssignRequest(handle="lb-x", attributes=attributes))
    assert troubles(store) == {}


def test_a_resting_address_is_no_leak(store: Store, file: Path) -> None:
    run(file, "ipam", "configure", "--ip-cooldown-seconds", "60")
    pod(store, "one")
    store.delete(keys.endpoint_key("demo", "a-k8s-one-eth0"))
    ipam(store).release_handle("net.one")
    assert "leaked" not in troubles(store)
