"""A lab comes, is disturbed, and goes without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.conftest import Lab, make_lab, pods_manifest, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = make_lab("--nodes", "2")
    yield lab
    lab.try_run("down")


def processes_of(lab: Lab) -> set[int]:
    """Ids of all processes whose command line names the lab."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if lab.name.encode() in words and state != "Z":
            found.add(int(path.name))
    return found


def keeper_of(lab: Lab) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "podwire", "lab", "list"], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.split()[0] == lab.name]
    return int(line.split()[1])


def below(keeper: int) -> set[tuple[int, str]]:
    """Number and start of a keeper and of all processes under it; they hold its namespaces.

    Other labs come and go meanwhile, and the kernel gives numbers of namespaces out again.
    """
    parents, starts = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
            starts[int(path.parent.name)] = fields[19]
    found = {keeper} & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {(pid, starts[pid]) for pid in found}


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of them that are still there."""
    return {each for each in processes if each in below(each[0])}


def test_down_leaves_nothing(lab: Lab) -> None:
    lab.apply(pods_manifest(["vms100", "vms101"], 1))
    assert processes_of(lab)
    inside = below(keeper_of(lab))
    assert len(inside) > 4  # two nodes' agents, two pods
    lab.run("down")
    assert processes_of(lab) == set()
    assert alive(inside) == set()
    assert (
        lab.name
        not in subprocess.run(
            [sys.executable, "-m", "podwire", "lab", "list"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    )
    assert lab.try_run("status").returncode == 1
    assert lab.try_run("down").returncode == 0


def test_killing_the_keeper_ends_everything(lab: Lab) -> None:
    lab.apply(pods_manifest(["vms100", "vms101"], 1))
    os.kill(keeper_of(lab), signal.SIGKILL)
    wait_until(lambda: not processes_of(lab), "all processes end")
    assert lab.try_run("pods").returncode == 1
    lab.run("up", "--nodes", "1")


def test_a_name_is_taken_once(lab: Lab) -> None:
    done = lab.try_run("up")
    assert done.returncode == 1
    assert "runs already" in done.stderr


def test_a_killed_agent_is_back_within_a_moment(lab: Lab) -> None:
    lab.apply(pods_manifest(["vms100", "vms101"], 1))
    old = lab.node("vms101")["agent"]["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: lab.node("vms101")["agent"]["ready"], "the agent is back")
    assert lab.node("vms101")["agent"]["pid"] != old
    assert lab.ping_all() == []


def test_a_stopped_agent_stays_away_and_pods_go_on(lab: Lab) -> None:
    lab.apply(pods_manifest(["vms100", "vms101"], 1))
    agent(lab, "stop", "vms101")
    assert lab.node("vms101")["agent"]["pid"] is None
    assert lab.ping_all() == []
    agent(lab, "start", "vms101")
    assert lab.node("vms101")["agent"]["ready"]
    assert lab.ping_all() == []


def agent(lab: Lab, verb: str, node: str) -> None:
    command = [sys.executable, "-m", "podwire", "lab", "agent", verb, node, "--name", lab.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_held_agent_repairs_nothing_until_released(lab: Lab) -> None:
    lab.apply(pods_manifest(["vms100", "vms101"], 1))
    (block,) = lab.node("vms100")["blocks"]
    lab.run("hold", "vms101")
    assert lab.node("vms101")["agent"]["held"]
    lab.on("vms101", f"ip route del {block}")
    assert lab.ping_all() != []
    lab.run("release", "--all")
    wait_until(lambda: lab.ping_all() == [], "the route is repaired")
    assert not lab.node("vms101")["agent"]["held"]


def test_drift_is_repaired(lab: Lab) -> None:
    (block,) = lab.node("vms100")["blocks"]
    lab.on("vms101", f"ip route del {block}")
    wait_until(lambda: block in lab.on("vms101", "ip route"), "the route is back")


def test_deployments_are_applied_scaled_and_deleted(lab: Lab, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "examples" / "demo-deployment.yaml"
    assert "created" in lab.run("apply", "-f", str(file))
    first = {pod["name"]: pod["node"] for pod in lab.pods()}
    assert sorted(first.values()) == ["vms100", "vms101"]
    assert "unchanged" in lab.run("apply", "-f", str(file))
    lab.run("scale", "-n", "demo", "deployment/demo-deployment", "--replicas", "5")
    assert first.keys() <= {pod["name"] for pod in lab.pods()}
    assert len(lab.pods()) == 5
    assert lab.ping_all() == []
    changed = tmp_path / "changed.yaml"
    changed.write_text(file.read_text().replace('"/dev/null"', '"/dev/zero"'))
    lab.run("apply", "-f", str(changed))
    assert len(lab.pods()) == 2
    assert not first.keys() & {pod["name"] for pod in lab.pods()}
    lab.run("delete", "-f", str(file))
    assert lab.pods() == []
    assert lab.on("vms100", "ip -o link").count("cali") == lab.on("vms100", "ip -o link").count(
        "vxlan.calico"
    )


def test_a_pods_command_runs_and_is_started_again(lab: Lab) -> None:
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: once}\nspec:\n  restartPolicy: Never\n"
        "  containers: [{name: main, command: [sh, -c, 'exit 3']}]\n"
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: again}\nspec:\n"
        "  containers: [{name: main, command: [sh, -c, 'exit 0']}]\n"
    )
    wait_until(lambda: "Error" in lab.run("pods"), "the failure is shown")
    wait_until(lambda: "CrashLoopBackOff" in lab.run("pods"), "the restart is shown")


def test_a_bad_manifest_changes_nothing(lab: Lab) -> None:
    done = lab.try_run("apply", "-f", "-", stdin="apiVersion: v1\nkind: Pod\nkind: Pod\n")
    assert done.returncode == 64
    assert "standard input:3: kind is given twice" in done.stderr
    assert lab.pods() == []


def test_labs_live_side_by_side(lab: Lab, new_lab: Callable[..., Lab]) -> None:
    other = new_lab("--nodes", "1", "--pool", "10.9.0.0/16")
    assert other.node("vms100")["blocks"][0].startswith("10.9.")
    assert lab.node("vms100")["blocks"][0].startswith("10.244.")
    other.run("down")
