"""What users of containerd and Podman see of versions, demands and errors; that nothing stays."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from podwire.model import codec, keys
from podwire.model.pool import IPPool, IPReservation, Mode
from podwire.model.resource import Metadata
from tests.fakes.cri.client import pod_config
from tests.kernel.agent_cluster import clusters, until
from tests.kernel.runtime_host import (
    IMAGE,
    enabled,
    has_own_processes,
    hosts,
    processes,
    require,
    running,
    write_image,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.cri.client import CRI
    from tests.kernel.agent_cluster import Cluster
    from tests.kernel.runtime_host import RuntimeHost

pytestmark = pytest.mark.peer

FIXED = "10.244.7.9"
ACCEPTED = ("0.3.1", "0.4.0", "1.0.0")
"""Versions of Debian's containerd 1.6 and Podman 4.3; 1.1.0 came later."""
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "foreign": ({"ipam": {"type": "host-local"}}, ("host-local", "remove ipam")),
    "nopool": ({"ipam": {"ipv4_pools": ["none"]}}, ("'none'", "does not exist")),
    "full": ({"ipam": {"ipv4_pools": ["full"]}}, ("full", "is left for node node-1")),
    "badmtu": ({"mtu": 5}, ("mtu", "68 to 65535")),
    "away": ({"agentSocket": "/run/none.sock"}, ("/run/none.sock",)),
}
"""Network lists that no pod can be attached by, and what their users are told."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    require("crun/usr/bin/crun", "busybox-static/bin/busybox")
    before = enabled()
    with clusters(tmp_path / "c") as make:
        cluster = make(Mode.NEVER)
        only = ip_network("10.9.0.0/32")
        for value in (
            IPPool(metadata=Metadata(name="full"), cidr=only, block_size=32, automatic=False),
            IPReservation(metadata=Metadata(name="full"), reserved=(only,)),
        ):
            cluster.store.create(codec.key_of(value), codec.encode(value))
        yield cluster
    until("nothing is left running", lambda: not running(), lambda: str(running()))
    assert enabled() == before


@pytest.fixture
def host(cluster: Cluster) -> Iterator[RuntimeHost]:
    with ExitStack() as stack:
        (host,) = hosts(stack, (cluster.nodes[0].start(),))
        yield host


def left(cluster: Cluster) -> list[str]:
    """Endpoints and handles, which are there as long as an attachment is."""
    prefixes = (keys.ENDPOINTS, keys.HANDLES)
    return [entry.key for prefix in prefixes for entry in cluster.store.list(prefix).entries]


@contextmanager
def locked(cluster: Cluster) -> Iterator[None]:
    """Another program holds the datastore's file."""
    path = cluster.folder / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


# --- containerd -----------------------------------------------------------------------------------


def load(host: RuntimeHost, cri: CRI, name: str, **fields: Any) -> None:
    """Have containerd use this network list from now on; it watches the folder."""
    host.write_network("10-podwire", name=name, **fields)
    until(f"network {name}", lambda: f'"{name}"'.encode() in cri.network(), host.log)


def refusal(cri: CRI, name: str, annotations: dict[str, str] | None = None) -> str:
    """What the kubelet is told about a pod that cannot be made."""
    with pytest.raises(grpc.RpcError) as caught:
        cri.run_pod(pod_config(name, annotations))
    told: Any = caught.value
    return str(told.details())


def annotation(name: str, value: object) -> dict[str, str]:
    told = value if isinstance(value, str) else json.dumps(value)
    return {f"cni.projectcalico.org/{name}": told, "other": "annotation"}


def test_pods_of_containerd(cluster: Cluster, host: RuntimeHost, tmp_path: Path) -> None:
    require("containerd/usr/bin/containerd")
    cri = host.start_containerd(write_image(tmp_path / "box.tar"))
    assert "containerd" in running() or not has_own_processes()
    for version in ACCEPTED:
        load(host, cri, f"net-{version}", cniVersion=version)
        asked = annotation("ipAddrs", [FIXED]) | annotation("hwAddr", "02:00:00:00:00:09")
        pod = cri.run_pod(pod_config("web-0", asked))
        assert cri.address(pod) == FIXED
        (entry,) = cluster.store.list(keys.ENDPOINTS).entries
        endpoint = codec.decode_endpoint(entry.key, entry.value)
        assert (endpoint.title, endpoint.mac) == ("demo/web-0", "02:00:00:00:00:09")
        refused = refusal(cri, "web-1", asked)
        assert f"{FIXED} is in use by demo/web-0 on node node-1" in refused
        cri.remove_pod(pod)
        assert left(cluster) == []
    bad = refusal(cri, "web-2", annotation("ipAddrs", FIXED))
    assert "pod demo/web-2: annotation cni.projectcalico.org/ipAddrs is not JSON" in bad
    for name, (fields, words) in WRONG.items():
        load(host, cri, name, **fields)
        told = refusal(cri, f"pod-{name}")
        assert all(word in told for word in words), told
        assert left(cluster) == []
    # A version newer than the library: it attaches, does not understand the result, and detaches.
    load(host, cri, "net-new", cniVersion="1.1.0")
    assert "1.1.0" in refusal(cri, "web-3")
    until("nothing is left", lambda: left(cluster) == [], lambda: str(left(cluster)))


def test_ctr_is_told(cluster: Cluster, host: RuntimeHost, tmp_path: Path) -> None:
    require("containerd/usr/bin/containerd")
    if not has_own_processes():
        pytest.skip("needs a PID namespace: after a failed ADD ctr leaves its container waiting")
    host.start_containerd(write_image(tmp_path / "box.tar"))
    fields, words = WRONG["foreign"]
    host.write_network("10-podwire", **fields)
    ctr = ("ctr", "--address", str(host.socket), "-n", "k8s.io", "run", "--cni", "--rm")
    how = ("--snapshotter", "native", "--runc-binary", str(host.crun))
    done = host.attempt(*ctr, *how, IMAGE, "box", "/bin/sleep", "1000")
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert left(cluster) == []
    for number, name in processes().items():
        if name in {"crun", "containerd-shim"}:
            os.kill(number, signal.SIGKILL)


@pytest.mark.long  # waits until the agent's patience with the lock is over
def test_a_datastore_that_is_locked_under_containerd(
    cluster: Cluster, host: RuntimeHost, tmp_path: Path
) -> None:
    require("containerd/usr/bin/containerd")
    cri = host.start_containerd(write_image(tmp_path / "box.tar"))
    with locked(cluster):
        assert "is locked" in refusal(cri, "web-0")
    until("the spool is drained", lambda: left(cluster) == [], lambda: str(left(cluster)))
    pod = cri.run_pod(pod_config("web-0"))
    cri.remove_pod(pod)
    assert left(cluster) == []


# --- Podman ---------------------------------------------------------------------------------------


def test_containers_of_podman(cluster: Cluster, host: RuntimeHost, tmp_path: Path) -> None:
    require("podman/usr/bin/podman", "conmon/usr/bin/conmon")
    host.require_cni_backend()
    host.podman("load", "-i", str(write_image(tmp_path / "box.tar")))
    once = ("run", "--rm", "--hostname", "box", "--network")
    look = (IMAGE, "/bin/ip", "addr", "show", "eth0")
    for version in ACCEPTED:
        host.write_network(f"net-{version}", name=f"net-{version}", cniVersion=version)
        done = host.attempt_podman(
            *once, f"net-{version}:mac=02:00:00:00:00:09", *look, more={"CNI_ARGS": f"IP={FIXED}"}
        )
        assert done.returncode == 0, done.stderr
        assert f"inet {FIXED}/32" in done.stdout
        assert "02:00:00:00:00:09" in done.stdout
        assert left(cluster) == []
    for name, (fields, words) in WRONG.items():
        host.write_network(name, name=name, **fields)
        refused = host.attempt_podman(*once, name, *look)
        assert refused.returncode != 0
        assert all(word in refused.stderr for word in words), refused.stderr
        assert left(cluster) == []
