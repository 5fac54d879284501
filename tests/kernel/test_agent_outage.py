"""What agents say and do while etcd hangs, is cut off, slow or full, and how they come back."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from podwire.agent.observe import Away, Changed, Inbox, StoreObserver
from podwire.drivers.clock import SystemDice
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import DatastoreUnavailable
from podwire.model import keys
from podwire.model.cni import Code
from podwire.model.config import EtcdConfig
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.awaiting import wait_until
from tests.fakes.etcd_server import EtcdServer
from tests.fakes.http_client import get
from tests.kernel.agent_cluster import PodOnNode, run, until
from tests.kernel.bridged_cluster import bridged_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podwire.agent.observe import Message
    from tests.kernel.agent_cluster import AgentNode
    from tests.kernel.bridged_cluster import BridgedCluster

CUT = """
table inet outage {
    chain input {
        type filter hook input priority 0;
        tcp dport 2379 drop
    }
}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[BridgedCluster]:
    pool = IPPool(metadata=Metadata(name="default"), cidr=ip_network("10.244.0.0/16"))
    words = ("--quota-backend-bytes=2000000",)
    with bridged_cluster(tmp_path, [pool], 2, words=words) as made:
        made.start()
        yield made


class Outage:
    """Ways to take an etcd away; each gives the way to bring it back."""

    def __init__(self, cluster: BridgedCluster) -> None:
        self.cluster = cluster

    def hang(self) -> Callable[[], object]:
        process = self.cluster.server.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        return lambda: process.send_signal(signal.SIGCONT)

    def cut_off(self) -> Callable[[], object]:
        subprocess.run(["nft", "-f", "-"], input=CUT.encode(), check=True)
        return lambda: run("nft", "delete", "table", "inet", "outage")

    def fill(self) -> Callable[[], object]:
        store = EtcdStore(self.cluster.etcd)

        def write_on() -> None:
            for number in count():
                store.create(f"/filler/{number}", {"x": "x" * 50_000})

        with pytest.raises(DatastoreUnavailable, match="space exceeded"):
            write_on()

        def make_room() -> None:
            for entry in store.list("/filler/").entries:
                store.delete(entry.key)
            store.compact()
            store.close()
            self.cluster.etcdctl("defrag")
            self.cluster.etcdctl("alarm", "disarm")

        return make_room


@contextmanager
def no_ping_lost(pod: PodOnNode, address: str) -> Iterator[None]:
    """A ping every 20 ms for as long as the block lasts."""
    with subprocess.Popen(
        ["ip", "netns", "exec", pod.name, "ping", "-n", "-i", "0.02", "-W", "5", address],
        stdout=subprocess.PIPE,
        text=True,
    ) as pinging:
        yield
        pinging.send_signal(signal.SIGINT)
        shown, _ = pinging.communicate()
    assert " 0% packet loss" in shown, shown


def says(node: AgentNode, words: str) -> bool:
    return words in json.dumps(node.status())


def test_whatever_happens_to_etcd_pods_go_on_and_everybody_is_told(
    cluster: BridgedCluster,
) -> None:
    one, two = cluster.nodes
    here, there = PodOnNode(one, "here").add(), PodOnNode(two, "there").add()
    until("the way over", lambda: "1 received" in here.ping(there.address, "-c", "1"))
    outage = Outage(cluster)
    with no_ping_lost(here, there.address):
        for number, begin in enumerate((outage.hang, outage.cut_off, outage.fill)):
            going, new = PodOnNode(one, f"going-{number}").add(), PodOnNode(one, f"new-{number}")
            run("ip", "netns", "add", new.name)
            end = begin()
            refused = new.call("ADD", "1.1.0")
            assert refused["code"] == Code.TRY_AGAIN, (begin, refused)
            assert "datastore etcd https://10.0.0.254:2379" in refused["msg"], (begin, refused)
            assert run("ip", "-n", new.name, "-o", "link").count("\n") == 1
            assert new.call("STATUS", "1.1.0")["code"] == Code.NOT_AVAILABLE, begin
            assert going.call("DEL")["exit"] == 0
            assert going.address not in one.routes()
            assert len(cluster.spooled()) == 1
            until(f"{begin} is said", lambda: says(one, "datastore etcd"))
            assert get(one.health, "/readyz").status == 503
            end()
            cluster.wait_recovered()
            assert len(cluster.handles()) == 2, begin
            assert new.call("ADD")["exit"] == 0
            assert new.call("DEL")["exit"] == 0
    assert cluster.endpoints() == {"here": here.address, "there": there.address}
    assert cluster.metrics("podwire_datastore_relists_total") == [0, 0]


def test_an_agent_that_starts_while_etcd_hangs_keeps_what_is_there(
    cluster: BridgedCluster,
) -> None:
    one, two = cluster.nodes
    here, there = PodOnNode(one, "here").add(), PodOnNode(two, "there").add()
    going, new = PodOnNode(one, "going").add(), PodOnNode(one, "new")
    run("ip", "netns", "add", new.name)
    until("the way over", lambda: "1 received" in here.ping(there.address, "-c", "1"))
    before = one.routes()
    with no_ping_lost(here, there.address):
        end = Outage(cluster).hang()
        one.end(signal.SIGKILL)
        one.begin()
        until("it says so", lambda: says(one, "datastore etcd"))
        assert new.call("ADD")["code"] == Code.TRY_AGAIN
        assert going.call("DEL")["exit"] == 0
        assert len(cluster.spooled()) == 1
        assert one.routes() == before
        end()
        cluster.wait_recovered()
    assert set(one.routes()) == set(before) - {going.address}
    assert set(cluster.endpoints()) == {"here", "there"}


def test_a_slow_etcd_makes_changes_slow_and_not_wrong(cluster: BridgedCluster) -> None:
    """It stands still nine tenths of the time."""
    pods = [PodOnNode(cluster.nodes[n % 2], f"pod-{n}") for n in range(8)]
    for pod in pods:
        run("ip", "netns", "add", pod.name)
    over = threading.Event()

    def stutter() -> None:
        while not over.is_set():
            go_on = Outage(cluster).hang()
            over.wait(0.27)
            go_on()
            over.wait(0.03)

    slow = threading.Thread(target=stutter)
    slow.start()
    try:
        with ThreadPoolExecutor(len(pods)) as workers:
            told = list(workers.map(lambda pod: pod.call("ADD"), pods))
            added = {
                pod.name: answer["ips"][0]["address"].partition("/")[0]
                for pod, answer in zip(pods, told, strict=True)
                if answer["exit"] == 0
            }
            gone = [pod for pod in pods if pod.name not in added] + pods[:2]
            assert all(answer["exit"] == 0 for answer in workers.map(delete, gone))
    finally:
        over.set()
        slow.join()
    cluster.wait_recovered()
    left = {name: added[name] for name in added if name not in {pod.name for pod in gone}}
    assert left, told
    until("the datastore agrees", lambda: cluster.endpoints() == left, cluster.logs)
    assert cluster.allocated() == sorted(left.values())
    assert cluster.handles() == set(left)


def delete(pod: PodOnNode) -> dict[str, Any]:
    return pod.call("DEL")


# --- coming back ----------------------------------------------------------------------------------

CLIENTS = 50


def calls(method: str) -> int:
    """How often that method was called since etcd was started, by its own count."""
    with urlopen("http://127.0.0.1:2381/metrics") as answer:
        lines = answer.read().decode().splitlines()
    label = f'grpc_server_started_total{{grpc_method="{method}",'
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(label))


def test_fifty_come_back_and_nobody_lists_again(tmp_path: Path) -> None:
    run("ip", "link", "set", "lo", "up")
    words = ("--listen-metrics-urls=http://127.0.0.1:2381",)
    server = EtcdServer(tmp_path / "etcd", words=words).start().wait_ready()
    stores = [EtcdStore(EtcdConfig(endpoints=(server.endpoint,))) for _ in range(CLIENTS)]
    stores[0].create(f"{keys.NODES}before", {})
    inboxes = [Inbox() for _ in stores]
    observers = [
        StoreObserver(store, keys.NODES, inbox, SystemDice().uniform)
        for store, inbox in zip(stores, inboxes, strict=True)
    ]
    heard: list[list[Message]] = [[] for _ in stores]

    def everybody_heard(what: Callable[[list[Message]], bool]) -> bool:
        for inbox, messages in zip(inboxes, heard, strict=True):
            messages.extend(inbox.take())
        return all(map(what, heard))

    for observer in observers:
        observer.start()
    wait_until(lambda: everybody_heard(lambda m: isinstance(m[-1], Changed) if m else False))
    server.kill()
    wait_until(lambda: everybody_heard(lambda m: sum(isinstance(e, Away) for e in m) >= 4))
    server.start().wait_ready()
    wait_until(lambda: all(observer.away_at is None for observer in observers))
    stores[0].create(f"{keys.NODES}after", {})
    wait_until(lambda: everybody_heard(lambda m: f"{keys.NODES}after" in changed(m)))
    assert all(changed(messages) == [f"{keys.NODES}after"] for messages in heard)
    assert [observer.relists for observer in observers] == [0] * CLIENTS
    # One look whether the changes are still there, and one watch: a listing would be a second look.
    assert calls("Watch") == CLIENTS
    assert CLIENTS <= calls("Range") < 2 * CLIENTS
    for observer, store in zip(observers, stores, strict=True):
        observer.stop()
        store.close()
    server.kill()


def changed(messages: list[Message]) -> list[str]:
    found = [each for each in messages if isinstance(each, Changed)]
    return [change.key for each in found for change in each.changes]
