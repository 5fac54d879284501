"""Calico's own client library (v3.28) beside us on one etcd: it reads all, and its IPAM agrees.

Go and Calico's modules are needed; where they cannot be had the test says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model import codec, keys
from podwire.model.config import EtcdConfig
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.calico_etcd import RELEASES, fill
from tests.fakes.etcd_server import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.model.resource import Stored

pytestmark = [pytest.mark.peer, pytest.mark.long]

HERE = Path(__file__).parent / "calico_client"
CALICO = "github.com/projectcalico/calico@v1.11.0-cni-plugin.0.20250813170300-a0db560f0520"
API = "github.com/projectcalico/api@v0.0.0-20220722155641-439a754a988b"
GO = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
KINDS = {
    "IPPool": keys.POOLS,
    "Node": keys.NODES,
    "WorkloadEndpoint": keys.ENDPOINTS,
    "IPReservation": keys.RESERVATIONS,
    "ClusterInformation": keys.CLUSTER,
    "BGPConfiguration": keys.BGP_CONFIGURATIONS,
    "Block4": keys.BLOCKS4,
    "Block6": keys.BLOCKS6,
    "IPAMHandle": keys.HANDLES,
}
LATER_OR_EARLIER = {
    *("assignmentMode", "affinity_claim_time", "qosControls", "programClusterRoutes"),
    *("interfaces", "strictAffinity"),
}
"""Fields that v3.28 does not have yet, or no longer."""


def go(folder: Path, *words: str) -> str:
    command = ["go", *words]
    done = subprocess.run(command, cwd=folder, env=GO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = " ".join((done.stderr or done.stdout).split())
        pytest.skip(f"needs the Go modules of Calico: go {words[0]}: {told[-300:]}")
    return done.stdout


def module(folder: Path, name: str) -> Path:
    return Path(json.loads(go(folder, "mod", "download", "-json", name))["Dir"])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = re.search(r"go1\.(\d+)", go_version())
    if found is None or int(found[1]) < 23:
        pytest.skip("needs Go 1.23 or later")
    folder = tmp_path_factory.mktemp("calico_client")
    (folder / "go.mod").write_text("module podwire.io/calico-client\n\ngo 1.23\n")
    calico, api = module(folder, CALICO), module(folder, API)
    # A module's replacements count only where it is built itself: they are taken from there.
    required = CALICO.replace("@", " ")
    wanted = (calico / "go.mod").read_text().partition("\n")[2]
    wanted = wanted.replace("require (", f"require (\n\t{required}", 1)
    (folder / "go.mod").write_text(f"module podwire.io/calico-client\n{wanted}")
    shutil.copy(calico / "go.sum", folder)
    shutil.copytree(api, folder / "api", copy_function=shutil.copyfile)
    kinds = folder / "api" / "pkg" / "apis" / "projectcalico" / "v3"
    for place in (folder / "api", *(folder / "api").rglob("*")):
        place.chmod(0o755)
    shutil.copy(HERE / "api" / "missing.go", kinds)
    shutil.copy(HERE / "main.go", folder)
    go(folder, "build", "-o", "calico-client", ".")
    return folder / "calico-client"


def go_version() -> str:
    if shutil.which("go") is None:
        return ""
    return subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout


def free_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Both:
    """One etcd, we and Calico at it."""

    store: EtcdStore
    endpoint: str
    program: Path

    def calico(self, *words: str) -> Any:
        command = [str(self.program), self.endpoint, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def write(self, *values: Stored) -> None:
        for value in values:
            self.store.create(codec.key_of(value), codec.encode(value))

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.store.list(prefix).entries]


@pytest.fixture
def both(tmp_path: Path, program: Path) -> Iterator[Both]:
    words = ("--unsafe-no-fsync",)
    server = EtcdServer(tmp_path, client_url=free_url(), peer_url=free_url(), words=words).start()
    server.wait_ready()
    store = EtcdStore(EtcdConfig(endpoints=(server.endpoint,)))
    yield Both(store, server.endpoint, program)
    store.close()
    server.kill()


def unknown(told: dict[str, Any]) -> set[str]:
    """Fields that Calico's types lack."""
    complaints = [text for kind in told.values() for text in kind["unknown"] or ()]
    found = (re.search(r'unknown field "(\w+)"', text) for text in complaints)
    return {each[1] for each in found if each is not None}


@pytest.mark.parametrize("release", RELEASES)
def test_calico_finds_in_the_fixtures_what_we_find(both: Both, release: str) -> None:
    fill(both.store, release)
    told = both.calico("list")
    for kind, prefix in KINDS.items():
        assert told[kind]["keys"] == sorted(both.keys(prefix)), kind
    claims = [key for key in both.keys(keys.AFFINITIES) if keys.parse_affinity_key(key)]
    assert told["BlockAffinity"]["keys"] == sorted(claims)
    assert unknown(told) <= LATER_OR_EARLIER


def test_calico_reads_what_we_write_and_allocates_beside_us(both: Both) -> None:
    ensure_cluster(both.store)
    cidr = ip_network("10.244.0.0/24")
    both.write(
        IPPool(metadata=Metadata(name="default"), cidr=cidr, block_size=28),
        Node(metadata=Metadata(name="ours"), address=ip_interface("10.0.0.1/24")),
        Node(metadata=Metadata(name="calicos"), address=ip_interface("10.0.0.2/24")),
    )
    ipam = IPAM(both.store, "ours", SystemClock(), SystemDice())

    def assign(name: str) -> str:
        owner = {"node": "ours", "namespace": "demo", "pod": name}
        return str(ipam.assign(AssignRequest(handle=f"net.{name}", attributes=owner)).address)

    ours = [assign(f"p{number}") for number in range(3)]
    told = both.calico("list")
    assert unknown(told) <= LATER_OR_EARLIER
    assert told["IPAMConfig"]["keys"] == ["strict=true auto=true"]
    assert both.calico("owner", ours[0]) == {
        "handle": "net.p0",
        "attributes": {"node": "ours", "namespace": "demo", "pod": "p0"},
    }
    # Another node of Calico's claims blocks of its own; on our node it goes on where we stopped.
    theirs = both.calico("assign", "calicos", "net.theirs", "20")
    here = both.calico("assign", "ours", "net.here", "2")
    assert not set(theirs) & set(ours)
    held = ipam.blocks()
    assert len(held) == 1
    block = ip_network(held[0])
    assert all(ip_interface(each).ip in block for each in here)
    assert both.calico("usage") == {"default": 25}
    assert both.calico("release", "net.p1")
    more = [assign(f"q{number}") for number in range(3)]
    assert len({*ours, *more, *here, *theirs}) == 28
    assert sorted(map(str, ipam.release_handle("net.here"))) == sorted(here)
    for name in ("p0", "p2", "q0", "q1", "q2"):
        assert both.calico("release", f"net.{name}")
    assert both.calico("release", "net.theirs")
    assert both.calico("usage") == {"default": 0}
    # Calico leaves a handle behind whose addresses lay in two blocks; ours are gone.
    assert set(both.keys(keys.HANDLES)) <= {keys.handle_key("net.theirs")}
