"""What `podwire ipam check` shows, and what a release leaves alone."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from podwire.ipam.request import AssignRequest
from podwire.model import keys
from tests.fakes.checked_store import (
    change,
    endpoint_key,
    ipam,
    leak,
    open_checked,
    owner,
    pod,
    problems,
    put,
    run,
)
from tests.fakes.ipam_world import pod_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = open_checked(file)
    yield store
    store.close()


def test_a_sound_datastore_has_no_problem(store: Store, file: Path) -> None:
    pod(store, "one")
    pod(store, "two")
    assert problems(store) == []
    done = run(file, "ipam", "check")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "Looked at 1 blocks, 2 allocated addresses and 2 endpoints.",
        "  a has 2 addresses",
        "Check complete; found 0 problems.",
    ]


def test_all_addresses_are_shown_with_who_uses_them(store: Store, file: Path) -> None:
    used, unused = pod(store, "x"), pod(store, "y")
    store.delete(endpoint_key("y"))
    lines = run(file, "ipam", "check", "--show-all-ips").stdout.splitlines()
    assert f"  {used} is used by pod demo/x" in lines
    assert f"  {unused} is used by nobody" in lines


def test_of_many_problems_ten_are_shown_unless_all_are_asked_for(store: Store, file: Path) -> None:
    for number in range(12):
        store.create(keys.handle_key(f"net.{number:02}"), {"block": {}, "deleted": False})
    assert "… and 2 more" in run(file, "ipam", "check").stdout
    done = run(file, "ipam", "check", "--show-problem-ips")
    assert "handle net.11 has no address" in done.stdout


def test_the_owner_and_the_time_of_a_leak_are_told(store: Store, file: Path) -> None:
    attributes = {**owner("x"), "timestamp": "2026-11-22 09:00:00.123 +0000 UTC"}
    asked = AssignRequest(handle="net.x", attributes=attributes)
    address = ipam(store).assign(asked).address
    done = run(file, "ipam", "check")
    assert (
        f"{address} is allocated to demo/x on a since 2026-11-22 09:00:00, and nobody uses it"
        in done.stdout
    )


def two_leaks_of_which_one_is_reused(store: Store, file: Path) -> tuple[Path, str, str]:
    leaked, reused = (pod(store, name) for name in ("leaked", "reused"))
    for name in ("leaked", "reused"):
        store.delete(endpoint_key(name))
    report = file.parent / "report.json"
    assert run(file, "ipam", "check", "-o", str(report)).exit_code == 1
    ipam(store).release_handle("net.reused")
    again = AssignRequest(
        handle="net.reused", attributes=owner("reused"), address=ip_address(reused)
    )
    ipam(store).assign(again)
    return report, leaked, reused


def test_a_report_is_refused_when_the_datastore_has_changed(store: Store, file: Path) -> None:
    report, leaked, reused = two_leaks_of_which_one_is_reused(store, file)
    before = store.list("/").revision
    done = run(file, "ipam", "release", "--from-report", str(report))
    assert f"the datastore has changed since the report: {reused}" in str(done.exception)
    assert store.list("/").revision == before
    # The allocation is another one, though handle and owner are the same.
    done = run(file, "ipam", "release", "--force", "--from-report", str(report))
    assert done.stdout == (
        "1 addresses released, 0 records mended;"
        " 1 have changed since the report and were left alone\n"
    )
    assert "not assigned" in run(file, "ipam", "show", "--ip", leaked).stdout
    assert "in use" in run(file, "ipam", "show", "--ip", reused).stdout


def test_an_address_that_is_used_by_now_is_not_released(store: Store, file: Path) -> None:
    """A store without batches: the endpoint comes after its address."""
    address = pod(store, "x")
    store.delete(endpoint_key("x"))
    report = file.parent / "report.json"
    run(file, "ipam", "check", "-o", str(report))
    put(store, pod_endpoint("x", address))
    for words in ((), ("--force",)):
        run(file, "ipam", "release", "--from-report", str(report), *words)
        assert "in use" in run(file, "ipam", "show", "--ip", address).stdout


def test_of_several_reports_only_what_all_have_is_released(store: Store, file: Path) -> None:
    first, second = file.parent / "first.json", file.parent / "second.json"
    leak(store)
    run(file, "ipam", "check", "-o", str(first))
    address = pod(store, "y")
    store.delete(endpoint_key("y"))
    run(file, "ipam", "check", "-o", str(second))
    done = run(file, "ipam", "release", *(f"--from-report={path}" for path in (first, second)))
    assert done.stdout == "1 addresses released, 0 records mended\n"
    assert problems(store) == [("leaked", address)]


def test_a_report_of_another_cluster_is_refused(store: Store, file: Path) -> None:
    leak(store)
    report = file.parent / "report.json"
    run(file, "ipam", "check", "-o", str(report))
    report.write_text(json.dumps({**json.loads(report.read_text()), "cluster": "another"}))
    done = run(file, "ipam", "release", "--force", "--from-report", str(report))
    assert "is a report of another cluster" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "say what to release"),
        (("--ip", "10.0.0.300"), "not an IP address"),
        (("--ip", "10.0.0.250"), "not allocated: 10.0.0.250"),
        (tuple(f"--ip=10.0.0.{n}" for n in range(101, 121)), "10.0.0.110 and 10 more"),
        (("--node", "typo"), "there is no Node typo, and nothing that one has left"),
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
    assert problems(store) == []


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("vxlanTunnelAddress", {"ipv4VXLANTunnelAddr": "ADDRESS"}),
        ("ipipTunnelAddress", {"bgp": {"ipv4IPIPTunnelAddr": "ADDRESS"}}),
        ("wireguardTunnelAddress", {}),
    ],
)
def test_the_tunnel_address_of_a_node_is_released_only_by_force(
    store: Store, file: Path, type_: str, fields: dict[str, Any]
) -> None:
    asked = AssignRequest(handle="tunnel-a", attributes={"node": "a", "type": type_})
    address = str(ipam(store).assign(asked).address)
    change(
        store, keys.node_key("a"), spec=json.loads(json.dumps(fields).replace("ADDRESS", address))
    )
    done = run(file, "ipam", "release", "--ip", address)
    assert "node a (leave it to the node's agent" in str(done.exception)
    assert run(file, "ipam", "release", "--ip", address, "--force").exit_code == 0


def test_an_endpoint_that_cannot_be_read_may_use_any_address(store: Store, file: Path) -> None:
    address = leak(store)
    store.create(keys.endpoint_key("demo", "broken"), {"spec": {"node": 1}})
    done = run(file, "ipam", "release", "--ip", address)
    assert "it cannot be told who uses addresses" in str(done.exception)
    assert run(file, "ipam", "release", "--ip", address, "--force").exit_code == 0


def test_an_address_is_released_by_force(store: Store, file: Path) -> None:
    address = pod(store, "one")
    done = run(file, "ipam", "release", "--force", "--ip", address)
    assert done.stdout == f"Successfully released {address}\n"
    assert [kind for kind, _ in problems(store)] == ["notAllocated"]


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
    done = run(file, "ipam", "configure", "--kubevirt-ip-persistence", "disabled")
    assert "KubeVirtVMAddressPersistence Disabled" in done.stdout
    assert store.get(keys.IPAM_CONFIG_KEY).value["ipCooldownSeconds"] == 30  # type: ignore[union-attr]  # there
    shown["KubeVirtVMAddressPersistence"] = "Disabled"
    done = run(file, "ipam", "configure", "--strictaffinity", "false")
    assert "block limit needs strict affinity" in str(done.exception)
    assert json.dumps(shown) == json.dumps(
        dict(line.split() for line in run(file, "ipam", "configure").stdout.splitlines())
    )


def test_addresses_of_load_balancers_and_stopped_machines_are_no_leaks(store: Store) -> None:
    balancer = {"type": "LoadBalancer", "service": "web"}
    ipam(store).assign(AssignRequest(handle="lb-x", attributes=balancer))
    machine = {**owner("virt-launcher-x"), "vmi-name": "x"}
    ipam(store).assign(AssignRequest(handle="net.vmi.demo.x", attributes=machine))
    assert problems(store) == []


def test_a_resting_address_is_no_leak(store: Store, file: Path) -> None:
    run(file, "ipam", "configure", "--ip-cooldown-seconds", "60")
    pod(store, "one")
    store.delete(endpoint_key("one"))
    ipam(store).release_handle("net.one")
    assert "leaked" not in dict(problems(store))
