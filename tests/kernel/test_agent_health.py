"""Health and metrics of real agents."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers import namespaces
from podwire.model import codec
from podwire.model.config import DatastoreConfig, EtcdConfig
from podwire.model.pool import Mode
from tests.fakes.etcd_server import EtcdServer
from tests.fakes.http_client import get, scrape
from tests.kernel.agent_cluster import Make, PodOnNode, clusters, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.http_client import Got
    from tests.kernel.agent_cluster import AgentNode

DURATION = "podwire_cni_request_duration_seconds"
PORT = 9091


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def calls(node: AgentNode, verb: str, code: str = "0") -> float:
    return scrape(node.health).value(f"{DURATION}_count", verb=verb, code=code)


def readyz(node: AgentNode) -> int:
    """The status; what else speaks of readiness says the same, as long as nothing changes."""

    def look() -> tuple[Got, dict[str, Any], float] | None:
        page, told = get(node.health, "/readyz"), node.ask("status")
        metric = scrape(node.health).value("podwire_node_ready")
        return (page, told, metric) if get(node.health, "/readyz") == page else None

    page, told, metric = until("two looks that agree", look)
    assert told["ready"] == (page.status == 200), (page, told)
    assert bool(told["reasons"]) == (page.status != 200)
    assert all(reason in page.text for reason in told["reasons"])
    assert metric == told["ready"]
    return int(page.status)


def test_what_happens_on_a_node_is_counted(make_cluster: Make) -> None:
    one, _ = make_cluster(Mode.ALWAYS).start()
    assert readyz(one) == 200
    assert get(one.health, "/livez?verbose").text.endswith("livez check passed\n")
    pod, gone = PodOnNode(one, "pod-1").add(), PodOnNode(one, "pod-2").add()
    assert gone.call("DEL")["exit"] == 0
    one.settled()

    found = scrape(one.health)
    for verb, count in (("ADD", 2), ("DEL", 1)):
        assert found.value(f"{DURATION}_count", verb=verb, code="0") == count
        assert found.value(f"{DURATION}_bucket", verb=verb, code="0", le="+Inf") == count
        assert found.value(f"{DURATION}_sum", verb=verb, code="0") > 0
    assert found.value("podwire_endpoints") == 1
    assert found.value("podwire_cluster_nodes") == 2
    until(
        "the routes are counted",
        lambda: scrape(one.health).value("podwire_routes", owner="podwire") == len(one.routes()),
    )
    assert found.value("podwire_kernel_entries_desired", table="routes") == len(one.routes())
    assert found.value("podwire_ipam_blocks", ippool="default") == 1
    states = {
        state: found.value("podwire_ipam_addresses", ippool="default", state=state)
        for state in ("in_use", "free", "resting", "reserved")
    }
    assert sum(states.values()) == 64
    assert states["in_use"] == 2  # the pod's and the tunnel's
    assert found.value("podwire_ipam_ippool_size", ippool="default") == 1 << 16
    assert found.value("podwire_ipam_ippool_claimed", ippool="default") == 128
    assert found.value("podwire_datastore_up") == 1
    info = {"node": "node-1", "routing": "agent", "datastore": "sqlite"}
    assert found.value("podwire_node_info", **info) == 1
    assert found.value("process_resident_memory_bytes") > 1 << 20

    assert found.value("podwire_drift_repaired_total", table="routes") == 0
    one.ip("route", "del", pod.address)
    until("the route is back", lambda: pod.address in one.routes())
    assert scrape(one.health).value("podwire_drift_repaired_total", table="routes") == 1
    assert one.settled()["counters"]["repaired"] == 1

    one.ip("route", "add", "10.244.77.0/24", "dev", "ens32", "proto", "static")
    until(
        "a foreign route is seen",
        lambda: scrape(one.health).value("podwire_routes", owner="foreign") == 1,
    )


def test_status_and_the_pages_never_contradict_each_other(make_cluster: Make) -> None:
    cluster = make_cluster()
    node = cluster.nodes[0].start()
    pod = PodOnNode(node, "pod-1")

    def disable(disabled: bool) -> None:
        key = codec.key_of(cluster.pool)
        entry = cluster.store.get(key)
        assert entry is not None
        pool = replace(codec.decode_pool(key, entry.value), disabled=disabled)
        cluster.store.update(key, codec.encode(pool), entry.revision)

    def status() -> int:
        told = pod.call("STATUS", "1.1.0")
        return int(told.get("code", told["exit"]))

    assert (status(), readyz(node)) == (0, 200)
    disable(True)
    until("STATUS finds no pool", lambda: status() == 50)
    assert readyz(node) == 503
    assert "[-]add failed: " in get(node.health, "/readyz").text
    disable(False)
    until("STATUS finds one", lambda: status() == 0)
    assert readyz(node) == 200
    assert calls(node, "STATUS", "50") > 0

    node.ask("hold")
    assert (status(), readyz(node)) == (50, 503)
    node.ask("release")
    until("ready again", lambda: readyz(node) == 200)
    assert status() == 0


def test_a_held_agent_is_not_ready_and_says_so(make_cluster: Make) -> None:
    one, _ = make_cluster().start()
    one.ask("hold")
    assert readyz(one) == 503
    assert "[-]hold failed" in get(one.health, "/readyz").text
    assert get(one.health, "/livez").text == "ok"
    assert scrape(one.health).value("podwire_hold_active") == 1
    run("ip", "netns", "add", "pod-1")
    pod = PodOnNode(one, "pod-1")
    assert pod.call("ADD")["code"] == 11
    assert calls(one, "ADD", "11") == 1
    assert pod.call("DEL")["exit"] == 0
    assert scrape(one.health).value("podwire_spool_length") == 1
    one.ask("release")
    until("ready again", lambda: readyz(one) == 200)

    # A killed agent leaves its socket behind.
    one.end(signal.SIGKILL)
    assert Path(one.health).exists()
    one.start()
    assert readyz(one) == 200
    mode = os.stat(one.health).st_mode  # noqa: PTH116
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
    one.end()
    assert not Path(one.health).exists()


def test_a_datastore_that_is_away_shows_and_so_does_its_return(
    make_cluster: Make, tmp_path: Path
) -> None:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    etcd = EtcdConfig(endpoints=(server.endpoint,))
    cluster = make_cluster(datastore=DatastoreConfig(type="etcd", etcd=etcd))
    node = cluster.nodes[0].start()
    try:
        pod = PodOnNode(node, "pod-1").add()
        assert scrape(node.health).value("podwire_datastore_up") == 1
        server.kill()
        until("it is noticed", lambda: get(node.health, "/readyz").status == 503)
        told = get(node.health, "/readyz").text
        assert "[-]node failed: the datastore is away: datastore etcd" in told
        assert readyz(node) == 503
        # The agent lives: to start it anew would not help.
        assert get(node.health, "/livez").text == "ok"
        assert pod.call("DEL")["exit"] == 0
        found = scrape(node.health)
        assert found.value("podwire_datastore_up") == 0
        assert found.value("podwire_datastore_watch_losses_total") > 0
        assert found.value("podwire_spool_length") == 1
        lag = found.value("podwire_datastore_lag_seconds")
        until(
            "the lag grows",
            lambda: scrape(node.health).value("podwire_datastore_lag_seconds") > lag > 0,
        )
        server.start().wait_ready()
        until("it is back", lambda: readyz(node) == 200)
        until("the DEL is done", lambda: scrape(node.health).value("podwire_spool_length") == 0)
        found = scrape(node.health)
        assert found.value("podwire_datastore_up") == 1
        name = "podwire_datastore_request_duration_seconds_count"
        assert found.value(name, operation="watch", outcome="failed") > 0
    finally:
        server.kill()


def test_a_port_that_is_taken_stops_no_pod(make_cluster: Make) -> None:
    cluster = make_cluster()
    node = cluster.nodes[0]
    node.settings["healthAddress"] = f"127.0.0.1:{PORT}"
    here = namespaces.open_namespace(namespaces.named_path(node.netns))
    place = ("127.0.0.1", PORT)
    busy = namespaces.call_in(here, socket.create_server, place)
    try:
        node.start()
        told = json.dumps(node.ask("status")["concerns"])
        assert f"healthAddress 127.0.0.1:{PORT}: Address already in use" in told
        PodOnNode(node, "pod-1").add()
        busy.close()
        until("the port is had", lambda: node.ask("status")["concerns"] == [])
        assert namespaces.call_in(here, get, place, "/readyz").text == "ok"
    finally:
        busy.close()
        os.close(here)
