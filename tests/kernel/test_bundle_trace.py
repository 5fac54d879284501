"""What is predicted from a bundle is what is predicted live, for health and for faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podwire.cli.collect import collect
from podwire.cli.trace import trace
from podwire.drivers.bundle import facts_here, read_bundle, write_bundle
from podwire.drivers.collect import collect_all
from tests.kernel.trace_network import NODES, PODS, build, run, sysctl

if TYPE_CHECKING:
    from pathlib import Path

ENDS = ["demo/web-0", "demo/db-0"]


def document(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(trace, [*ENDS, "-o", "json", *arguments])
    assert done.exit_code in {0, 1}, done.output
    found: dict[str, object] = json.loads(done.stdout)
    del found["mode"], found["level"], found["coverage"]
    return found


def collected(path: Path) -> str:
    done = CliRunner().invoke(collect, ["-o", str(path)])
    assert done.exit_code == 0, done.output
    return done.stderr


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_health_offline_is_health_live(tmp_path: Path, encapsulation: str) -> None:
    build(encapsulation)
    path = tmp_path / "bundle.tgz"
    said = collected(path)
    assert "network namespaces" in said
    offline = document("--from", str(path))
    assert offline == document("--predict")
    assert offline["result"]["disposition"] == "DELIVERED_AND_ANSWERED"  # type: ignore[index]


@pytest.mark.parametrize(
    ("fault", "identity"),
    [
        ("ip -n vms105 route del 10.244.169.66", "route.missing-host-route"),
        ("ip -n vms103 neigh del 10.244.169.64 dev vxlan.calico", "neighbour.vtep-missing"),
        ("sysctl vms103", "forwarding.off"),
        ("ip -n db-0 link set eth0 down", "link.down"),
    ],
)
def test_a_fault_is_named_from_the_bundle(tmp_path: Path, fault: str, identity: str) -> None:
    build("vxlan")
    if fault.startswith("sysctl"):
        sysctl("vms103", "net/ipv4/ip_forward", 0)
    else:
        run(fault)
    path = tmp_path / "bundle.tgz"
    collected(path)
    offline = document("--from", str(path))
    assert offline == document("--predict")
    assert [each["id"] for each in offline["faults"]] == [identity]  # type: ignore[attr-defined]


def test_a_bundle_holds_every_section_as_it_was_read(tmp_path: Path) -> None:
    build("vxlan")
    path = tmp_path / "bundle.tgz"
    states = collect_all()
    assert {*NODES, *PODS} <= {state.namespace.name for state in states}
    write_bundle(path, states, facts_here())
    assert read_bundle(path).states == states


def test_a_damaged_bundle_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tgz"
    path.write_bytes(b"\x1f\x8b" + b"rubbish" * 9)
    done = CliRunner().invoke(trace, [*ENDS, "--from", str(path)])
    assert done.exit_code == 64
    assert "bundle.tgz" in done.stderr
