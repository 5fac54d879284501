"""Any number of nodes on one bridge, each with a real agent process, on one real etcd.

n1 [ens32 10.0.0.1/24] ─┐
n2 [ens32 10.0.0.2/24] ─┼─ bridge [10.0.0.254/24], where etcd listens with certificates
…                      ─┘
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podwire.drivers.store import ensure_cluster, open_store
from podwire.model import codec, keys
from podwire.model.addressing import address_at
from podwire.model.config import DatastoreConfig
from tests.fakes.awaiting import wait_until
from tests.fakes.etcd_certificates import client_config, make_certificates, server_words
from tests.fakes.etcd_server import PROGRAMS, WHEEL, EtcdServer
from tests.fakes.http_client import get, parse
from tests.kernel.agent_cluster import AgentNode, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from podwire.boundary import Store
    from podwire.model.pool import IPPool

ADDRESS = "10.0.0.254"
START_S = 90.0
"""Ten agents that start at once share two processors."""
URL = f"https://{ADDRESS}:2379"


def etcd_program() -> Path:
    """Debian's, or the wheel's where the package could not be had."""
    return PROGRAMS["debian"] if PROGRAMS["debian"].exists() else PROGRAMS["wheel"]


@dataclass
class BridgedCluster:
    """The nodes, their etcd, and a door into it."""

    folder: Path
    pools: Sequence[IPPool]
    count: int
    words: Sequence[str] = ()
    """More options of etcd."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of every agent."""
    fill: Callable[[Store], object] = ensure_cluster
    """What writes the first objects into the empty datastore."""
    nodes: list[AgentNode] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        keys_folder = self.folder / "keys"
        make_certificates(keys_folder, ADDRESS)
        self.etcd = client_config(keys_folder, URL)
        self.server = EtcdServer(
            self.folder / "etcd",
            program=etcd_program(),
            client_url=URL,
            peer_url=f"http://{ADDRESS}:2380",
            words=(*server_words(keys_folder), *self.words),
        )
        self.server.start().wait_ready(self.etcd)
        where = DatastoreConfig(type="etcd", etcd=self.etcd)
        self.store: Store = open_store(where)
        self.fill(self.store)
        for pool in self.pools:
            self.store.create(codec.key_of(pool), codec.encode(pool))
        for number in range(1, self.count + 1):
            node = AgentNode(number, self.folder, where, dict(self.settings))
            self._connect(node)
            self.nodes.append(node)

    def _connect(self, node: AgentNode) -> None:
        run("ip", "netns", "add", node.netns)
        node.ip("link", "set", "lo", "up")
        pair = ("type", "veth", "peer", "name", "ens32", "netns", node.netns)
        run("ip", "link", "add", node.netns, *pair)
        run("ip", "link", "set", node.netns, "master", "bridge", "up")
        node.ip("addr", "add", f"10.0.0.{node.number}/24", "dev", "ens32")
        node.ip("link", "set", "ens32", "up")
        node.ip("route", "add", "default", "via", ADDRESS)

    def start(self) -> list[AgentNode]:
        """Start all agents; ends when all nodes are ready."""
        for node in self.nodes:
            node.begin()
        wait_until(lambda: all((node.status() or {}).get("ready") for node in self.nodes), START_S)
        return self.nodes

    def save(self) -> None:
        """Take a snapshot of etcd."""
        self.etcdctl("snapshot", "save", str(self.folder / "snapshot"))

    def restore(self) -> None:
        """Let etcd go on from the snapshot."""
        self.server.restore(self.folder / "snapshot")
        self.server.start().wait_ready(self.etcd)

    def etcdctl(self, *words: str) -> None:
        files = (f"--cacert={self.etcd.ca_file}", f"--cert={self.etcd.cert_file}")
        key = f"--key={self.etcd.key_file}"
        run(str(WHEEL / "etcdctl"), f"--endpoints={URL}", *files, key, *words)

    def close(self) -> None:
        running = [node.process for node in self.nodes if node.process is not None]
        for process in running:
            process.terminate()
        try:
            for process in running:
                process.wait(START_S)
        finally:
            for process in running:
                process.kill()  # one that would not end fails the test, and does not outlive it
            self.store.close()
            self.server.kill()

    # --- what the datastore says ----------------------------------------------------------------

    def handles(self) -> set[str]:
        """Of pods: the container IDs that have addresses."""
        entries = self.store.list(keys.HANDLES).entries
        names = {entry.key.rpartition("/")[2] for entry in entries}
        return {name.rpartition(".")[2] for name in names if "tunnel" not in name}

    def allocated(self) -> list[str]:
        """Addresses of pods, by all blocks; one that is given out twice comes twice."""
        found = []
        for entry in self.store.list(keys.BLOCKS4).entries:
            block = codec.decode_block(entry.key, entry.value)
            for ordinal, allocation in block.allocations.items():
                if allocation.released_at is None and "pod" in allocation.attributes:
                    found.append(str(address_at(block.cidr, ordinal)))
        return sorted(found)

    def endpoints(self) -> dict[str, str]:
        """Container ID → address."""
        found = {}
        for entry in self.store.list(keys.ENDPOINTS).entries:
            endpoint = codec.decode_endpoint(entry.key, entry.value)
            found[endpoint.container_id] = str(endpoint.addresses[0].ip)
        return found

    def owners(self) -> dict[str, set[str]]:
        """Block → the nodes that have, or had, a claim on it."""
        found: dict[str, set[str]] = {}
        for entry in self.store.list(keys.AFFINITIES).entries:
            claim = codec.decode_affinity(entry.key, entry.value)
            found.setdefault(str(claim.block), set()).add(claim.node)
        return found

    def check(self) -> subprocess.CompletedProcess[str]:
        """`podwire ipam check`."""
        return self.podwire("ipam", "check")

    def podwire(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of ours on this datastore."""
        environment = {
            **os.environ,
            "ETCD_CA_CERT_FILE": str(self.etcd.ca_file),
            "ETCD_CERT_FILE": str(self.etcd.cert_file),
            "ETCD_KEY_FILE": str(self.etcd.key_file),
        }
        return subprocess.run(
            [sys.executable, "-m", "podwire", *words, "--datastore", URL],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    # --- what the nodes say ---------------------------------------------------------------------

    def logs(self) -> str:
        return "\n".join(f"{node.name}:\n{node.log()[-3000:]}" for node in self.nodes)

    def status(self) -> str:
        """Of all agents, for an assertion that fails."""
        shown: dict[str, Any] = {node.name: node.status() for node in self.nodes}
        return json.dumps(shown)

    def metrics(self, name: str) -> list[float]:
        """One without labels, of every agent."""
        pages = (get(node.health, "/metrics").text for node in self.nodes)
        return [parse(page)[name, frozenset()] for page in pages]

    def spooled(self) -> list[Path]:
        """DELs that wait, on any node."""
        return [path for node in self.nodes for path in self.folder.glob(f"{node.netns}.spool/*")]

    def wait_recovered(self) -> None:
        """Until all nodes are ready and no DEL waits."""
        for node in self.nodes:
            node.wait_ready()
        until("no DEL waits", lambda: not self.spooled(), self.logs)


@contextmanager
def bridged_cluster(*args: Any, **more: Any) -> Iterator[BridgedCluster]:
    """A cluster whose processes end with the block."""
    cluster = BridgedCluster(*args, **more)
    try:
        yield cluster
    finally:
        cluster.close()
