"""Half a set of rights: what is missing is named, and what can be done without it is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.trace_network import build, run

if TYPE_CHECKING:
    from pathlib import Path

ENDS = ("demo/web-0", "demo/db-0")


def podwire(
    *words: str, without: str = "", user: int | None = None, inside: str = ""
) -> tuple[int, Any]:
    """Exit code and document of a run that lacks capabilities for good."""
    place = ["ip", "netns", "exec", inside] if inside else []
    lacking = ",".join(f"-{name}" for name in without.split())
    limits = [f"--bounding-set={lacking}", f"--inh-caps={lacking}"] if lacking else []
    limits += [] if user is None else [f"--reuid={user}", "--clear-groups"]
    done = subprocess.run(
        [*place, "setpriv", *limits, sys.executable, "-m", "podwire", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def missing(document: Any) -> str:
    return " | ".join(f"{each['what']}: {each['why']}" for each in document["coverage"]["missing"])


def test_without_the_right_to_watch_the_prediction_stands_alone() -> None:
    build("vxlan")
    code, found = podwire("trace", *ENDS, "-o", "json", without="net_raw")
    assert code == 0
    assert found["level"] == 1
    assert found["result"]["probes"] is None
    assert "CAP_NET_RAW over it is missing; the prediction stands alone" in missing(found)
    assert "CAP_SYS_ADMIN" not in missing(found)


def test_without_the_right_to_see_rules_nothing_is_called_healthy() -> None:
    build("vxlan")
    code, found = podwire("trace", *ENDS, "-o", "json", without="net_admin")
    assert code == 4
    assert "nftables rules" in found["result"]["summary"]
    assert "CAP_NET_ADMIN" in found["result"]["summary"]


def test_without_the_right_to_enter_a_bundle_still_helps(tmp_path: Path) -> None:
    build("vxlan")
    code, found = podwire("trace", *ENDS, "-o", "json", without="sys_admin")
    assert code == 4
    assert "CAP_SYS_ADMIN" in found["result"]["summary"]
    assert "podwire collect" in found["result"]["summary"]
    # What root has saved needs no rights at all.
    bundle = tmp_path / "bundle.tgz"
    assert podwire("collect", "-o", str(bundle))[0] == 0
    every = "sys_admin net_admin net_raw sys_ptrace"
    code, found = podwire("trace", *ENDS, "--from", str(bundle), "-o", "json", without=every)
    assert code == 0
    assert found["result"]["disposition"] == "DELIVERED_AND_ANSWERED"


def test_without_the_right_to_enter_the_own_namespace_is_still_read() -> None:
    run("ip netns add alone")
    run("ip -n alone link set lo up")
    run("ip -n alone addr add 192.0.2.1/32 dev lo")
    ends = ("192.0.2.1", "192.0.2.1")
    code, found = podwire("trace", *ends, "-o", "json", without="sys_admin", inside="alone")
    assert code == 0, found["result"]
    assert found["result"]["disposition"] == "DELIVERED_AND_ANSWERED"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become somebody else")
def test_nobody_hears_what_is_missing() -> None:
    build("vxlan")
    every = "sys_admin net_admin net_raw sys_ptrace dac_override dac_read_search"
    code, found = podwire("trace", *ENDS, "-o", "json", without=every, user=65534)
    assert code == 4
    assert "CAP_SYS_ADMIN" in found["result"]["summary"]
