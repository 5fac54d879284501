"""The cluster's nodes as people see them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from podwire.cli.node_view import age, duration
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.ipam.request import AssignRequest
from podwire.ipam.service import IPAM
from podwire.model import keys
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node, Routing
from podwire.model.nodestatus import parse_status
from podwire.model.resource import Metadata
from tests.fakes.command_line import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.command_line import CommandLine

POOL = """
{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: pods},
 spec: {cidr: 10.244.0.0/16}}
"""
NOW = datetime(2026, 8, 22, 13, tzinfo=UTC)


def fill(podwire: CommandLine, routing: Routing) -> None:
    ensure_cluster(podwire.store, routing=routing)
    podwire.done("apply", "-f", "-", text=POOL)
    for number in (1, 2):
        metadata = Metadata(name=f"n{number}", created="2026-08-22T13:00:00Z", labels={"rack": "7"})
        podwire.put(Node(metadata=metadata, address=ip_interface(f"192.168.26.{number}/24")))
    podwire.put(Node(metadata=Metadata(name="n3"), vxlan_tunnel=ip_address("10.244.9.9")))
    ipam = IPAM(podwire.store, "n1", SystemClock(), SystemDice(), node_labels={})
    attributes = {"node": "n1", "namespace": "demo", "pod": "web"}
    taken = ipam.assign(AssignRequest(handle="net.c1", attributes=attributes))
    podwire.put(
        WorkloadEndpoint(
            metadata=Metadata(name="n1-k8s-web-eth0", namespace="demo"),
            orchestrator="k8s",
            node="n1",
            container_id="c1",
            pod="web",
            endpoint="eth0",
            interface="cali1",
            mac="02:00:00:00:00:01",
            addresses=(ip_interface(f"{taken.address}/32"),),
        )
    )


def report(
    podwire: CommandLine, node: str, *, old_s: float = 0, alive: bool = True, **own: object
) -> None:
    """What the agent writes: a report that vanishes, and one that stays; `own` is ours alone."""
    time = (datetime.now(UTC) - timedelta(seconds=old_s)).isoformat()
    value = {
        "time": time,
        "uptime": 5.5,
        "first_update": False,
        **({"podwire": own} if own else {}),
    }
    podwire.store.create(keys.last_status_key(node), value)
    if alive:
        podwire.store.create(keys.node_status_key(node), value)


@pytest.fixture
def podwire(tmp_path: Path) -> Iterator[CommandLine]:
    with command_line(tmp_path / "datastore.db") as line:
        fill(line, Routing.AGENT)
        yield line


def test_nodes_are_listed_with_what_they_hold(podwire: CommandLine) -> None:
    header, one, two, three = podwire.done("node", "list").rows
    assert " ".join(header) == "NAME ADDRESS READY ROUTING AS BLOCKS PODS IN USE AGE"
    assert one[:8] == ["n1", "192.168.26.1/24", "<unknown>", "agent", "64512", "1", "1", "1/64"]
    assert two[5:8] == ["0", "0", "0/0"]
    assert three[1] == "<none>"
    assert three[-1] == "<unknown>"
    wide = podwire.done("node", "list", "-o", "wide").out.splitlines()
    assert wide[0].endswith("LABELS")
    assert wide[1].endswith("rack=7")
    listed = json.loads(podwire.done("node", "list", "-o", "json").out)
    assert [each["name"] for each in listed] == ["n1", "n2", "n3"]
    assert listed[0]["blocks"][0]["inUse"] == 1
    assert listed[0]["ready"] is None


def test_ready_is_who_reported_not_long_ago(podwire: CommandLine) -> None:
    report(podwire, "n1")
    report(podwire, "n2", old_s=300)
    report(podwire, "n3", alive=False)
    rows = podwire.done("node", "list").rows[1:]
    assert [row[2] for row in rows] == ["true", "false", "false"]
    wide = podwire.done("node", "list", "-o", "wide").out
    assert "5m ago" in wide


def test_ready_is_what_our_agents_report(podwire: CommandLine) -> None:
    why = "create ipip tunl0: No such device"
    report(podwire, "n1", ready=False, reasons=[why])
    report(podwire, "n2", ready=True, reasons=[])
    report(podwire, "n3", old_s=300, ready=False, reasons=["long ago"])
    rows = podwire.done("node", "list").rows[1:]
    assert [row[2] for row in rows] == ["false", "true", "false"]
    said = podwire("node", "show", "n1")
    assert said.code == 1
    assert f"its agent is not ready: {why}" in said.out.partition("Amiss:")[2]
    assert "does not report" not in said.out
    assert "long ago" not in podwire("node", "show", "n3").out
    listed = json.loads(podwire.done("node", "list", "-o", "json").out)
    assert [(each["ready"], each["reasons"]) for each in listed] == [
        (False, [why]), (True, []), (False, []),
    ]  # fmt: skip


def test_where_nobody_can_report_that_is_not_amiss(podwire: CommandLine) -> None:
    assert "Nothing is amiss." in podwire.done("node", "show", "n1").out


def test_one_node_is_shown_with_all_of_it(podwire: CommandLine) -> None:
    report(podwire, "n1")
    done = podwire.done("node", "show", "n1").out
    for part in ("READY:        true", "/26   1/64     confirmed", "demo/web", "cali1",
                 "the agents write the routes", "Nothing is amiss."):  # fmt: skip
        assert part in done
    shown = json.loads(podwire.done("node", "show", "n1", "-o", "json").out)
    assert shown["pods"][0]["name"] == "web"
    assert shown["amiss"] == []


def test_what_is_amiss_is_said(podwire: CommandLine) -> None:
    report(podwire, "n2", old_s=300)
    podwire.put(
        Node(metadata=Metadata(name="n4"), address=ip_interface("192.168.26.2/24"))
    )  # written past the command line
    said = podwire("node", "show", "n2")
    assert said.code == 1
    assert "its agent does not report: the last time was 5m ago" in said.out
    assert "n4" in said.out.partition("Amiss:")[2]
    said = podwire("node", "show", "n3")
    assert "it has no address" in said.out
    assert "its agent has never reported" in said.out
    said = podwire("node", "show", "n11")
    assert (said.code, "did you mean n1?" in said.err) == (1, True)
    entry = podwire.store.get(podwire.store.list(keys.AFFINITIES).entries[0].key)
    assert entry is not None
    podwire.store.update(entry.key, {"state": "pending"}, entry.revision)
    assert "is pending: it is not routed" in podwire("node", "show", "n1").out


def test_sessions_that_select_the_node_are_shown(tmp_path: Path) -> None:
    with command_line(tmp_path / "other.db") as podwire:
        fill(podwire, Routing.BIRD)
        podwire.done(
            *("apply", "-f", "-"),
            text="{kind: BGPPeer, apiVersion: projectcalico.org/v3, metadata: {name: tor},"
            " spec: {peerIP: 192.168.26.254, asNumber: 64600, nodeSelector: rack == '7'}}",
        )
        report(podwire, "n1")
        rows = podwire.done("node", "show", "n1").rows
        assert ["192.168.26.2", "64512", "node-to-node", "mesh", "n2"] in rows
        assert any(row[:2] == ["192.168.26.254", "64600"] and row[-1] == "tor" for row in rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (90000, "1d"), (-5, "0s")],
)
def test_a_time_is_written_in_its_largest_unit(seconds: int, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text
    made = (NOW - timedelta(seconds=seconds)).isoformat()
    assert age(made, NOW) == text


def test_what_is_no_time_is_unknown() -> None:
    assert [age(text, NOW) for text in (None, "soon", "2026-08-22T13:00:00")] == ["<unknown>"] * 3
    assert parse_status({"time": "soon"}) is None
    assert parse_status([]) is None
    status = parse_status({"time": "2026-08-22T13:00:00Z", "uptime": 3})
    assert status is not None
    assert (status.time, status.uptime_s) == (NOW, 3.0)
