"""Two nodes that Calico served, with its pods, routes and tunnel, are taken over by our agents.

node-1 [web-0, a plain container, a pod older than Calico 3]   node-2 [db-0]   node-3: nobody's here
"""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.boot import boot_id
from podwire.drivers.store import open_store
from podwire.model import keys
from podwire.model.config import DatastoreConfig, EtcdConfig
from tests.fakes.calico_etcd import fill
from tests.fakes.etcd_server import EtcdServer
from tests.kernel.agent_cluster import Cluster, PodOnNode, pool, run, until
from tests.kernel.calico_node import POD_NETWORK, CalicoPod, changed, veths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.model.resource import Wire
    from tests.kernel.agent_cluster import AgentNode

SUBNETS = {"node-1": "192.168.221.64", "node-2": "192.168.10.0"}
MACS = {"node-1": "66:b3:68:28:39:8e", "node-2": "66:c0:93:2e:56:2c"}


def felix(node: AgentNode) -> None:
    """What else Calico's agent leaves: the tunnel, and the routes with our own number."""
    here = SUBNETS[node.name]
    run(*node.inside("sysctl", "-qw", "net.ipv4.ip_forward=1"))
    local = ("id", "4096", "local", f"10.0.0.{node.number}", "dev", "ens32", "dstport", "4789")
    mac = MACS[node.name]
    node.ip("link", "add", "vxlan.calico", "address", mac, "type", "vxlan", *local, "nolearning")
    node.ip("addr", "add", f"{here}/32", "dev", "vxlan.calico")
    node.ip("link", "set", "vxlan.calico", "mtu", "1450", "up")
    node.ip("route", "add", "blackhole", f"{here}/26", "proto", "80")
    for name, there in SUBNETS.items():
        if name != node.name:
            way = ("via", f"10.0.0.{name[-1]}", "dev", "ens32", "proto", "80", "onlink")
            node.ip("route", "add", f"{there}/26", *way)
    way = ("via", "192.168.20.0", "dev", "vxlan.calico", "proto", "80", "onlink")
    node.ip("route", "add", "192.168.20.0/26", *way)


@dataclass
class Taken:
    """The cluster and what was there before our agents."""

    cluster: Cluster
    before: dict[str, Wire]
    web: CalicoPod
    plain: CalicoPod
    older: CalicoPod
    db: CalicoPod

    def changed(self) -> dict[str, Wire | None]:
        """Calico's keys that are not as they were, with what is there now."""
        return changed(self.cluster.store, self.before)


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Taken]:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    config = EtcdConfig(endpoints=(server.endpoint,))
    where = DatastoreConfig(type="etcd", etcd=config)
    store = open_store(where)
    before = fill(store, "vxlan")
    store.close()
    cluster = Cluster(tmp_path, pool(), datastore=where, is_filled=True)
    one, two = cluster.nodes

    def pod_on(node: AgentNode, name: str, namespace: str, endpoint: str) -> CalicoPod:
        return CalicoPod(node, name).build(before[keys.endpoint_key(namespace, endpoint)])

    for node in (one, two):
        felix(node)
    plain = next(key for key in before if "-cni-" in key)
    yield Taken(
        cluster,
        before,
        web=pod_on(one, "web", "default", "node--1-k8s-web--0-eth0"),
        plain=pod_on(one, "plain", "default", plain.rpartition("/")[2]),
        older=pod_on(one, "older", "kube-system", "node--1-k8s-old--dns-eth0"),
        db=pod_on(two, "db", "shop", "node--2-k8s-db--0-eth0"),
    )
    cluster.close()
    server.kill()


def pinging(pod: PodOnNode, address: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", pod.name, "ping", "-i", "0.02", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lost(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    told = process.communicate()[0]
    return told.rpartition(" packet loss")[0].rpartition(" ")[2]


def reports(taken: Taken, node: str) -> list[Any]:
    """What the node's agent says of itself, and what it said last."""
    found = map(taken.cluster.store.get, (keys.node_status_key(node), keys.last_status_key(node)))
    return [entry.value for entry in found if entry is not None]


def test_nothing_that_exists_changes_and_no_packet_is_lost(taken: Taken) -> None:
    one, two = taken.cluster.nodes
    assert "1 received" in taken.web.ping(taken.db.address, "-c", "1")
    routes = {node.name: node.ip("route").splitlines() for node in (one, two)}
    links = {node.name: veths(node) for node in (one, two)}
    traffic = [pinging(taken.web, taken.db.address), pinging(taken.db, taken.plain.address)]
    taken.cluster.start()
    status = one.settled()
    assert status["ready"], status
    assert not [each for each in status["concerns"] if "route" in each], status
    assert status["endpoints"] == 3
    assert taken.changed() == {}
    told = reports(taken, "node-1")
    # One report of us takes the place of Felix's at the start, another tells the address.
    assert [each["podwire"]["boot"] for each in told] == [boot_id()] * 2
    assert {type(each[key]) for each in told for key in ("time", "uptime")} == {str, float}
    for node in (one, two):
        assert set(routes[node.name]) <= set(node.ip("route").splitlines())
        now = veths(node)
        for name, link in links[node.name].items():
            alias = now[name].pop("ifalias")
            assert now[name] == link
            assert alias.startswith("podwire ")
    assert veths(one)["cali0d7763386da"]["ifalias"].endswith(" default/web-0 eth0 k8s-pod-network")
    # A restart finds its own marks, and has nothing to write.
    one.end(signal.SIGKILL)
    assert reports(taken, "node-1") == told  # until its lease ends
    one.start()
    assert one.settled()["counters"]["writes"] == 0
    assert one.settled()["endpoints"] == 3
    assert taken.changed() == {}
    assert [lost(each) for each in traffic] == ["0%", "0%"]
    one.end()
    until("the report is taken back", lambda: len(reports(taken, "node-1")) == 1)
    assert len(reports(taken, "node-2")) == 2


def allocated(value: Wire | None, handle: str) -> bool:
    assert value is not None
    return any(attribute["handle_id"] == handle for attribute in value["attributes"])


def test_their_pods_end_and_ours_begin_in_the_same_blocks(taken: Taken) -> None:
    one, two = taken.cluster.start()
    traffic = pinging(taken.older, taken.db.address)
    new = PodOnNode(one, "new", network=POD_NETWORK).add()
    there = PodOnNode(two, "there", network=POD_NETWORK).add()
    # The heads of the queues that Calico left.
    assert (new.address, there.address) == ("192.168.221.73", "192.168.10.2")
    for end in (taken.db.address, taken.plain.address, there.address):
        assert "1 received" in new.ping(end, "-c", "1")
    # A newer container of the same pod takes name and endpoint over; what others wrote stays.
    again = CalicoPod(one, "again", container="ab" * 32, args=taken.web.args)
    run("ip", "netns", "add", again.name)
    told = again.call("ADD")
    assert told["exit"] == 0, (told, one.log())
    key = keys.endpoint_key("default", "node--1-k8s-web--0-eth0")
    endpoint, old = taken.changed()[key], taken.before[key]
    assert endpoint is not None
    assert endpoint["metadata"]["labels"] == old["metadata"]["labels"]
    assert endpoint["metadata"]["uid"] == old["metadata"]["uid"]
    for name in ("ports", "ipNATs", "qosControls", "profiles", "serviceAccountName"):
        assert endpoint["spec"][name] == old["spec"][name]
    assert "1 received" in taken.web.ping(taken.db.address, "-c", "1")
    # The plugin's network may be called otherwise by now: the container is known by its ID.
    taken.plain.network = "renamed"
    theirs: tuple[PodOnNode, ...] = (taken.web, again, taken.plain)
    for pod in theirs:
        assert pod.call("DEL")["exit"] == 0
        assert run("ip", "-n", pod.name, "-o", "link").count("\n") == 1
    assert lost(traffic) == "0%"
    for pod in (taken.older, new, there):
        assert pod.call("DEL")["exit"] == 0
    # Gone are their handles and endpoints, and nothing else.
    changed = taken.changed()
    gone = {key for key, value in changed.items() if value is None}
    handles = (
        *(f"{POD_NETWORK}.{taken.web.container}", f"net1.{taken.plain.container}"),
        "kube-system.old-dns",
    )
    assert gone == {
        *map(keys.handle_key, handles),
        *(key for key in taken.before if "workloadendpoints" in key and "node--1-" in key),
    }
    blocks = {f"{keys.BLOCKS4}{text}-26" for text in ("192.168.221.64", "192.168.10.0")}
    assert changed.keys() - gone == blocks
    block = changed[f"{keys.BLOCKS4}192.168.221.64-26"]
    assert not any(allocated(block, handle) for handle in handles)
    assert allocated(block, f"{POD_NETWORK}.vmi.vms.vm-a")
