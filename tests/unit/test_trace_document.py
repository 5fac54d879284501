"""The JSON document: its fields are a contract with other programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podwire.trace.document import document
from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from tests.fakes.drawn_network import Network, story


def written(network: Network, destination: str = "demo/db-0") -> dict[str, Any]:
    trace = predict(network.states(), "demo/web-0", destination, Flow())
    text = json.dumps(document(trace))
    found = json.loads(text, parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert isinstance(found, dict)
    return found


def test_the_shape_of_a_healthy_trace() -> None:
    found = written(story())
    assert found["schema"] == "podwire.trace/v1"
    assert found["flow"]["src"] == {
        "kind": "pod", "namespace": "demo", "pod": "web-0", "node": "vms103",
        "netns": "demo/web-0", "interface": "eth0", "ip": "10.244.38.174",
    }  # fmt: skip
    assert {"protocol", "sport", "dport", "size", "df"} <= found["flow"].keys()
    assert found["result"]["disposition"] == "DELIVERED_AND_ANSWERED"
    assert {"disposition", "summary", "confidence"} <= found["result"].keys()
    assert found["faults"] == []
    assert [each["direction"] for each in found["traces"]] == ["forward", "return"]
    hop = found["traces"][0]["hops"][1]
    assert {
        "node", "netns", "interface", "side", "position", "result", "predicted", "observed"
    } <= hop.keys()  # fmt: skip
    assert (hop["node"], hop["interface"], hop["side"], hop["position"]) == (
        "vms103", "caliweb-0", "in", "P2",
    )  # fmt: skip
    assert hop["result"] is None
    assert hop["observed"] is None
    assert found["coverage"]["missing"] == []


def test_a_routing_step_tells_the_table_entry() -> None:
    hop = written(story())["traces"][0]["hops"][1]
    step = next(each for each in hop["predicted"]["steps"] if each["component"] == "Routing")
    assert step["action"] == "FORWARDED"
    assert step["detail"]["matched"] == "10.244.169.64/26"
    assert step["detail"]["table"] == 254
    assert step["detail"]["nexthop"] == "10.244.169.64"
    assert step["detail"]["dev"] == "vxlan.calico"


def test_the_question_for_the_gateway_is_there() -> None:
    asked = written(story())["arp"][0]
    assert (asked["target"], asked["replier"], asked["kind"]) == ("169.254.1.1", "vms103", "proxy")
    assert asked["observed"] is None


def test_a_fault_has_place_sentence_evidence_and_fix() -> None:
    network = story()
    network["vms105"].unroute("10.244.169.66/32")
    found = written(network)
    assert found["result"]["disposition"] == "NULL_ROUTED"
    fault = found["faults"][0]
    assert fault["where"] == {
        "node": "vms105", "netns": "vms105", "interface": "vxlan.calico",
    }  # fmt: skip
    assert fault["number"] == 45
    assert fault["evidence"]
    assert fault["fix"]["command"] == "ip route replace 10.244.169.66/32 dev calidb-0 scope link"
    assert fault["fix"]["verifiedBy"] is None
    last = found["traces"][0]["hops"][-1]["predicted"]["steps"][-1]
    assert last["action"] == "DROPPED"


def test_the_outer_header_holds_the_inner_one() -> None:
    hops = written(story())["traces"][0]["hops"]
    outer = next(hop for hop in hops if hop["position"] == "P4")["predicted"]["packet"]
    assert (outer["src"], outer["dst"], outer["dport"]) == (
        "192.168.26.103",
        "192.168.26.105",
        4789,
    )
    assert (outer["vni"], outer["length"]) == (4096, 134)
    assert outer["inner"]["dst"] == "10.244.169.66"


def test_what_is_missing_is_listed() -> None:
    network = story()
    del network.drawn["underlay"]
    found = written(network, "8.8.8.8")
    assert found["result"]["disposition"] == "INSUFFICIENT_INFO"
    assert found["coverage"]["missing"][0].keys() == {"what", "why", "wouldDecide"}
