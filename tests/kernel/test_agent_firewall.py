"""The agent's table of nftables on real nodes: NAT to the world, and to nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.model import codec, keys
from podwire.model.pool import Mode
from tests.kernel.agent_cluster import AgentNode, Cluster, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORLD = "198.51.100.7"
ANSWER = """
import socket
door = socket.create_server(("{address}", 8080))
print("ready", flush=True)
while True:
    peer, (address, _) = door.accept()
    peer.sendall(address.encode())
    peer.close()
"""
ASK = """
import socket
with socket.create_connection(("{address}", 8080), timeout=5) as peer:
    print(peer.recv(100).decode())
"""
SEND = """
import socket
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("{source}", 0))
door.sendto(b"x", ("{address}", 4789))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with clusters(tmp_path) as make:
        cluster = make(Mode.ALWAYS)
        change_pool(cluster, nat_outgoing=True)
        yield cluster


def change_pool(cluster: Cluster, *, nat_outgoing: bool) -> None:
    (entry,) = cluster.store.list(keys.POOLS).entries
    pool = replace(codec.decode_pool(entry.key, entry.value), nat_outgoing=nat_outgoing)
    cluster.store.update(entry.key, codec.encode(pool), entry.revision)


def python(netns: str, script: str) -> str:
    return run("ip", "netns", "exec", netns, sys.executable, "-c", script).strip()


def served(netns: str, address: str) -> subprocess.Popen[bytes]:
    """A server that tells everybody who they are."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", netns, sys.executable, "-c", ANSWER.format(address=address)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def packets(node: AgentNode, counter: str) -> int:
    told = json.loads(run(*node.inside("nft", "-j", "list", "counters", "table", "ip", "podwire")))
    found = {each["counter"]["name"]: each["counter"] for each in told["nftables"][1:]}
    return int(found[counter]["packets"])


def rules(node: AgentNode) -> str:
    return run(*node.inside("nft", "-s", "list", "table", "ip", "podwire"), check=False)


def test_pods_reach_the_world_with_the_nodes_address_and_each_other_with_their_own(
    cluster: Cluster,
) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    two.ip("addr", "add", f"{WORLD}/32", "dev", "lo")
    one.ip("route", "add", WORLD, "via", "10.0.0.2")
    servers = [served(two.netns, WORLD), served(there.name, there.address)]
    assert python(here.name, ASK.format(address=WORLD)) == "10.0.0.1"
    assert python(here.name, ASK.format(address=there.address)) == here.address
    assert packets(one, "nat-outgoing") == 1
    change_pool(cluster, nat_outgoing=False)
    until("no NAT any more", lambda: "masquerade" not in rules(one))
    assert python(here.name, ASK.format(address=WORLD)) == here.address
    for server in servers:
        server.kill()
        server.communicate()


def test_a_pod_that_lies_about_its_address_is_dropped_and_counted(cluster: Cluster) -> None:
    one, _ = cluster.start()
    here, other = PodOnNode(one, "pod-1").add(), PodOnNode(one, "pod-2").add()
    run("ip", "netns", "exec", here.name, "ip", "addr", "add", f"{other.address}/32", "dev", "lo")

    def dropped() -> int:
        text = run(*one.inside("cat", "/proc/net/netstat"))
        names, values = (line.split() for line in text.splitlines()[:2])
        return int(values[names.index("IPReversePathFilter")])

    # Asked by a liar who the gateway is, the host does not even answer.
    here.ping("10.0.0.1", "-c", "1")
    before = dropped()
    python(here.name, SEND.format(source=other.address, address="10.0.0.2"))
    until("the drop", lambda: dropped() == before + 1)


def test_the_table_comes_back_and_foreign_ones_stay(cluster: Cluster) -> None:
    one, _ = cluster.start()
    until("the table", lambda: "masquerade" in rules(one))
    before = rules(one)
    run(*one.inside("nft", "add", "table", "ip", "mine"))
    for damage in (
        ("delete", "table", "ip", "podwire"),
        ("flush", "chain", "ip", "podwire", "postrouting"),
        ("add", "rule", "ip", "podwire", "postrouting", "drop"),
        ("flush", "set", "ip", "podwire", "pools"),
    ):
        run(*one.inside("nft", *damage))
        until(f"the table after {damage}", lambda: rules(one) == before)
    assert "mine" in run(*one.inside("nft", "list", "tables"))
    one.end()
    assert rules(one) == before
