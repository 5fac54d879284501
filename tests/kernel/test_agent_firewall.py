"""The agent's tables of nftables on real nodes: NAT to the world, and closed doors."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.desired.nfttables import parse
from podwire.model import codec, keys
from podwire.model.node import Node
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from tests.fakes.http_client import scrape
from tests.kernel.agent_cluster import AgentNode, Cluster, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.desired.nfttables import Table

WORLD = "198.51.100.7"
STRANGER = "10.0.0.99"
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
address, source = "{address}", "{source}"
family = socket.AF_INET6 if ":" in address else socket.AF_INET
door = socket.socket(family, socket.SOCK_DGRAM)
door.bind((source, 0))
door.sendto(b"x", socket.getaddrinfo(address, {port}, family)[0][4])
"""
SEND_IPIP = """
import socket
door = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
outer, inner = (
    bytes.fromhex(f"4500{{size:04x}}000000004004" if outer else f"4500{{size:04x}}0000000040fd")
    + bytes(2) + socket.inet_aton(source) + socket.inet_aton(target)
    for outer, size, source, target in
    ((True, 40, "{source}", "{address}"), (False, 20, "10.244.0.1", "10.244.0.2"))
)
door.sendto(outer + inner, ("{address}", 0))
"""
HEAR = """
import socket
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.settimeout(20)
door.bind(("", {port}))
print("ready", flush=True)
print(door.recvfrom(100)[1][0])
"""
SAY_ARP = """
import socket
door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
door.bind(("eth0", 0))
mac = bytes.fromhex("{mac}".replace(":", "")) or door.getsockname()[4]
sender, target = (socket.inet_aton(each) for each in ("{sender}", "169.254.1.1"))
said = bytes.fromhex("0001080006040002") + mac + sender + bytes.fromhex("ee" * 6) + target
door.send(bytes.fromhex("ee" * 6) + door.getsockname()[4] + bytes.fromhex("0806") + said)
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


def begun(netns: str, script: str) -> subprocess.Popen[str]:
    """A program in a namespace, once it says that it is ready."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", netns, sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def send(netns: str, address: str, source: str = "", port: int = 4789) -> None:
    python(netns, SEND.format(address=address, source=source, port=port))


def send_ipip(netns: str, address: str, source: str) -> None:
    python(netns, SEND_IPIP.format(address=address, source=source))


def say_arp(pod: PodOnNode, sender: str, mac: str = "") -> None:
    """An ARP answer to the host: `sender` is at that MAC; by default the pod's own."""
    python(pod.name, SAY_ARP.format(sender=sender, mac=mac))


def packets(node: AgentNode, counter: str) -> int:
    return int(node.ask("status")["firewall"]["counters"][counter]["packets"])


def counted(node: AgentNode, counter: str, number: int) -> None:
    until(f"{counter} is {number}", lambda: packets(node, counter) == number)


def rules(node: AgentNode) -> list[Table]:
    """All tables of the node; the order of a set's elements says nothing."""
    return [
        parse(run(*node.inside("nft", "-s", "-p", "list", "table", family, "podwire"), check=False))
        for family in ("ip", "ip6", "arp")
    ]


def element(node: AgentNode, name: str, family: str = "ip") -> str:
    return run(*node.inside("nft", "list", "set", family, "podwire", name))


def generation(node: AgentNode) -> str:
    """Every change of any rule raises it."""
    monitor = "from podwire.drivers.collect_marks import read_generation; print(read_generation())"
    return python(node.netns, monitor)


def test_pods_reach_the_world_with_the_nodes_address_and_each_other_with_their_own(
    cluster: Cluster,
) -> None:
    one, two = cluster.start()
    here, beside = PodOnNode(one, "pod-1").add(), PodOnNode(one, "pod-2").add()
    there = PodOnNode(two, "pod-3").add()
    two.ip("addr", "add", f"{WORLD}/32", "dev", "lo")
    one.ip("route", "add", WORLD, "via", "10.0.0.2")
    pods = (here, beside, there)
    servers = [begun(two.netns, ANSWER.format(address=WORLD))]
    servers += [begun(pod.name, ANSWER.format(address=pod.address)) for pod in pods]
    assert python(here.name, ASK.format(address=WORLD)) == "10.0.0.1"
    for pod in pods:
        assert python(here.name, ASK.format(address=pod.address)) == here.address
    assert packets(one, "natOutgoing") == 1
    change_pool(cluster, nat_outgoing=False)
    until("no NAT any more", lambda: "chain postrouting" not in rules(one)[0].blocks)
    assert python(here.name, ASK.format(address=WORLD)) == here.address
    assert packets(one, "natOutgoing") == 1  # what was counted stays
    end(*servers)


def test_a_pod_that_lies_about_its_addresses_is_dropped_and_counted(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, other = PodOnNode(one, "pod-1").add(), PodOnNode(one, "pod-2").add()
    there = PodOnNode(two, "pod-3").add()
    for lie in (f"{other.address}/32", "198.51.100.9/32", "fd00::bad/128"):
        run("ip", "-n", here.name, "addr", "add", lie, "dev", "lo")
    send(here.name, there.address, source=here.address, port=7)
    assert packets(one, "spoofedSource") == 0
    for number, source in enumerate((other.address, "198.51.100.9"), start=1):
        send(here.name, there.address, source=source, port=7)
        counted(one, "spoofedSource", number)
    send(here.name, "ff02::1%eth0", source="fd00::bad", port=7)
    counted(one, "spoofedSource", 3)
    # What was dropped has left no connection behind.
    assert "198.51.100.9" not in run(*one.inside("conntrack", "-L"), check=False)

    before = one.ip("neigh", "show")
    say_arp(here, here.address)
    assert packets(one, "spoofedARP") == 0
    say_arp(here, other.address)
    counted(one, "spoofedARP", 1)
    say_arp(here, here.address, mac="02:00:00:00:00:01")
    counted(one, "spoofedARP", 2)
    assert one.ip("neigh", "show") == before
    # An honest question is answered, by proxy ARP as before.
    run("ip", "-n", here.name, "neigh", "flush", "dev", "eth0")
    here.ping(there.address, "-c", "1")
    assert packets(one, "spoofedARP") == 2
    found = scrape(one.health)
    for reason in ("spoofedSource", "spoofedARP"):
        dropped = found.value("podwire_firewall_dropped_packets_total", reason=reason)
        assert dropped == packets(one, reason)


def test_what_a_pod_is_allowed_besides_it_may_send_from(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    here.ping(there.address, "-c", "1")
    interface = one.ip("route", "get", here.address).split()[2]
    one.end()
    (key,) = (
        entry.key for entry in cluster.store.list(keys.ENDPOINTS).entries if "pod--1" in entry.key
    )
    entry = cluster.store.get(key)
    assert entry is not None
    endpoint = replace(
        codec.decode_endpoint(key, entry.value),
        allowed_source_prefixes=(ip_network("198.51.100.0/24"),),
    )
    cluster.store.update(key, codec.encode(endpoint), entry.revision)
    one.start()
    for source in ("198.51.100.9", "203.0.113.9"):
        run("ip", "-n", here.name, "addr", "add", f"{source}/32", "dev", "lo")
    send(here.name, there.address, source="198.51.100.9", port=7)
    counted(one, "spoofedSource", 1)  # no FelixConfiguration says that it may
    key = f"{keys.FELIX_CONFIGURATIONS}default"
    cluster.store.create(key, {"spec": {"workloadSourceSpoofing": "Any"}})
    until("the prefix", lambda: "198.51.100.0/24" in element(one, "allowed-sources"))
    rp_filter = f"/proc/sys/net/ipv4/conf/{interface}/rp_filter"
    until("rp_filter", lambda: run(*one.inside("cat", rp_filter)) == "0\n")
    ear = begun(there.name, HEAR.format(port=7))
    run("ip", "-n", here.name, "neigh", "flush", "dev", "eth0")
    send(here.name, there.address, source="198.51.100.9", port=7)
    assert ear.communicate()[0] == "198.51.100.9\n"
    send(here.name, there.address, source="203.0.113.9", port=7)
    counted(one, "spoofedSource", 2)


def test_tunnels_take_packets_from_nodes_alone(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    here.ping(there.address, "-c", "2")  # from node to node
    assert packets(two, "strangerIntoVXLAN") == 0
    one.ip("addr", "add", f"{STRANGER}/24", "dev", "ens32")
    send(one.netns, "10.0.0.2", source=STRANGER)
    counted(two, "strangerIntoVXLAN", 1)
    assert STRANGER not in run(*two.inside("conntrack", "-L"), check=False)

    node = Node(metadata=Metadata(name="node-9"), address=ip_interface(f"{STRANGER}/24"))
    writes = two.ask("status")["firewall"]["writes"]
    cluster.store.create(codec.key_of(node), codec.encode(node))
    until("let in", lambda: STRANGER in element(two, "nodes"))
    send(one.netns, "10.0.0.2", source=STRANGER)
    send(one.netns, "10.0.0.2", source="10.0.0.1")
    entry = cluster.store.get(codec.key_of(node))
    assert entry is not None
    cluster.store.delete(entry.key, entry.revision)
    until("shut out", lambda: STRANGER not in element(two, "nodes"))
    send(one.netns, "10.0.0.2", source=STRANGER)
    counted(two, "strangerIntoVXLAN", 2)
    assert two.ask("status")["firewall"]["writes"] == writes  # elements, never the table

    send(here.name, "10.0.0.2")
    counted(one, "podIntoTunnel", 1)
    tunnel = one.ip("-br", "addr", "show", "dev", "vxlan.calico").split()[2].partition("/")[0]
    send(here.name, tunnel)
    counted(one, "podIntoTunnel", 2)
    ear = begun(there.name, HEAR.format(port=4789))
    send(here.name, there.address)  # what pods say to each other is theirs
    assert ear.communicate()[0] == f"{here.address}\n"
    assert packets(one, "podIntoTunnel") == 2


def test_ipip_is_taken_from_nodes_alone(cluster: Cluster) -> None:
    one, two = cluster.start()
    here = PodOnNode(one, "pod-1").add()
    send_ipip(one.netns, "10.0.0.2", STRANGER)
    ipip = IPPool(
        metadata=Metadata(name="ipip"), cidr=ip_network("10.250.0.0/16"), ipip_mode=Mode.ALWAYS
    )
    cluster.store.create(codec.key_of(ipip), codec.encode(ipip))
    # Whether this kernel has the module or not: the door is shut before the tunnel is made.
    until("the door", lambda: "ipip" in rules(two)[0].blocks["chain prerouting"])
    assert packets(two, "strangerIntoIPIP") == 0
    send_ipip(one.netns, "10.0.0.2", STRANGER)
    counted(two, "strangerIntoIPIP", 1)
    send_ipip(one.netns, "10.0.0.2", "10.0.0.1")
    send_ipip(here.name, "10.0.0.2", here.address)
    counted(one, "podIntoTunnel", 1)
    send_ipip(one.netns, "10.0.0.2", STRANGER)
    counted(two, "strangerIntoIPIP", 2)


def test_a_restart_writes_nothing(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    send(here.name, "10.0.0.2")
    counted(one, "podIntoTunnel", 1)
    until("both nodes", lambda: "10.0.0.2" in element(one, "nodes"))
    before, number = rules(one), generation(one)
    (sender,) = before[2].elements["senders"]
    interface = one.ip("route", "get", here.address).split()[2]
    assert sender.startswith(f'"{interface}" . {here.address} . ')
    one.end()
    here.ping(there.address, "-c", "1")
    assert rules(one) == before
    one.start()
    one.settled()
    assert (rules(one), generation(one)) == (before, number)
    assert packets(one, "podIntoTunnel") == 1
    here.call("DEL")
    until("the pod's elements gone", lambda: not rules(one)[2].elements)


def test_the_tables_come_back_and_live_pods_lose_nothing(cluster: Cluster) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    until("both nodes", lambda: "10.0.0.2" in element(one, "nodes"))
    send(here.name, "10.0.0.2")
    counted(one, "podIntoTunnel", 1)
    before = rules(one)
    run(*one.inside("nft", "add", "table", "ip", "mine"))
    pinger = subprocess.Popen(
        ("ip", "netns", "exec", here.name, "ping", "-i", "0.01", "-W", "5", there.address),
        stdout=subprocess.PIPE,
        text=True,
    )
    for damage in (
        "delete table ip podwire",
        "flush chain ip podwire postrouting",
        "insert rule ip podwire prerouting ip saddr 192.0.2.1 drop",
        "flush set ip podwire pools",
        "add element ip podwire nodes { 192.0.2.1 }",
        "delete element ip podwire nodes { 10.0.0.1 }",
        "add chain ip podwire more",
        "add table arp podwire { flags dormant ; }",
        "delete table ip6 podwire",
    ):
        run(*one.inside("nft", damage))
        until(f"the table after {damage}", lambda: rules(one) == before)
    send(here.name, "10.0.0.2")
    counted(one, "podIntoTunnel", 1)  # deleted once, and kept since
    assert "mine" in run(*one.inside("nft", "list", "tables"))
    run(*one.inside("nft", "flush", "ruleset"))
    until("the tables after all is flushed", lambda: rules(one) == before)
    pinger.send_signal(2)
    assert " 0% packet loss" in pinger.communicate()[0]
    one.end()
    assert rules(one) == before


@pytest.mark.parametrize("docker", [True, False])
def test_who_drops_forwarded_packets_is_named_with_the_fix(cluster: Cluster, docker: bool) -> None:
    one, _ = cluster.start()
    table = "filter" if docker else "mine"
    chain = "FORWARD" if docker else "f"
    hook = "{ type filter hook forward priority 0; policy drop; }"
    run(*one.inside("nft", f"add table ip {table}; add chain ip {table} {chain} {hook}"))

    def concerns() -> list[str]:
        return [each for each in one.ask("status")["concerns"] if "forward" in each]

    (concern,) = until("the concern", concerns)
    assert f"{table} {chain} (policy)" in concern
    if docker:
        assert "iptables -I FORWARD -i cali+ -j ACCEPT" in concern
        fix = f'add rule ip {table} {chain} iifname "cali*" accept'
        fix += f'; add rule ip {table} {chain} oifname "cali*" accept'
    else:
        fix = concern.partition("nft '")[2].partition("'")[0]
    run(*one.inside("nft", fix))
    until("the concern over", lambda: not concerns())
    table_before = json.loads(run(*one.inside("nft", "-j", "list", "table", "ip", table)))
    assert len(table_before["nftables"]) == 5  # metainfo, table, chain and the two rules
