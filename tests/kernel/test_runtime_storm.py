"""Forty pods of containerd on two hosts, and an etcd that is killed in the middle of changes."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from podwire.model.cni import Code
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.awaiting import wait_until
from tests.fakes.cri.client import pod_config
from tests.kernel.agent_cluster import PodOnNode, run, until
from tests.kernel.bridged_cluster import bridged_cluster
from tests.kernel.runtime_host import IMAGE, hosts, require, write_image
from tests.lab.pinger import ping_all
from tests.lab.watched_ping import watched_ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.cri.client import CRI
    from tests.kernel.bridged_cluster import BridgedCluster
    from tests.kernel.runtime_host import RuntimeHost

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

EACH = 20
"""Pods on a host."""
LEAVING, COMING = range(15, 19), range(20, 23)
"""Pods of each host whose change is under way when etcd is killed."""
GONE_LATE, COMING_LATE = 19, range(23, 25)
"""Pods that go and come while it is away."""
AWAY_S = 30.0
RETRY_S = 1.0
"""How long a kubelet waits before it tries again."""


@dataclass
class Box:
    """A host with its runtime and what runs there: pod's name → (sandbox, address)."""

    host: RuntimeHost
    cri: CRI
    pods: dict[str, tuple[str, str]]

    def name(self, number: int) -> str:
        """Of a pod of this host."""
        return f"{self.host.name}-{number}"

    def says(self, words: str) -> bool:
        """Whether its agent's status has the words."""
        return words in json.dumps(self.host.node.status())

    def run(self, name: str, attempt: int = 0) -> None:
        """A pod with a container, as a kubelet makes it."""
        config = pod_config(name)
        config.metadata.attempt = attempt
        sandbox = self.cri.run_pod(config)
        self.cri.start_container(sandbox, config, IMAGE, "/bin/sleep", "1000")
        self.pods[name] = sandbox, self.cri.address(sandbox)

    def plugin(self, command: str) -> int:
        """The code of an answer to a call of ours, past the runtime."""
        pod = PodOnNode(self.host.node, "beside")
        if not Path("/run/netns/beside").exists():
            run("ip", "netns", "add", pod.name)
        return int(pod.call(command, version="1.1.0")["code"])

    def remove(self, name: str) -> None:
        self.cri.remove_pod(self.pods[name][0])
        del self.pods[name]

    def namespaces(self) -> dict[str, str]:
        """Pod's name → path of its network namespace."""
        lines = self.host.ctr("-n", "k8s.io", "task", "ls").splitlines()[1:]
        pids = dict(line.split()[:2] for line in lines)
        return {name: f"/proc/{pids[pod]}/ns/net" for name, (pod, _) in self.pods.items()}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[BridgedCluster]:
    require("containerd/usr/bin/containerd", "crun/usr/bin/crun", "busybox-static/bin/busybox")
    pool = IPPool(metadata=Metadata(name="default"), cidr=ip_network("10.244.0.0/16"))
    with bridged_cluster(tmp_path / "c", [pool], 2) as made:
        yield made


@pytest.fixture
def boxes(cluster: BridgedCluster, tmp_path: Path) -> Iterator[list[Box]]:
    image = write_image(tmp_path / "box.tar")
    with ExitStack() as stack:
        started = hosts(stack, tuple(cluster.start()))
        yield [Box(host, host.start_containerd(image), {}) for host in started]


@contextmanager
def two_of_each_ping(boxes: list[Box]) -> Iterator[None]:
    """Two pods of each host are pinged every 20 ms from one of each; no packet is lost."""
    sources = {box.name(0): box.namespaces()[box.name(0)] for box in boxes}
    targets = {box.name(n): box.pods[box.name(n)][1] for box in boxes for n in (0, 1)}
    with watched_ping(sources, targets) as told:
        yield
    assert told["lost"] == {}, told
    assert told["rounds"] > 100


def all_reach_all(boxes: list[Box]) -> None:
    sources = {name: path for box in boxes for name, path in box.namespaces().items()}
    targets = {name: address for box in boxes for name, (_, address) in box.pods.items()}
    found = ping_all(sources, targets)
    silent = [(a, b) for a in targets for b in targets if b not in found[a]]
    assert len(targets) == 2 * EACH
    assert not silent, silent


def agrees(cluster: BridgedCluster, boxes: list[Box]) -> None:
    """Datastore, kernel and runtimes say the same."""
    running = {pod: address for box in boxes for pod, address in box.pods.values()}
    assert cluster.endpoints() == running
    assert cluster.allocated() == sorted(running.values())
    assert cluster.handles() == set(running)
    for box in boxes:
        addresses = {address for _, address in box.pods.values()}
        routes = {name for name in box.host.node.routes() if "/" not in name}
        assert routes == addresses
        links = box.host.node.ip("-o", "link", "show", "type", "veth").splitlines()
        assert len([line for line in links if ": cali" in line]) == len(addresses)
    checked = cluster.check()
    assert checked.returncode == 0, checked.stdout


def wait_all(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


def insist(box: Box, name: str, refused: list[str]) -> None:
    """Run a pod as a kubelet does: again, as a new attempt, until it runs."""
    for attempt in itertools.count():
        try:
            box.run(name, attempt)
        except grpc.RpcError as error:
            refused.append(str(error.details()))
            time.sleep(RETRY_S)
        else:
            return


def test_an_etcd_killed_in_the_middle_of_changes(cluster: BridgedCluster, boxes: list[Box]) -> None:
    refused: list[str] = []
    with ThreadPoolExecutor(20) as workers:
        wait_all([workers.submit(box.run, box.name(n)) for box in boxes for n in range(EACH)])
        all_reach_all(boxes)
        agrees(cluster, boxes)
        before = set(cluster.endpoints())
        with two_of_each_ping(boxes):
            late = [workers.submit(box.remove, box.name(n)) for box in boxes for n in LEAVING]
            late += [workers.submit(insist, b, b.name(n), refused) for b in boxes for n in COMING]
            until("the first come", lambda: set(cluster.endpoints()) - before)
            cluster.server.kill()
            back = time.monotonic() + AWAY_S
            assert not all(map(Future.done, late))
            until("both say so", lambda: all(box.says("does not answer") for box in boxes))
            for box in boxes:
                assert box.plugin("ADD") == Code.TRY_AGAIN
                assert box.plugin("STATUS") == Code.NOT_AVAILABLE
                address = box.pods[box.name(GONE_LATE)][1]
                box.remove(box.name(GONE_LATE))
                assert address not in box.host.node.routes()
            assert cluster.spooled()
            late += [
                workers.submit(insist, b, b.name(n), refused) for b in boxes for n in COMING_LATE
            ]
            until("refusals", lambda: len(refused) >= 2 * len(COMING_LATE))
            wait_until(lambda: time.monotonic() >= back, timeout_s=2 * AWAY_S)
            cluster.server.start().wait_ready(cluster.etcd)
            wait_all(late)
            cluster.wait_recovered()
            agrees(cluster, boxes)
        all_reach_all(boxes)
    assert all(losses > 0 for losses in cluster.metrics("podwire_datastore_watch_losses_total"))
    assert cluster.metrics("podwire_datastore_relists_total") == [0, 0]
    assert all("etcd" in words for words in refused), refused
