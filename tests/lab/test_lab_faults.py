"""Every fault of the catalogue in a real lab: it bites, and after healing nothing is left of it."""

from __future__ import annotations

import difflib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.lab.fault_catalogue import FAULTS
from podwire.model.pool import Encapsulation
from tests.lab.conftest import FIRST_NODE, make_lab, pods_manifest, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from podwire.lab.fault import Fault
    from tests.lab.conftest import Lab

DUMP = Path(__file__).with_name("state_dump.py")
HERE = [fault for fault in FAULTS if Encapsulation.VXLAN in fault.encapsulations]
HARMLESS = {
    "no-link-route-in-pod",
    "proxy-delay",
    "duplicate-address",  # answered, but not by whom it should be
    "tunnel-mtu-too-large",
    "mtu-too-big",
    "mtu-black-hole",
    "tunnel-address-twice",
    "port-closed",
    "veth-mtu-differs",
}
"""A small ping is answered all the same."""


class Broken:
    """A lab to be broken, and how it was before."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.address = {f"{pod['namespace']}/{pod['name']}": pod["ip"] for pod in lab.pods()}
        # A young IPv6 address is tentative for a second.
        wait_until(lambda: "tentative" not in str(self.state()), "all addresses to be settled")
        self.before = self.state()

    def state(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(
            self.lab.run("node", FIRST_NODE, "--", sys.executable, str(DUMP))
        )
        return found

    def difference(self) -> list[str]:
        now = self.state()
        return [
            f"{place}: {line}"
            for place in sorted(now.keys() | self.before.keys())
            for line in difflib.unified_diff(self.before.get(place, []), now.get(place, []), n=0)
            if line[0] in "+-" and line.strip() not in {"+++", "---"}
        ]

    def check_as_before(self) -> None:
        # IPv6 addresses come back by themselves, a second after their device.
        with suppress(AssertionError):
            wait_until(lambda: not self.difference(), "the state to be as before", 5)
        assert self.difference() == []

    def inject(self, name: str, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.lab.run("fault", "inject", name, "-o", "json", *options)
        )
        return found

    def ping(self, made: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        target = self.address[made["destination"]]
        ping = ["ping", "-c", "1", "-W", "1", *options, target]
        return self.lab.try_run("exec", made["source"], "--", *ping)

    def held(self) -> set[str]:
        nodes = self.lab.status()["nodes"]
        return {node["name"] for node in nodes if node["agent"]["held"]}


@pytest.fixture(scope="module")
def broken() -> Iterator[Broken]:
    lab = make_lab("--nodes", "2", "--encapsulation", "vxlan")
    lab.apply(pods_manifest(["vms100", "vms101"], 1, "demo"))
    yield Broken(lab)
    lab.run("down")


def check_bites_and_heals(broken: Broken, fault: Fault) -> None:
    done = broken.lab.try_run("fault", "inject", fault.name, "-o", "json")
    if done.returncode != 0 and "is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    try:
        assert made["node"] in made["held"]
        assert (broken.ping(made).returncode == 0) is (fault.name in HARMLESS)
        if fault.name in EFFECTS:
            EFFECTS[fault.name](broken, made)
    finally:
        broken.lab.run("fault", "heal", fault.name)
    # A neighbour that was asked for in vain is given up 3 s after the first question, with all
    # packets that wait for it, be the way whole again or not: the next one asks anew.
    wait_until(lambda: broken.ping(made).returncode == 0, "a ping to arrive again", 10)
    broken.check_as_before()
    # Nothing stands open: the agents did not do it.
    assert broken.held() == set()


class TestOneHalf:
    """One worker's lab; with all faults it would be at work long after all others have ended."""

    @pytest.mark.parametrize("fault", HERE[::2], ids=lambda fault: fault.name)
    def test_a_fault_bites_and_heals(self, broken: Broken, fault: Fault) -> None:
        check_bites_and_heals(broken, fault)


class TestTheOtherHalf:
    @pytest.mark.parametrize("fault", HERE[1::2], ids=lambda fault: fault.name)
    def test_a_fault_bites_and_heals(self, broken: Broken, fault: Fault) -> None:
        check_bites_and_heals(broken, fault)


def check_twin(broken: Broken, made: dict[str, Any]) -> None:
    """Somebody answers, but not the pod: the way is one hop long."""
    assert "ttl=63" in broken.ping(made).stdout


def check_pieces(broken: Broken, made: dict[str, Any]) -> None:
    count = "awk '/^Ip: [0-9]/ {print $20}' /proc/net/snmp"  # FragCreates
    before = int(broken.lab.on(made["node"], count))
    assert broken.ping(made, "-s", "1422").returncode == 0
    assert int(broken.lab.on(made["node"], count)) > before


def check_told(broken: Broken, made: dict[str, Any]) -> None:
    assert "mtu = 1450" in broken.ping(made, "-M", "do", "-s", "1472").stdout


def check_black_hole(broken: Broken, made: dict[str, Any]) -> None:
    said = broken.ping(made, "-M", "do", "-s", "1472")
    assert said.returncode == 1
    assert "mtu" not in said.stdout


def check_lost(broken: Broken, made: dict[str, Any]) -> None:
    assert broken.ping(made, "-s", "1422").returncode == 1


def check_refused(broken: Broken, made: dict[str, Any]) -> None:
    address = broken.address[made["destination"]]
    knock = f"import socket; socket.create_connection(('{address}', {made['probe'][1]}), 5)"
    done = broken.lab.try_run("exec", made["source"], "--", sys.executable, "-c", knock)
    assert "ConnectionRefusedError" in done.stderr


EFFECTS = {
    "duplicate-address": check_twin,
    "tunnel-mtu-too-large": check_pieces,
    "mtu-too-big": check_told,
    "mtu-black-hole": check_black_hole,
    "veth-mtu-differs": check_lost,
    "port-closed": check_refused,
}


def test_two_at_once_heal_in_the_right_order(broken: Broken) -> None:
    broken.inject("missing-source-route")
    broken.inject("forwarding-off")
    assert broken.held() == {"vms100"}
    wrong = broken.lab.try_run("fault", "heal", "missing-source-route")
    assert wrong.returncode != 0
    assert "first podwire lab fault heal forwarding-off" in wrong.stderr
    assert broken.lab.run("fault", "heal", "--all") == (
        "forwarding-off healed\nmissing-source-route healed\n"
    )
    assert broken.held() == set()
    broken.check_as_before()


def test_a_hold_of_somebody_else_is_left_alone(broken: Broken) -> None:
    broken.lab.run("hold", "vms101")
    broken.inject("pod-ignores-ping", "--node", "vms101")
    broken.lab.run("fault", "heal", "pod-ignores-ping")
    assert broken.held() == {"vms101"}
    broken.lab.run("release", "vms101")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inject", "strict-rp"), "did you mean strict-rpf?"),
        (("inject", "tunnel-down"), "needs encapsulation ipip"),
        (("inject", "strict-rpf", "--node", "vms999"), "has no node 'vms999'"),
        (("heal", "strict-rpf"), "strict-rpf is not injected"),
    ],
)
def test_errors_name_the_reason(broken: Broken, words: tuple[str, ...], said: str) -> None:
    done = broken.lab.try_run("fault", *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert broken.held() == set()


def test_twice_is_refused(broken: Broken) -> None:
    broken.inject("pod-ignores-ping")
    again = broken.lab.try_run("fault", "inject", "pod-ignores-ping")
    assert "is injected already" in again.stderr
    broken.lab.run("fault", "heal", "pod-ignores-ping")


def test_people_are_told_what_was_typed(broken: Broken) -> None:
    said = broken.lab.run("fault", "inject", "strict-rpf")
    assert f"lab node --name {broken.lab.name} vms101 -- sysctl -w" in said
    assert "held: vms101" in said
    broken.lab.run("fault", "heal", "strict-rpf")
    listed = broken.lab.run("fault", "list")
    assert "strict-rpf" in listed
    assert "destination node" in listed
