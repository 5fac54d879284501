"""Metrics: what is counted is exposed, what is exposed is documented, what is drawn exists."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from podwire.agent import exposition
from podwire.agent.collector import claimed, encoder
from podwire.agent.timedstore import TimedStore
from podwire.agent.timing import OTHER, Durations, Histogram, Histograms, TimedCalls
from podwire.drivers.store.single_object import SingleObjectStore
from podwire.errors import AlreadyExists, DatastoreUnavailable
from podwire.model.addressing import IPNetwork, contains
from podwire.model.cni import Answer, Call, Code
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.http_client import Samples, parse
from tests.fakes.ipam_world import HandClock

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs/reference/metrics.md"
DASHBOARD = ROOT / "contrib/grafana/podwire.json"
RULES = ROOT / "contrib/prometheus/podwire.rules.yaml"
OUTSIDE = re.compile(r"(?:process_[a-z_]+|up)")

# --- what is exposed ------------------------------------------------------------------------------


def none_yet(*labels: str) -> dict[tuple[str, ...], Durations]:
    return {labels: Histogram([1.0]).read()}


def exposed() -> list[Any]:
    """Every family an agent may expose, as the library sees it."""
    one = Histogram([1.0]).read()
    return list(
        chain(
            exposition.node_metrics(
                exposition.NodeFigures(
                    version="1",
                    node="n",
                    routing="agent",
                    datastore="etcd",
                    ready=True,
                    held=False,
                    concerns=0,
                    failing=0,
                    endpoints=1,
                    nodes=1,
                )
            ),
            exposition.cni_metrics(none_yet("ADD", "0"), 0),
            exposition.loop_metrics(one, one, 0),
            exposition.kernel_metrics(
                exposition.KernelFigures(
                    outcomes={("links", "written"): 2, ("routes", "repaired"): 1},
                    desired={"routes": 3},
                    pending={"routes": 0},
                    conflicts={"routes": 0},
                    unannounced=0,
                    retaken=0,
                    routes={"podwire": 3, "foreign": 0},
                )
            ),
            exposition.ipam_metrics(
                exposition.IPAMFigures(
                    blocks={"p": 1},
                    addresses={("p", "free"): 63},
                    sizes={"p": 256},
                    claimed={"p": 64},
                )
            ),
            exposition.datastore_metrics(
                exposition.DatastoreFigures(
                    up=True,
                    lag_s=0.5,
                    losses=0,
                    relists=0,
                    restores=0,
                    unreadable=0,
                    durations=none_yet("get", "ok"),
                )
            ),
            exposition.spool_metrics(0, 0.0),
            exposition.publish_metrics(0, 0, 0),
            exposition.firewall_metrics({"natOutgoing": 3, "spoofedSource": 2}, 1, 4),
            exposition.leak_metrics(
                exposition.LeakFigures(scans=1, suspected=0, released=0, handles=0, nodes=0)
            ),
            exposition.bgp_metrics(True, {"Established": 1}),
        )
    )


class Everything:
    """A collector of them."""

    def collect(self) -> list[Any]:
        return exposed()


def text_of() -> str:
    registry = CollectorRegistry()
    registry.register(Everything())
    return generate_latest(registry).decode()


def exposed_name(family: Any) -> str:
    """The name people write in a query, without what a histogram appends."""
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    return f"{family.name}{suffix}"


NAMES = {exposed_name(family) for family in exposed()}
SERIES = {name for name, _ in parse(text_of())}


def test_what_is_counted_is_read_by_the_library_itself() -> None:
    samples = parse(text_of())
    assert samples["podwire_node_ready", frozenset()] == 1
    labels = frozenset({("table", "routes")})
    assert samples["podwire_drift_repaired_total", labels] == 1
    assert samples["podwire_kernel_objects_written_total", labels] == 0
    spoofed = frozenset({("reason", "spoofedSource")})
    assert samples["podwire_firewall_dropped_packets_total", spoofed] == 2
    assert samples["podwire_nat_outgoing_connections_total", frozenset()] == 3
    states = frozenset({("ippool", "p"), ("state", "free")})
    assert samples["podwire_ipam_addresses", states] == 63


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/plain; version=x", "application/openmetrics-text; version=.", "\0;;=,"],
)
def test_no_accept_header_upsets_the_library(accept: str) -> None:
    encode, kind = encoder(accept)
    assert encode(Everything()).startswith(b"# HELP podwire_build")
    assert "version=" in kind


def test_names_and_help_follow_the_rules_of_the_field() -> None:
    for family in exposed():
        name = exposed_name(family)
        assert name.startswith("podwire_"), name
        assert family.documentation.endswith("."), name
        assert family.type != "histogram" or name.endswith("_seconds"), name
        # The unit stands in the name: base units, never milliseconds.
        assert not re.search(r"_(ms|millis|micros|kb|mb|percent)(_|$)", name), name


# --- documentation, dashboard, alerts -------------------------------------------------------------

ROW = re.compile(r"^\| `(podwire_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


def test_the_reference_has_every_metric_and_no_other() -> None:
    rows = {name: (kind, labels) for name, kind, labels in ROW.findall(REFERENCE.read_text())}
    assert rows.keys() == NAMES
    for family in exposed():
        kind, labels = rows[exposed_name(family)]
        assert kind == {"info": "gauge"}.get(family.type, family.type), family.name
        used = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(re.findall(r"`(\w+)`", labels)) == used, family.name


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def metrics_in(expression: str) -> set[str]:
    """Names of series in a query, found without its label matchers and ranges."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    bare = re.sub(r"\b(?:by|without)\s*\([^)]*\)", "", bare)
    bare = re.sub(r'"[^"]*"', "", bare)
    words = set(re.findall(r"[a-z][a-z0-9_]*(?!\w)(?!\s*\()", bare))
    return words - {"and", "or", "unless", "by", "on", "ignoring", "bool"}


def test_metrics_are_found_in_a_query() -> None:
    query = 'histogram_quantile(0.5, sum by (le, x) (rate(a_bucket{b="c d"}[5m]))) > 1 or vector(0)'
    assert metrics_in(query) == {"a_bucket"}
    assert metrics_in("max by (p) (a) / max by (p) (b) > 0.9 and c == 0") == {"a", "b", "c"}


def is_ours(name: str) -> bool:
    return name in SERIES or OUTSIDE.fullmatch(name) is not None


def test_every_query_of_the_dashboard_asks_for_what_there_is() -> None:
    for panel in panels():
        for target in panel["targets"]:
            named = metrics_in(target["expr"])
            assert named, target
            assert all(map(is_ours, named)), target["expr"]


def test_every_metric_is_drawn() -> None:
    drawn = set().union(*(metrics_in(t["expr"]) for panel in panels() for t in panel["targets"]))
    bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in drawn}
    assert NAMES - bare == {"podwire_node_info"}


def test_the_dashboard_can_be_imported() -> None:
    """What Grafana's importer asks of a file: an input for each source, ids, and places."""
    found = board()
    assert found["id"] is None
    (source,) = found["__inputs"]
    assert (source["type"], source["pluginId"]) == ("datasource", "prometheus")
    wanted = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"] == wanted
        assert panel["title"]
        assert panel["description"]
        assert all(target["datasource"] == wanted for target in panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
    for variable in found["templating"]["list"]:
        assert variable["datasource"] == wanted
        assert set(re.findall(r"podwire_\w+", variable["definition"])) <= SERIES


def test_every_alert_asks_for_what_there_is_and_says_what_to_do() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) > 5
    for rule in group["rules"]:
        assert metrics_in(rule["expr"]), rule["alert"]
        assert all(map(is_ours, metrics_in(rule["expr"]))), rule["expr"]
        assert {"summary", "description"} == rule["annotations"].keys()


# --- what is counted ------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_each_once(observed: list[float]) -> None:
    histogram = Histogram([0.1, 1.0, 10.0])
    for seconds in observed:
        histogram.observe(seconds)
    read = histogram.read()
    assert [bound for bound, _ in read.buckets] == ["0.1", "1.0", "10.0", "+Inf"]
    for bound, count in read.buckets:
        assert count == sum(seconds <= float(bound) for seconds in observed)
    assert read.sum_s == pytest.approx(sum(observed))
    family = exposition.histograms("x_seconds", "X.", ("a",), {("b",): read})
    registry = CollectorRegistry()
    registry.register(Only(family))
    samples: Samples = parse(generate_latest(registry).decode())
    assert samples["x_seconds_count", frozenset({("a", "b")})] == len(observed)


class Only:
    """A collector of one family."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def collect(self) -> list[Any]:
        return [self._family]


def nets(text: str, prefix: int) -> list[IPNetwork]:
    return list(ip_network(text).subnets(new_prefix=prefix))


POOLS = [
    IPPool(metadata=Metadata(name=name), cidr=ip_network(cidr))
    for name, cidr in (
        ("a", "10.0.0.0/24"),
        ("b", "10.0.1.0/25"),
        ("c", "10.9.0.0/24"),
        ("six", "fd00::/120"),
    )
]


@given(
    st.lists(st.sampled_from(POOLS), unique_by=id),
    st.sets(
        st.sampled_from(
            [*nets("10.0.0.0/22", 26), *nets("10.9.0.0/23", 26), *nets("fd00::/119", 122)]
        )
    ),
)
def test_claimed_addresses_are_counted_in_their_pool(
    pools: list[IPPool], blocks: set[IPNetwork]
) -> None:
    assert claimed(pools, blocks) == {
        pool.metadata.name: sum(
            block.num_addresses for block in blocks if contains(pool.cidr, block)
        )
        for pool in pools
    }


def test_known_labels_show_before_anything_happened() -> None:
    assert Histograms([1.0], [("ADD", "0")]).read().keys() == {("ADD", "0")}


class AnswersWith:
    """Calls that all end the same way, after a second."""

    def __init__(self, clock: HandClock, answer: Answer | None) -> None:
        self._clock = clock
        self._answer = answer
        self.in_flight: list[int] = []
        self.timed: TimedCalls

    def serve(self, call: Call, netns: int | None, *, gone: Any, confirm: Any) -> None:
        self.in_flight.append(self.timed.in_flight.value)
        self._clock.sleep(1)
        if self._answer is not None:
            assert confirm(self._answer)


def refused(code: int) -> Answer:
    return Answer(code=1, stdout=b'{"cniVersion":"1.0.0","code":%d,"msg":"no"}\n' % code)


@pytest.mark.parametrize(
    ("command", "answer", "labels"),
    [
        ("ADD", Answer(), ("ADD", "0")),
        ("ADD", refused(11), ("ADD", "11")),
        ("STATUS", refused(Code.NOT_AVAILABLE), ("STATUS", "50")),
        ("DEL", refused(4711), ("DEL", OTHER)),
        ("CHECK", None, ("CHECK", OTHER)),
        ("\0 a word of the caller's", Answer(), (OTHER, "0")),
    ],
)
def test_a_call_is_timed_by_verb_and_code(
    command: str, answer: Answer | None, labels: tuple[str, str]
) -> None:
    clock = HandClock()
    calls = AnswersWith(clock, answer)
    timed = calls.timed = TimedCalls(calls, clock)
    call = Call(environment={"CNI_COMMAND": command}, stdin=b"")
    timed.serve(call, None, gone=lambda: False, confirm=lambda _: True)
    counted = {key: read for key, read in timed.durations.read().items() if read.sum_s}
    assert counted.keys() == {labels}
    assert counted[labels].buckets[-1] == ("+Inf", 1)
    assert round(counted[labels].sum_s) == 1
    assert (calls.in_flight, timed.in_flight.value) == ([1], 0)


class Away(SingleObjectStore):
    """A datastore that has just gone."""

    def get(self, key: str) -> Any:
        raise DatastoreUnavailable("away")


def test_a_store_is_timed_by_what_became_of_a_call() -> None:
    clock = HandClock()
    store = TimedStore(SingleObjectStore(), clock)
    store.create("/a", {})
    heard_at = store.heard_at
    clock.sleep(5)
    with pytest.raises(AlreadyExists):
        store.create("/a", {})
    assert store.heard_at >= heard_at + 5  # a refusal is an answer
    assert store.get("/a") is not None
    away = TimedStore(Away(), clock)
    heard_at = away.heard_at
    clock.sleep(5)
    with pytest.raises(DatastoreUnavailable):
        away.get("/a")
    assert away.heard_at == heard_at
    assert store.durations.read().keys() == {
        ("create", "ok"),
        ("create", "conflict"),
        ("get", "ok"),
    }
    assert away.durations.read().keys() == {("get", "failed")}


def test_the_question_whether_writes_are_taken_is_timed_too() -> None:
    store = TimedStore(SingleObjectStore(), HandClock())
    store.check_writable()
    assert store.durations.read().keys() == {("check", "ok")}


def test_a_watch_that_tells_of_a_change_is_an_answer() -> None:
    clock = HandClock()
    store = TimedStore(SingleObjectStore(), clock)
    watch = store.watch("/", store.list("/").revision)
    assert ("watch", "ok") in store.durations.read()
    store.create("/a", {})
    clock.sleep(5)
    heard_at = store.heard_at
    assert watch.wait(0) != ()
    assert store.heard_at >= heard_at + 5
    watch.close()
