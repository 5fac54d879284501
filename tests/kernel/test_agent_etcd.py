"""Two agents on one etcd, which goes away and comes back."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from podwire.model import keys
from podwire.model.config import DatastoreConfig, EtcdConfig
from podwire.model.pool import Mode
from tests.fakes.etcd_server import EtcdServer
from tests.kernel.agent_cluster import PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.agent_cluster import Cluster


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    # A socket in the file system is seen from every network namespace.
    server = EtcdServer(tmp_path / "etcd").start()
    yield server.wait_ready()
    server.kill()


@pytest.fixture
def cluster(tmp_path: Path, server: EtcdServer) -> Iterator[Cluster]:
    etcd = EtcdConfig(endpoints=(server.endpoint,))
    with clusters(tmp_path) as make:
        yield make(Mode.ALWAYS, datastore=DatastoreConfig(type="etcd", etcd=etcd))


def allocated(cluster: Cluster) -> list[str]:
    """Handles that are there."""
    return [entry.key.rpartition("/")[2] for entry in cluster.store.list(keys.HANDLES).entries]


def test_pods_outlive_an_etcd_that_is_away(cluster: Cluster, server: EtcdServer) -> None:
    one, two = cluster.start()
    here, there = PodOnNode(one, "pod-1").add(), PodOnNode(two, "pod-2").add()
    going = PodOnNode(one, "pod-3").add()
    until("the way over", lambda: "1 received" in here.ping(there.address, "-c", "1"))
    pinging = subprocess.Popen(
        ["ip", "netns", "exec", here.name, "ping", "-i", "0.05", there.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    server.kill()
    until("both notice", lambda: all((n.status() or {}).get("reasons") for n in (one, two)))
    assert "etcd" in json.dumps(one.status())
    new = PodOnNode(one, "pod-4")
    run("ip", "netns", "add", new.name)
    refused = new.call("ADD")
    assert (refused["exit"], refused["code"]) == (1, 11), refused
    assert "does not answer" in json.dumps(refused)
    assert run("ip", "-n", new.name, "-o", "link").count("\n") == 1
    # The kernel is cleaned at once; etcd when it is back.
    assert going.call("DEL")["exit"] == 0
    assert going.address not in one.routes()
    server.start().wait_ready()
    until("both go on", lambda: all((n.status() or {}).get("ready") for n in (one, two)))
    until("the late DEL", lambda: not any("pod-3" in handle for handle in allocated(cluster)))
    assert new.call("ADD")["exit"] == 0
    pinging.send_signal(signal.SIGINT)
    shown, _ = pinging.communicate()
    assert " 0% packet loss" in shown, shown
    for pod in (here, there, new):
        assert pod.call("DEL")["exit"] == 0
    assert all("tunnel" in handle for handle in allocated(cluster))
