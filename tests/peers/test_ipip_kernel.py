"""What needs IPIP, on a kernel that has it: Debian's user-mode-linux (scripts/with-ipip-kernel).

One boot for everything, and one process of pytest in it: both take long there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from podwire.drivers.bird.program import find_program
from tests.conftest import SCORE, WORDS
from tests.lab.fault_matrix import QUICK

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "scripts" / "with-ipip-kernel"
NOT_STARTED = 125
SECONDS = 1500
LONG_SECONDS = 1700

pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(SECONDS + 60),
    pytest.mark.skipif("PODWIRE_TEST_KERNEL" in os.environ, reason="this is that kernel already"),
]

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
for host in here there; do ip netns del $host; done
"""
FAULTS = "tests/lab/test_trace_faults_ipip.py"
SUITES = {
    "tests/kernel/test_capture_ipip.py": 1,
    "tests/kernel/test_trace_matrix.py": 1,
    "tests/lab/test_lab_ipip.py": 6,
    FAULTS: len(QUICK),
}
"""How many tests pass in each."""


def under_ipip_kernel(script: str, seconds: int = SECONDS) -> str:
    """What a shell printed there; it has to end with 0."""
    ended = subprocess.run(
        [str(RUNNER), "--seconds", str(seconds), "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == NOT_STARTED:
        reason = ended.stderr.strip().splitlines()
        pytest.skip(f"no kernel with IPIP: {reason[-1] if reason else 'it did not start'}")
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


DEMO = f"'{sys.executable}' -m podwire lab demo --encapsulation ipip --routing " + (
    "agent\n" if find_program() is None else "bird\n"
)


def pytest_there(choice: str) -> str:
    return (
        f"'{sys.executable}' -m pytest -p no:cacheprovider -o timeout=600 -v --durations=0 {choice}"
    )


def pass_on_scores(shown: str, request: pytest.FixtureRequest) -> None:
    """The table that was printed there, for the one of this run."""
    row = r"^  (ipip[\w-]*)" + r" +(\d+)" * len(WORDS) + "$"
    for network, *counts in re.findall(row, shown, re.MULTILINE):
        for word, count in zip(WORDS, counts, strict=True):
            request.node.user_properties += [(SCORE, (network, word, "?"))] * int(count)


def test_hosts_traces_and_labs_with_ipip(request: pytest.FixtureRequest) -> None:
    own = pytest_there(f"-m 'not long' -k 'ipip or lab' {' '.join(SUITES)}")
    shown = under_ipip_kernel(f"{TWO_HOSTS}{DEMO}{own}")
    pass_on_scores(shown, request)
    assert " 0% packet loss" in shown
    assert f" {sum(SUITES.values())} passed" in shown
    assert " skipped" not in shown
    check_demo(shown.partition("test session starts")[0])


def check_demo(shown: str) -> None:
    """The story's own routes, by the demo itself."""
    route = "10.244.169.64/26 via 192.168.26.105 dev tunl0 proto"
    by = "80" if find_program() is None else "bird metric 32"
    assert f"{route} {by} onlink" in shown
    assert shown.count(" ttl=62 ") == 3
    assert "3 packets transmitted, 3 received, 0% packet loss" in shown
    assert "mtu 1480" in shown


@pytest.mark.long
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_every_fault_with_ipip(request: pytest.FixtureRequest) -> None:
    shown = under_ipip_kernel(pytest_there(f"-m long {FAULTS}"), LONG_SECONDS)
    pass_on_scores(shown, request)
    assert " failed" not in shown
    assert " skipped" not in shown


@pytest.mark.long
def test_nodes_of_calico_change_hands_with_ipip() -> None:
    shown = under_ipip_kernel(pytest_there("-k ipip tests/kernel/test_takeover_bgp.py"))
    assert " 1 passed" in shown
    assert " skipped" not in shown


@pytest.mark.long
@pytest.mark.timeout(2 * LONG_SECONDS)
def test_nodes_that_move_with_ipip_and_into_bonds() -> None:
    files = "tests/kernel/test_agent_ipip.py tests/kernel/test_agent_moves.py"
    shown = under_ipip_kernel(pytest_there(f"-k 'ipip or bond' {files}"), LONG_SECONDS)
    assert " 5 passed" in shown
    assert " skipped" not in shown
