"""Labs for tests: made by the command line, as a user makes them, and always ended."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# So that what fails there is told as in a test.
pytest.register_assert_rewrite("tests.lab.fault_verdicts")

PINGER = Path(__file__).with_name("pinger.py")
FIRST_NODE = "vms100"
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)


class Lab:
    """One lab, driven through `podwire lab …`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def try_run(
        self, *words: str, stdin: str = "", timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "podwire", "lab", words[0], "--name", self.name]
        return subprocess.run(
            [*command, *words[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, *words: str, stdin: str = "", timeout: float = 90) -> str:
        done = self.try_run(*words, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"lab {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "-o", "json"))
        return found

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(n for n in self.status()["nodes"] if n["name"] == name)
        return found

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("pods", "-A", "-o", "json"))
        return found

    def on(self, node: str, command: str) -> str:
        return self.run("node", node, "--", "sh", "-c", command)

    def inside(self, pod: str, command: str) -> str:
        return self.run("exec", pod, "--", "sh", "-c", command)

    def apply(self, manifest: str) -> str:
        return self.run("apply", "-f", "-", stdin=manifest)

    def ping_all(self, *, nodes_too: bool = True) -> list[tuple[str, str]]:
        """Pairs of which the very first packet, or its answer, was lost."""
        pods = self.pods()
        nodes = self.status()["nodes"]
        sources = {f"{pod['namespace']}/{pod['name']}": pod["netns"] for pod in pods}
        targets = {f"{pod['namespace']}/{pod['name']}": pod["ip"] for pod in pods}
        if nodes_too:
            sources |= {node["name"]: f"/run/netns/{node['name']}" for node in nodes}
            targets |= {node["name"]: node["address"] for node in nodes}
        found = self.ping(sources, targets)
        return [(one, other) for one in sources for other in targets if other not in found[one]]

    def ping(self, sources: dict[str, str], targets: dict[str, str]) -> dict[str, dict[str, int]]:
        asked = json.dumps({"sources": sources, "targets": targets})
        found: dict[str, dict[str, int]] = json.loads(
            self.run("node", FIRST_NODE, "--", sys.executable, str(PINGER), stdin=asked)
        )
        return found


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)


def require_worlds() -> None:
    """Skip where this system lets nobody make what a lab consists of."""
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]
    if os.geteuid() != 0:
        probe[1:1] = ["--user", "--map-root-user"]
    if subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespaces are not allowed here, and this is not root")


def require_ipip() -> None:
    """Skip where the kernel has no IPIP; scripts/with-ipip-kernel has one that does."""
    unshare = ["unshare", "--net", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    probe = "ip link add probe0 type ipip local 192.0.2.1 remote 192.0.2.2 || ip link show tunl0"
    if subprocess.run([*unshare, "sh", "-c", probe], check=False, capture_output=True).returncode:
        pytest.skip("this kernel has no ipip")


def make_lab(*options: str) -> Lab:
    """A running lab; the caller ends it."""
    require_worlds()
    lab = Lab(f"t{os.getpid()}-{next(_numbers)}")
    lab.run("up", *options)
    return lab


@pytest.fixture(scope="session")
def new_lab() -> Iterator[Callable[..., Lab]]:
    """Makes labs; all are ended after the last test."""
    made: list[Lab] = []

    def make(*options: str) -> Lab:
        made.append(make_lab(*options))
        return made[-1]

    yield make
    for lab in made:
        lab.try_run("down")


def pods_manifest(nodes: list[str], each: int, namespace: str = "mesh") -> str:
    """A Pod manifest: `each` pods on every node."""
    return "---\n".join(
        f"apiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: p{number}-{node}, namespace: {namespace}, labels: {{app: mesh}}}}\n"
        f"spec:\n  nodeName: {node}\n  containers: [{{name: main}}]\n"
        for node in nodes
        for number in range(each)
    )
