"""Ten real agents on one etcd, with real pods, in a pool that is too small for a peaceful life."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from itertools import count
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from podwire.model import codec, keys
from podwire.model.cni import Code
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.awaiting import wait_until
from tests.fakes.cni_programs import PYTHON, c_program
from tests.kernel.bridged_cluster import bridged_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.kernel.agent_cluster import AgentNode
    from tests.kernel.bridged_cluster import BridgedCluster

NODES = 10
PATIENCE_S = 90.0
PROGRAM = c_program() or PYTHON
AWAY = {Code.TRY_AGAIN, Code.IO}


@dataclass
class Kubelet:
    """What a kubelet and its runtime do on one node."""

    node: AgentNode
    number: Iterator[int] = field(default_factory=count)
    running: dict[str, str] = field(default_factory=dict)
    """Container ID → the address the plugin told us of."""

    def call(self, command: str, container: str) -> dict[str, Any]:
        """What the plugin printed; nothing for a DEL that succeeded."""
        config = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "podwire",
            "agentSocket": self.node.socket,
            "spoolDir": str(self.node.folder / f"{self.node.netns}.spool"),
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/",
            "CNI_ARGS": f"K8S_POD_NAMESPACE=demo;K8S_POD_NAME={container}",
        }
        stdin = json.dumps(config).encode()
        done = subprocess.run(
            PROGRAM, input=stdin, capture_output=True, env=environment, check=False
        )
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def run(self, stop: Callable[[], bool]) -> str | None:
        """A pod's container: tried again, as a new one, while the agent or the store is away."""
        while not stop():
            container = f"{self.node.netns}-{next(self.number)}"
            namespaces.create_named(container)
            told = self.call("ADD", container)
            if "ips" in told:
                self.running[container] = told["ips"][0]["address"].partition("/")[0]
                return container
            assert told["code"] in AWAY, told
            self.remove(container)
            wait_until(lambda: stop() or self.node.status() is not None, PATIENCE_S)
        return None

    def run_two(self, stop: Callable[[], bool]) -> None:
        """A pod, and another one in its place."""
        container = self.run(stop)
        if container is not None:
            del self.running[container]
            self.remove(container)
            self.run(stop)

    def remove(self, container: str) -> None:
        assert self.call("DEL", container) == {}
        namespaces.delete_named(container)


def pool(cidr: str, **fields: Any) -> IPPool:
    return IPPool(metadata=Metadata(name="default"), cidr=ip_network(cidr), **fields)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[BridgedCluster]:
    # 16 blocks of 16 for ten nodes.
    pool = IPPool(
        metadata=Metadata(name="default"), cidr=ip_network("10.244.0.0/24"), block_size=28
    )
    with bridged_cluster(tmp_path, [pool], NODES) as made:
        entry = made.store.get(keys.IPAM_CONFIG_KEY)
        assert entry is not None
        config = replace(codec.decode_ipam_config(entry.key, entry.value), strict_affinity=False)
        made.store.update(entry.key, codec.encode(config), entry.revision)
        made.start()
        yield made


def agrees(cluster: BridgedCluster, kubelets: list[Kubelet]) -> None:
    """Datastore, kernels and kubelets say the same."""
    running = {pod: address for each in kubelets for pod, address in each.running.items()}
    assert cluster.endpoints() == running
    assert cluster.allocated() == sorted(running.values())
    assert cluster.handles() == set(running)
    for each in kubelets:
        links = each.node.ip("-o", "link", "show", "type", "veth").splitlines()
        assert len([line for line in links if ": cali" in line]) == len(each.running)
    checked = cluster.check()
    assert checked.returncode == 0, checked.stdout
    owners = cluster.owners()
    assert all(len(nodes) == 1 for nodes in owners.values()), owners


def test_agents_killed_at_random_leak_and_double_nothing(cluster: BridgedCluster) -> None:
    """Ten pods a node, more than its block has: they claim what is left, and borrow."""
    crowd(cluster, each=10, kills=4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_thousand_pods_while_agents_are_killed(tmp_path: Path) -> None:
    with bridged_cluster(tmp_path, [pool("10.244.0.0/20")], NODES) as made:
        made.start()
        crowd(made, each=200, kills=30)


def crowd(cluster: BridgedCluster, *, each: int, kills: int) -> None:
    """Run so many pods on each node and replace half of them, while agents are killed."""
    kubelets = [Kubelet(node) for node in cluster.nodes]
    dice, failed = random.Random(kills), threading.Event()
    with ThreadPoolExecutor(2 * NODES) as workers:
        work = [
            workers.submit(kubelet.run if number % 2 else kubelet.run_two, failed.is_set)
            for number in range(each)
            for kubelet in kubelets
        ]
        try:
            for number in range(kills):
                wait_for(work, (number + 1) * len(work) // (kills + 1))
                victim = dice.choice(cluster.nodes)
                victim.end(SIGKILL)
                victim.begin()
            wait_for(work, len(work))
        finally:
            failed.set()
    cluster.wait_recovered()
    wait_until(lambda: len(cluster.handles()) == each * NODES)  # half-made ones are taken back
    agrees(cluster, kubelets)


def wait_for(work: Sequence[Future[str | None] | Future[None]], count: int) -> None:
    """Until so many pods are done; a failure is raised here."""

    def done() -> bool:
        ended = [future for future in work if future.done()]
        for future in ended:
            future.result()
        return len(ended) >= count

    wait_until(done, max(PATIENCE_S, count))
