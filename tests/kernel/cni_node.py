"""A node for the plugin's tests: datastore, address assignment and the agent's socket, all real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from podwire.agent.attachments import Attachments
from podwire.agent.endpoints import LocalEndpoints
from podwire.agent.leaks import Leaks
from podwire.agent.server import CNIServer
from podwire.agent.spool import Spool
from podwire.agent.world import CNIWorld
from podwire.agent.writeback import Writeback
from podwire.drivers import namespaces
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.netlink.session import Session
from podwire.drivers.store.cluster import ensure_cluster
from podwire.drivers.store.sqlite import SQLiteStore
from podwire.ipam.service import IPAM
from podwire.model import codec
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.cni_programs import PYTHON, c_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.model.link import Link

NETWORK = "pods"
NODE = "node-1"
TIMEOUT_S = 30.0
LOOKS = "PODWIRE_TEST_LOOKS"
"""Set in the environment of an agent that is to look for leaks, too."""


@dataclass
class Outcome:
    """How a run of the plugin ended."""

    exit: int
    stdout: str

    @property
    def told(self) -> Any:
        return json.loads(self.stdout) if self.stdout.strip() else None

    @property
    def code(self) -> int:
        """0, or the code of the error object."""
        return 0 if self.exit == 0 else int(self.told["code"])

    @property
    def address(self) -> str:
        return str(self.told["ips"][-1]["address"]).partition("/")[0]


@dataclass
class CNINode:
    """One node. `program` is the plugin's command line."""

    folder: Path
    program: tuple[str, ...] = field(default_factory=lambda: c_program() or PYTHON)
    store: Any = None
    is_held: bool = False
    boot: str = "b0071d00-0000-4000-8000-000000000001"
    waits: list[object] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket = self.folder / "agent.sock"
        self.spool = self.folder / "spool"
        self.database = self.folder / "datastore.db"
        self.others_know = threading.Event()
        self.others_know.set()
        if self.store is None:
            self.store = SQLiteStore(self.database)
        ensure_cluster(self.store)

    # --- datastore ----------------------------------------------------------------------------

    def add_pool(self, cidr: str = "10.244.0.0/16", block_size: int = 26, **fields: Any) -> None:
        name = cidr.replace(".", "-").replace("/", "-")
        pool = IPPool(
            metadata=Metadata(name=name), cidr=ip_network(cidr), block_size=block_size, **fields
        )
        self.store.create(codec.key_of(pool), codec.encode(pool))

    def add_node(self) -> None:
        node = Node(metadata=Metadata(name=NODE), address=ip_interface("192.0.2.1/24"))
        self.store.create(codec.key_of(node), codec.encode(node))

    def stored(self, prefix: str) -> dict[str, Any]:
        return {entry.key: entry.value for entry in self.store.list(prefix).entries}

    # --- agent --------------------------------------------------------------------------------

    def start(self) -> CNINode:
        clock = SystemClock()
        self.world = CNIWorld(
            node=NODE,
            store=self.store,
            ipam=IPAM(self.store, NODE, clock, SystemDice(), turn=threading.Lock()),
            endpoints=LocalEndpoints(),
            spool=Spool(self.spool),
            clock=clock,
            mtu=lambda: 1450,
            wait_applied=self._wait_applied,
            boot=self.boot,
            held=lambda: self.is_held,
        )
        self.attachments = Attachments(self.world)
        self.writeback = Writeback(self.attachments)
        self.writeback.start()
        self.attachments.start()
        self.server = CNIServer(self.socket, self.attachments, dict)
        self.server.start()
        return self

    def _wait_applied(self, what: object) -> None:
        self.waits.append(what)
        assert self.others_know.wait(TIMEOUT_S)

    def stop(self) -> None:
        self.server.stop()
        self.attachments.stop()
        self.writeback.stop()

    # --- plugin -------------------------------------------------------------------------------

    def config(self, version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
        return {
            "cniVersion": version,
            "name": NETWORK,
            "type": "podwire",
            "agentSocket": str(self.socket),
            "spoolDir": str(self.spool),
            **fields,
        }

    def begin(
        self, command: str, config: Any = None, **variables: str | None
    ) -> subprocess.Popen[bytes]:
        wanted: dict[str, str | None] = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/run/netns/c1",
            "CNI_PATH": "/opt/cni/bin",
            **{f"CNI_{name}": value for name, value in variables.items()},
        }
        environment = {name: value for name, value in wanted.items() if value is not None}
        stdin = (
            config
            if isinstance(config, bytes)
            else json.dumps(self.config() if config is None else config).encode()
        )
        process = subprocess.Popen(
            self.program,
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        try:
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        return process

    def end(self, process: subprocess.Popen[bytes]) -> Outcome:
        stdout, _ = process.communicate(timeout=TIMEOUT_S)
        return Outcome(process.returncode, stdout.decode())

    def call(self, command: str, config: Any = None, **variables: str | None) -> Outcome:
        return self.end(self.begin(command, config, **variables))

    def add(self, container: str = "c1", pod: str | None = None, **variables: str) -> Outcome:
        return self.call("ADD", **of(container, pod, **variables))

    def delete(self, container: str = "c1", **variables: str) -> Outcome:
        return self.call("DEL", **of(container, **variables))

    # --- what is there ------------------------------------------------------------------------

    def veths(self) -> list[str]:
        with Session.open() as host:
            return sorted(
                link.name for link in host.links().values() if link.name.startswith("cali")
            )

    def routes(self) -> list[str]:
        with Session.open() as host:
            routes = host.routes(family=4)
        return sorted(str(route.key.destination) for route in routes if route.protocol == 80)

    def allocations(self) -> list[str]:
        found = []
        for key, wire in self.stored("/calico/ipam/v2/assignment/").items():
            block = codec.decode_block(key, wire)
            found += [
                str(block.cidr.network_address + ordinal)
                for ordinal, taken in block.allocations.items()
                if taken.released_at is None
            ]
        return sorted(found)

    def leftovers(self) -> dict[str, object]:
        """Everything an attachment makes; empty when there is nothing of any."""
        found: dict[str, object] = {
            "veths": self.veths(),
            "routes": self.routes(),
            "allocations": self.allocations(),
            "handles": list(self.stored("/calico/ipam/v2/handle/")),
            "endpoints": list(
                self.stored("/calico/resources/v3/projectcalico.org/workloadendpoints/")
            ),
            "registry": [str(key) for key in self.world.endpoints.all()]
            if hasattr(self, "world")
            else [],
            "spool": [path.name for path in Spool(self.spool).pending()],
        }
        return {name: value for name, value in found.items() if value}


def of(container: str, pod: str | None = None, **variables: str) -> dict[str, str]:
    """The variables that name a container, and its pod."""
    wanted = {"CONTAINERID": container, "NETNS": f"/run/netns/{container}"}
    if pod is not None:
        wanted["ARGS"] = f"K8S_POD_NAMESPACE=demo;K8S_POD_NAME={pod}"
    return {**wanted, **variables}


def make_pod(name: str) -> str:
    namespaces.create_named(name)
    return f"/run/netns/{name}"


def inside(name: str, function: Callable[[], Any]) -> Any:
    with namespaces.opened(f"/run/netns/{name}") as descriptor:
        return namespaces.call_in(descriptor, function)


def links_inside(name: str) -> dict[str, Link]:
    def look() -> dict[str, Link]:
        with Session.open() as session:
            return {link.name: link for link in session.links().values()}

    found: dict[str, Link] = inside(name, look)
    return found


def ip(*words: str, pod: str | None = None) -> str:
    place = ["-n", pod] if pod else []
    done = subprocess.run(["ip", *place, *words], capture_output=True, text=True, check=True)
    return done.stdout


def pings(pod: str, address: str, count: int = 1) -> bool:
    done = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            pod,
            "ping",
            "-n",
            "-c",
            str(count),
            "-i",
            "0.01",
            "-W",
            "1",
            address,
        ],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def make_uplink() -> None:
    """The node's own device with a default route: without one nobody answers proxy ARP."""
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("address", "add", "192.0.2.1/24", "dev", "up0")
    for device in ("lo", "up0", "up1"):
        ip("link", "set", device, "up")
    ip("route", "add", "default", "via", "192.0.2.254")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@contextmanager
def running_node(folder: Path, pods: int = 3, *, block_size: int = 26) -> Iterator[CNINode]:
    """A node with an uplink, a pool, a served socket and pods c1, c2, … that wait for an ADD."""
    node = CNINode(folder)
    node.add_pool(block_size=block_size)
    node.add_node()
    make_uplink()
    for number in range(1, pods + 1):
        make_pod(f"c{number}")
    node.start()
    try:
        yield node
    finally:
        node.stop()


def look_for_leaks(node: CNINode) -> None:
    """Look without a pause, and give back what was seen twice."""
    leaks = Leaks(node.attachments, grace_s=0)
    while True:
        leaks.look()


def main(folder: str) -> None:
    """An agent's plugin side as a process of its own, to be killed."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    node = CNINode(Path(folder)).start()
    if LOOKS in os.environ:
        threading.Thread(target=look_for_leaks, args=(node,), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})
    node.stop()


def start_agent(folder: Path, *by: str) -> subprocess.Popen[bytes]:
    """Start that process, by another program if told so, and wait until it answers."""
    agent = subprocess.Popen(
        [*by, sys.executable, "-m", "tests.kernel.cni_node", str(folder)], stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    with agent.stdout as stdout:
        assert stdout.readline() == b"ready\n"
    return agent


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(sys.argv[1])
