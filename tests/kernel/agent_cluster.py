"""Two nodes on one wire, each with a real agent process, on one datastore file.

n1 [ens32 10.0.0.1/24] ────veth──── [ens32 10.0.0.2/24] n2
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from podwire.agent.control import ask
from podwire.drivers.store import ensure_cluster, open_store
from podwire.errors import PodwireError
from podwire.model import codec
from podwire.model.config import DatastoreConfig
from podwire.model.node import Routing
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from tests.fakes.cni_programs import PYTHON, c_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podwire.boundary import Store

TIMEOUT_S = 30.0


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
    return done.stdout


def until(what: str, condition: Callable[[], Any], log: Callable[[], str] = str) -> Any:
    """Wait for a condition; what it came to. `log` is read only if it never comes."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {TIMEOUT_S:.0f} s\n{log()}")
        time.sleep(0.01)
    return found


def told(datastore: DatastoreConfig) -> dict[str, Any]:
    """As the agent's configuration file has it."""
    if datastore.etcd is None:
        return {"type": datastore.type, "path": datastore.path}
    etcd = datastore.etcd
    files = {"caFile": etcd.ca_file, "certFile": etcd.cert_file, "keyFile": etcd.key_file}
    shown = {key: name for key, name in files.items() if name is not None}
    return {"type": datastore.type, "endpoints": list(etcd.endpoints), **shown}


@dataclass
class AgentNode:
    """One node: a named network namespace and its agent."""

    number: int
    folder: Path
    datastore: DatastoreConfig
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def netns(self) -> str:
        return f"n{self.number}"

    @property
    def socket(self) -> str:
        return str(self.folder / f"{self.netns}.sock")

    @property
    def health(self) -> str:
        return str(self.folder / f"{self.netns}.health")

    def config(self) -> Path:
        path = self.folder / f"{self.netns}.yaml"
        settings = {
            "datastore": json.dumps(told(self.datastore)),
            "agentSocket": self.socket,
            "spoolDir": str(self.folder / f"{self.netns}.spool"),
            "birdConfig": str(self.folder / f"{self.netns}.bird.conf"),
            "birdSocket": str(self.folder / f"{self.netns}.bird.ctl"),
            "secretsDir": str(self.folder / f"{self.netns}.secrets"),
            "healthAddress": self.health,
            "resyncPeriod": "1s",
            **self.settings,
        }
        path.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
        return path

    def inside(self, *command: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.netns, *command)

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.netns, *words)

    def begin(self) -> subprocess.Popen[bytes]:
        """Start the agent without waiting for anything."""
        command = ("-m", "podwire", "agent", "--node", self.name, "--config", str(self.config()))
        with (self.folder / f"{self.netns}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.inside(sys.executable, *command), stdout=log, stderr=log
            )
        return self.process

    def start(self) -> AgentNode:
        """Start the agent and wait until the node is ready."""
        self.begin()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        until(f"{self.name} ready", lambda: (self.status() or {}).get("ready"), self.log)

    def log(self) -> str:
        path = self.folder / f"{self.netns}.log"
        return path.read_text() if path.exists() else ""

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(TIMEOUT_S)

    def ask(self, control: str, **fields: Any) -> dict[str, Any]:
        return ask(self.socket, {"control": control, **fields})

    def status(self) -> dict[str, Any] | None:
        try:
            return self.ask("status")
        except PodwireError:
            return None

    def routes(self) -> dict[str, str]:
        """Destination → the rest of the line, of our routes."""
        lines = self.ip("route", "show", "table", "main", "proto", "80").splitlines()
        words = [line.replace("blackhole ", "").split() + line.split()[:1] for line in lines]
        return {word[0]: " ".join(word[1:-1]) or word[-1] for word in words}

    def neighbours(self) -> list[str]:
        """The permanent ones, sorted: the kernel lists them in the order of their making."""
        return sorted(self.ip("neigh", "show", "nud", "permanent").splitlines())

    def settled(self) -> dict[str, Any]:
        """The status once the agent has nothing left to do."""
        before = self.ask("status")
        while True:
            time.sleep(0.3)
            after = self.ask("status")
            if after["counters"]["writes"] == before["counters"]["writes"]:
                return after
            before = after


@dataclass
class Cluster:
    """Both nodes and their datastore."""

    folder: Path
    pool: IPPool
    routing: Routing = Routing.AGENT
    datastore: DatastoreConfig | None = None
    """None: a file of its own."""
    is_filled: bool = False
    """Whether the datastore has its pools already."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        where = self.datastore or DatastoreConfig(path=str(self.folder / "store.db"))
        self.store: Store = open_store(where)
        ensure_cluster(self.store, routing=self.routing)
        if not self.is_filled:
            self.store.create(codec.key_of(self.pool), codec.encode(self.pool))
        self.nodes = [AgentNode(number, self.folder, where) for number in (1, 2)]
        for node in self.nodes:
            run("ip", "netns", "add", node.netns)
            node.ip("link", "set", "lo", "up")
        one, two = self.nodes
        one.ip("link", "add", "ens32", "type", "veth", "peer", "name", "ens32", "netns", two.netns)
        for node in self.nodes:
            node.ip("addr", "add", f"10.0.0.{node.number}/24", "dev", "ens32")
            node.ip("link", "set", "ens32", "up")
            node.ip("route", "add", "default", "via", "10.0.0.254")

    def close(self) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.end()
        self.store.close()

    def start(self) -> tuple[AgentNode, AgentNode]:
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait_ready()
        return self.nodes[0], self.nodes[1]


Make: TypeAlias = "Callable[..., Cluster]"


@contextmanager
def clusters(folder: Path) -> Iterator[Make]:
    """Makes a cluster; its agents end with the block."""
    with ExitStack() as stack:

        def make(
            vxlan: Mode = Mode.NEVER,
            routing: Routing = Routing.AGENT,
            datastore: DatastoreConfig | None = None,
        ) -> Cluster:
            cluster = Cluster(folder, pool(vxlan), routing, datastore)
            stack.callback(cluster.close)
            return cluster

        yield make


def pool(vxlan: Mode = Mode.NEVER) -> IPPool:
    return IPPool(
        metadata=Metadata(name="default"), cidr=ip_network("10.244.0.0/16"), vxlan_mode=vxlan
    )


@dataclass
class PodOnNode:
    """A pod made through the plugin: a named namespace with eth0."""

    node: AgentNode
    name: str
    address: str = ""
    network: str = "pods"

    def call(self, command: str, version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
        """Run the plugin on the node; its answer, with `exit`. `fields`: more of the network."""
        config = {
            "cniVersion": version,
            "name": self.network,
            "type": "podwire",
            "agentSocket": self.node.socket,
            "spoolDir": str(self.node.folder / f"{self.node.netns}.spool"),
            **fields,
        }
        done = subprocess.run(
            self.node.inside(*(c_program() or PYTHON)),
            input=json.dumps(config).encode(),
            capture_output=True,
            env={**self.environment(), "CNI_COMMAND": command},
            check=False,
        )
        told = json.loads(done.stdout) if done.stdout.strip() else {}
        return {"exit": done.returncode, **told}

    def environment(self) -> dict[str, str]:
        """What the plugin is told of the pod."""
        return {
            "PATH": os.environ["PATH"],
            "CNI_CONTAINERID": self.name,
            "CNI_NETNS": f"/run/netns/{self.name}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/",
            "CNI_ARGS": f"K8S_POD_NAMESPACE=demo;K8S_POD_NAME={self.name}",
        }

    def add(self) -> PodOnNode:
        run("ip", "netns", "add", self.name)
        told = self.call("ADD")
        assert told["exit"] == 0, (told, self.node.log())
        self.address = told["ips"][0]["address"].partition("/")[0]
        return self

    def ping(self, address: str, *options: str) -> str:
        return run("ip", "netns", "exec", self.name, "ping", "-W", "2", *options, address)
