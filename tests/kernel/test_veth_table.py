"""`podwire veth`: the pairs agree with what the driver itself says (ethtool's peer_ifindex)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from podwire.drivers.namespace_table import look
from podwire.drivers.netlink import requests
from podwire.drivers.vethtable import VethEnd, veth_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.drivers.netlink.session import Session

ALIAS = "podwire 0a1b2c demo/web-0 eth0"


def podwire(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "podwire", *arguments],
        check=False, capture_output=True, text=True, **options,
    )  # fmt: skip


def unprivileged() -> subprocess.CompletedProcess[str]:
    """`podwire veth` without any right over this namespace or others."""
    return subprocess.run(
        ["unshare", "--user", sys.executable, "-m", "podwire", "veth"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def unnamed() -> Iterator[int]:
    """Pid of a process that alone holds its network namespace."""
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process.pid
    process.communicate()


@pytest.fixture
def pairs(session: Session, make_namespace: Callable[[str], int], unnamed: int) -> None:
    """Pairs within this namespace, to named ones, to an unnamed one, and between two others.

    All of them use the same few indexes, so that only the namespace tells them apart.
    """
    blue, red = make_namespace("blue"), make_namespace("red")
    session.run(
        requests.create_veth("v0", peer_name="v1", peer_namespace=blue, alias=ALIAS),
        requests.create_veth("w0", peer_name="w1", peer_namespace=red),
        requests.create_veth("l0", peer_name="l1"),
    )
    subprocess.run(
        ["ip", "link", "add", "u0", "type", "veth", "peer", "name", "u1", "netns", str(unnamed)],
        check=True,
    )
    subprocess.run(
        ["ip", "-n", "red", "link", "add", "x0", "type", "veth", "peer", "x1", "netns", "blue"],
        check=True,
    )
    subprocess.run(["ip", "-n", "blue", "address", "add", "10.0.0.2/24", "dev", "v1"], check=True)


def own_inodes() -> set[int]:
    """The test's namespaces; the process may see others on the machine."""
    with namespaces.opened("/proc/self/ns/net") as here:
        return {namespaces.inode_of(here), *namespaces.named().values()}


def peer_ifindex(end: VethEnd) -> int:
    """What the veth driver says about itself."""
    told = subprocess.run(
        ["nsenter", f"--net={end.namespace.path}", "ethtool", "-S", end.link.name],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"peer_ifindex: (\d+)", told)
    assert found is not None
    return int(found[1])


@pytest.mark.usefixtures("pairs")
def test_every_pair_is_found_once_with_both_ends(unnamed: int) -> None:
    inodes = own_inodes()
    mine = [one for one in veth_table().pairs if one.first.namespace.inode in inodes]
    found = {}
    for pair in mine:
        assert pair.second is not None
        found[frozenset({pair.first.link.name, pair.second.link.name})] = pair
        for end, other in ((pair.first, pair.second), (pair.second, pair.first)):
            assert peer_ifindex(end) == other.link.index
    assert found.keys() == {frozenset({f"{one}0", f"{one}1"}) for one in "vwlux"}
    assert len(mine) == 5

    pod = found[frozenset({"v0", "v1"})]
    assert pod.second is not None
    assert (pod.first.link.name, pod.owner) == ("v0", "demo/web-0")
    assert (pod.first.namespace.own, pod.second.namespace.title) == (True, "blue")
    assert [str(one) for one in pod.second.addresses] == ["10.0.0.2/24"]
    held = found[frozenset({"u0", "u1"})].second
    assert held is not None
    assert held.namespace.title == f"pid {unnamed} (cat)"


@pytest.mark.usefixtures("pairs")
def test_the_command_shows_the_table_and_one_peer() -> None:
    inodes = own_inodes()
    shown = [
        pair
        for pair in json.loads(podwire("veth", "-o", "json").stdout)
        if pair["ends"][0]["namespace"]["inode"] in inodes
    ]
    assert len(shown) == 5
    assert {"ends", "owner"} == shown[0].keys()
    text = podwire("veth", "list").stdout
    row = r"^v0 +\d+ +this one +<none> +v1 +\d+ +blue +10\.0\.0\.2/24 +demo/web-0$"
    assert re.search(row, text, re.MULTILINE)
    peer = json.loads(podwire("veth", "peer", "v0", "-o", "json").stdout)
    assert (peer["interface"], peer["namespace"]["names"]) == ("v1", ["blue"])
    back = podwire("veth", "peer", "v1", "--netns", "blue").stdout
    assert "v0" in back
    assert "this one" in back
    missing = podwire("veth", "peer", "lo")
    assert missing.returncode != 0
    assert "lo is no veth device of this namespace" in missing.stderr


@pytest.mark.usefixtures("pairs")
def test_without_rights_own_ends_are_shown_and_the_rest_is_named() -> None:
    done = unprivileged()
    assert done.returncode == 0, done.stderr
    assert re.search(r"^v0 .*out of sight \(link-netnsid \d+\)", done.stdout, re.MULTILINE)
    assert re.search(r"^l[01] ", done.stdout, re.MULTILINE)
    assert "not seen: " in done.stderr


def test_without_any_pair_it_says_so() -> None:
    done = unprivileged()
    assert (done.returncode, done.stdout) == (0, "")
    assert "no veth pair in sight" in done.stderr


def test_who_only_visits_a_namespace_does_not_name_it(unnamed: int) -> None:
    """A visitor's thread is gone a moment later; the path has to lead there for longer."""
    with namespaces.opened(f"/proc/{unnamed}/ns/net") as there:
        inode = namespaces.inode_of(there)
        seen = namespaces.call_in(there, look)
    (found,) = (one for one in seen.namespaces if one.inode == inode)
    assert found.path == f"/proc/{unnamed}/ns/net"
    assert found.processes[0].pid == unnamed
    assert os.getpid() in {process.pid for process in found.processes[1:]}
