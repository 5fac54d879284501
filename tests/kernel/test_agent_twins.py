"""Two agents with one node's name on one datastore: the second stands back and touches nothing."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from podwire.model import keys
from podwire.model.config import DatastoreConfig, EtcdConfig
from podwire.model.pool import Mode
from tests.fakes.etcd_server import EtcdServer
from tests.kernel.agent_cluster import AgentNode, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.boundary import Entry
    from tests.kernel.agent_cluster import Cluster


@dataclass
class Twin(AgentNode):
    """The second node, started with the first one's name."""

    @property
    def name(self) -> str:
        return "node-1"

    def why(self) -> str:
        return json.dumps((self.status() or {}).get("reasons", []))


@pytest.fixture
def on_etcd(tmp_path: Path) -> Iterator[Cluster]:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    etcd = EtcdConfig(endpoints=(server.endpoint,))
    with clusters(tmp_path) as make:
        yield make(Mode.NEVER, datastore=DatastoreConfig(type="etcd", etcd=etcd))
    server.kill()


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Cluster]:
    with clusters(tmp_path) as make:
        yield make(Mode.NEVER)


def stored(cluster: Cluster) -> dict[str, str]:
    """Everything but reports, with its revisions."""
    entries = cluster.store.list("/").entries
    return {each.key: each.revision for each in entries if not each.key.startswith(keys.FELIX)}


def own_report(entry: Entry | None) -> dict[str, Any]:
    """What only our agents say."""
    return {} if entry is None else entry.value.get("podwire", {})


@pytest.mark.parametrize("datastore", ["on_file", "on_etcd"])
def test_a_twin_stands_back_until_the_other_has_gone(
    datastore: str, request: pytest.FixtureRequest
) -> None:
    cluster: Cluster = request.getfixturevalue(datastore)
    one = cluster.nodes[0].start()
    pod = PodOnNode(one, "live").add()
    handles = cluster.store.list(keys.HANDLES).entries
    before = stored(cluster)
    twin = Twin(2, one.folder, one.datastore)
    twin.begin()
    why = "another agent serves Node node-1: 10.0.0.1 (boot "
    until("the twin stands back and says why", lambda: why in twin.why(), twin.log)
    run("ip", "netns", "add", "late")
    for command, code in (("ADD", 11), ("STATUS", 50)):
        refused = PodOnNode(twin, "late").call(command, version="1.1.0")
        assert (refused["exit"], refused["code"]) == (1, code), refused
        assert "another agent serves" in json.dumps(refused)
    assert stored(cluster) == before
    assert "taken back" not in twin.log()
    one.end(signal.SIGKILL)
    if datastore == "on_etcd":
        # The same agent again has to wait for nobody; at one file the twin may be quicker.
        one.start()
        assert stored(cluster) == before
        one.end()
    until("the twin goes on", lambda: (twin.status() or {}).get("ready"), twin.log)
    # What it does not find may live on the other machine: not taken back at once.
    assert "half-made endpoints kept" in twin.log()
    assert cluster.store.get(handles[0].key) is not None
    assert [e for e in cluster.store.list(keys.ENDPOINTS).entries if "live" in e.key]
    twin.end()
    # The first one's pod was told of nothing.
    assert pod.address in one.ip("route", "show", "table", "all")


def test_who_finds_another_in_its_place_stands_back(on_etcd: Cluster) -> None:
    store, one = on_etcd.store, on_etcd.nodes[0].start()
    pod = PodOnNode(one, "live").add()
    report, own = keys.node_status_key(one.name), keys.node_key(one.name)
    until(
        "it reports that it is ready", lambda: own_report(store.get(report)).get("ready"), one.log
    )
    entry = store.get(report)
    assert entry is not None
    assert own_report(entry)["address"] == "10.0.0.1"
    other = {**entry.value["podwire"], "boot": "another", "machine": "another"}
    store.update(report, {**entry.value, "podwire": other}, entry.revision)
    node = store.get(own)
    assert node is not None
    elsewhere = json.loads(json.dumps(node.value).replace("10.0.0.1/24", "10.0.0.9/24"))
    taken = store.update(own, elsewhere, node.revision)
    until("it stands back", lambda: "another agent" in json.dumps(one.status()), one.log)
    run("ip", "netns", "add", "late")
    assert PodOnNode(one, "late").call("ADD")["code"] == 11
    assert store.get(own) == taken
    assert pod.address in one.ip("route", "show", "proto", "80")
    store.delete(report)
    until("it goes on", lambda: (one.status() or {}).get("ready"), one.log)
    until("its address is back", lambda: store.get(own) != taken, one.log)
