"""IPIP on a kernel that has it: Debian's user-mode-linux, run by scripts/with-ipip-kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "scripts" / "with-ipip-kernel"
LAB_TESTS = ROOT / "tests" / "lab" / "test_lab_ipip.py"
NOT_STARTED = 125

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

TWO_HOSTS = """
set -e
for host in here there; do
    ip netns add $host
    ip -n $host link set lo up
    ip -n $host link set tunl0 up
done
ip -n here link add ens32 type veth peer ens32 netns there
ip -n here address add 192.168.26.103/24 dev ens32
ip -n there address add 192.168.26.105/24 dev ens32
ip -n here address add 10.244.38.128/32 dev tunl0
ip -n there address add 10.244.169.64/32 dev tunl0
for host in here there; do ip -n $host link set ens32 up; done
ip -n here route add 10.244.169.64/26 via 192.168.26.105 dev tunl0 onlink
ip -n there route add 10.244.38.128/26 via 192.168.26.103 dev tunl0 onlink
ip netns exec here ping -c 3 -i 0.2 -W 5 10.244.169.64
ip -n there -s -o link show tunl0
"""


def under_ipip_kernel(*argv: str, seconds: int) -> str:
    """What a command printed there; it has to end with 0."""
    ended = subprocess.run(
        [str(RUNNER), "--seconds", str(seconds), *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == NOT_STARTED:
        reason = ended.stderr.strip().splitlines()
        pytest.skip(f"no kernel with IPIP: {reason[-1] if reason else 'it did not start'}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(autouse=True)
def _not_nested() -> None:
    if os.environ.get("PODWIRE_KERNEL"):
        pytest.skip("this is that kernel already")


def test_two_hosts_reach_each_other_through_tunl0() -> None:
    shown = under_ipip_kernel("sh", "-c", TWO_HOSTS, seconds=120)
    assert " 0% packet loss" in shown


def test_the_lab_works_with_ipip() -> None:
    if not LAB_TESTS.exists():
        pytest.skip(f"{LAB_TESTS.name} is not there")
    pytest_here = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=600"]
    shown = under_ipip_kernel(*pytest_here, "-v", str(LAB_TESTS), seconds=840)
    print(shown)
    assert " passed" in shown
    assert " skipped" not in shown
