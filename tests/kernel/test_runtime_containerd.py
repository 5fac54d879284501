"""containerd, as `ctr` and as a kubelet drive it, with the plugin on two hosts."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeAlias

import pytest

from podwire.model import keys
from podwire.model.config import DatastoreConfig, EtcdConfig
from podwire.model.pool import Mode
from tests.fakes.cri.client import pod_config
from tests.fakes.etcd_server import EtcdServer
from tests.kernel.agent_cluster import clusters, until
from tests.kernel.runtime_host import IMAGE, enabled, hosts, require, running, write_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.cri.client import CRI
    from tests.kernel.agent_cluster import Cluster
    from tests.kernel.runtime_host import RuntimeHost

pytestmark = pytest.mark.peer

Start: TypeAlias = "Callable[..., list[tuple[RuntimeHost, CRI]]]"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    require(
        "containerd/usr/bin/containerd",
        "crun/usr/bin/crun",
        "busybox-static/bin/busybox",
        "containernetworking-plugins/usr/lib/cni/portmap",
    )
    before = enabled()
    # Many hosts share an etcd; a socket in the file system is seen from each of them.
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    etcd = EtcdConfig(endpoints=(server.endpoint,))
    with clusters(tmp_path / "c") as make:
        yield make(Mode.ALWAYS, datastore=DatastoreConfig(type="etcd", etcd=etcd))
    server.kill()
    until("nothing is left running", lambda: not running(), lambda: str(running()))
    assert enabled() == before


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Start]:
    image = write_image(tmp_path / "box.tar")
    with ExitStack() as stack:

        def begin(*chained: dict[str, object]) -> list[tuple[RuntimeHost, CRI]]:
            nodes = hosts(stack, cluster.start(), chained=chained)
            return [(host, host.start_containerd(image)) for host in nodes]

        yield begin


def test_pods_of_two_hosts_talk_as_the_kubelet_makes_them(cluster: Cluster, start: Start) -> None:
    started = start()
    pods = {}
    for number, (host, cri) in enumerate(started):
        config = pod_config(f"web-{number}")
        pod = cri.run_pod(config)
        container = cri.start_container(
            pod,
            config,
            IMAGE,
            "/bin/sh",
            "-c",
            f"echo hello from {number} > /hello; httpd -p 80 -h / ; sleep 1000",
        )
        pods[number] = (cri, pod, container, cri.address(pod))
        assert pods[number][3] in host.node.routes()
    stored = {
        entry.value["metadata"]["name"] for entry in cluster.store.list(keys.ENDPOINTS).entries
    }
    assert stored == {"node--1-k8s-web--0-eth0", "node--2-k8s-web--1-eth0"}
    for number, (cri, _, container, _) in pods.items():
        address = pods[1 - number][3]
        assert " 0% packet loss" in cri.run(container, "ping", "-c", "2", "-i", "0.2", address)
        assert cri.run(container, "wget", "-qO-", f"http://{address}/hello") == (
            f"hello from {1 - number}\n"
        )
    for cri, pod, _, _ in pods.values():
        cri.remove_pod(pod)
    assert not cluster.store.list(keys.ENDPOINTS).entries
    for host, _ in started:
        assert not [name for name in host.node.routes() if "/" not in name]


def test_a_new_sandbox_outlives_the_late_end_of_the_old_one(start: Start) -> None:
    """The kubelet makes the second before it has ended the first."""
    (host, cri), _ = start()
    config = pod_config("web-0")
    old = cri.run_pod(config)
    again = pod_config("web-0")
    again.metadata.attempt = 1
    new = cri.run_pod(again)
    address = cri.address(new)
    assert address != cri.address(old)
    container = cri.start_container(new, again, IMAGE, "/bin/sleep", "1000")
    cri.remove_pod(old)
    assert address in host.node.routes()
    shown = cri.run(container, "ping", "-c", "1", "10.0.0.1")
    assert " 0% packet loss" in shown
    cri.remove_pod(new)


def test_a_published_port_leads_to_the_pod(start: Start) -> None:
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    (here, cri), (there, _) = start(portmap)
    if not (here.memory / "iptables" / "iptables").exists():
        pytest.skip("the plugin portmap needs iptables: run scripts/setup test")
    config = pod_config("web-0")
    config.port_mappings.add(container_port=80, host_port=8080)
    pod = cri.run_pod(config)
    cri.start_container(
        pod, config, IMAGE, "/bin/sh", "-c", "echo hello > /hello; httpd -f -p 80 -h /"
    )
    ask = (
        "from urllib.request import urlopen\n"
        "print(urlopen('http://10.0.0.1:8080/hello', timeout=2).read().decode(), end='')"
    )

    def answered() -> bool:
        done = subprocess.run(
            there.command(sys.executable, "-c", ask), capture_output=True, check=False
        )
        return done.stdout == b"hello\n"

    until("the published port", answered, here.log)
    cri.remove_pod(pod)
    assert not answered()


def test_ctr_runs_a_container_with_the_plugin(cluster: Cluster, start: Start) -> None:
    (host, _), _ = start()
    host.ctr(
        "-n",
        "k8s.io",
        "run",
        "--cni",
        "--rm",
        "--snapshotter",
        "native",
        "--runc-binary",
        str(host.crun),
        IMAGE,
        "box",
        "/bin/sh",
        "-c",
        "ping -c 1 10.0.0.1 > /dev/null",
    )
    assert not cluster.store.list(keys.ENDPOINTS).entries
