"""What else is sent: packets that cut a loss in two, and questions asked anew."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from podwire.cli.trace import trace
from podwire.cli.trace_live import Wish, trace_live
from podwire.drivers import namespaces
from podwire.trace import schema
from podwire.trace.document import document
from podwire.trace.flow import Flow
from tests.fakes.json_schema import complaints
from tests.kernel.trace_network import build, run, sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = json.loads((Path(schema.__file__).parent / "podwire.trace.v1.json").read_text())
ENDS = ["demo/web-0", "demo/db-0"]
UDP_4789 = "udp dport 4789 drop"
EVERYTHING = "ether type ip drop"
WEB, DB = "10.244.38.174", "10.244.169.66"
ONE, TWO = "192.168.26.103", "192.168.26.105"


def traced(*options: str) -> dict[str, Any]:
    done = CliRunner().invoke(trace, [*ENDS, *options, "-o", "json"], catch_exceptions=False)
    assert done.exit_code in {0, 1, 2, 3, 4}, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert complaints(found, SCHEMA, SCHEMA) == []
    return found


@contextmanager
def hidden_switch(rule: str | None) -> Iterator[None]:
    """A switch whose state nobody can read: its namespace lives by a descriptor alone."""
    if rule is not None:
        run("ip netns exec underlay nft add table bridge t")
        chain = "{ type filter hook forward priority 0; }"
        run(f"ip netns exec underlay nft add chain bridge t c {chain}")
        run(f"ip netns exec underlay nft add rule bridge t c {rule}")
    with namespaces.opened("/run/netns/underlay"):
        namespaces.delete_named("underlay")
        yield


def controls(found: dict[str, Any]) -> dict[str, str]:
    return {each["kind"]: each["outcome"] for each in found["controls"]}


def test_what_drops_the_tunnel_is_told_from_what_drops_everything() -> None:
    build("vxlan")
    with hidden_switch(UDP_4789):
        found = traced("--size", "1400")
    assert controls(found) == {
        "small": "not answered",
        "other-protocol": "not answered",
        "between-nodes": "answered",
        "tunnel-port": "did not arrive",
    }
    said = f"between {ONE} and {TWO} a ping is answered and udp/4789 does not arrive"
    assert said in found["result"]["summary"]
    assert found["result"]["confidence"] != "certain"


def test_a_dead_wire_loses_the_ping_between_nodes_too() -> None:
    build("vxlan")
    with hidden_switch(EVERYTHING):
        found = traced()
    assert controls(found)["between-nodes"] == "did not arrive"
    assert f"between {ONE} and {TWO} a ping gets no answer either" in found["result"]["summary"]


def test_without_a_tunnel_the_next_node_is_pinged() -> None:
    build("none")
    with hidden_switch(f"ip saddr {WEB} icmp type echo-request drop"):
        found = traced()
    assert controls(found) == {"other-protocol": "answered", "between-nodes": "answered"}
    between = next(each for each in found["controls"] if each["kind"] == "between-nodes")
    assert (between["src"], between["dst"]) == (ONE, TWO)
    assert "only icmp gets no answer" in found["result"]["summary"]


def test_an_end_that_does_not_answer_is_told_from_a_way_that_loses() -> None:
    """Nobody can read the rules of the pod's own firewall, and its ping works."""
    build("vxlan")
    with hidden_switch("udp dport 4789 @th,512,16 7007 drop"):
        found = traced("--tcp", "7007")
    assert controls(found)["other-protocol"] == "answered"
    assert "only tcp/7007 gets no answer" in found["result"]["summary"]


@pytest.mark.parametrize(
    "fault", ["ip -n vms105 link show", "ip -n vms105 route del 10.244.169.66"], ids=["well", "ill"]
)
def test_where_all_is_certain_nothing_more_is_sent(fault: str) -> None:
    build("vxlan")
    run(fault)
    found = traced()
    assert found["result"]["confidence"] == "certain"
    assert found["controls"] == []


def neighbours(namespace: str) -> list[str]:
    return sorted(run(f"ip -n {namespace} neigh show").splitlines())


def test_cold_arp_is_asked_predicted_and_seen_on_the_whole_way() -> None:
    build("vxlan")
    run("ip -n vms103 neigh add 192.168.26.9 dev ens32 lladdr 02:00:00:00:00:99 nud reachable")
    kept = [each for each in neighbours("vms103") if "PERMANENT" in each]
    traced()
    warm = traced()
    assert {each["observed"] for each in warm["arp"]} == {"not asked: known already"}
    cold = traced("--cold-arp")
    assert cold["result"]["disposition"] == "DELIVERED_AND_ANSWERED"
    asked = {each["target"]: each["observed"] for each in cold["arp"]}
    assert set(asked) == {"169.254.1.1", ONE, TWO}
    # The second node learns the first one's address from the first one's question.
    assert all("answered after" in asked[each] for each in ("169.254.1.1", TWO)), asked
    # Nobody else's memory was touched, and no configuration.
    after = neighbours("vms103")
    assert set(kept) <= set(after)
    assert any(each.startswith("192.168.26.9 ") for each in after)


def test_a_fault_that_warm_arp_hides_is_found() -> None:
    build("vxlan")
    traced()
    sysctl("vms103", "net/ipv4/conf/caliweb-0/proxy_arp", 0)
    assert traced()["result"]["disposition"] == "DELIVERED_AND_ANSWERED"
    found = traced("--cold-arp")
    assert [(each["id"], each["confidence"]) for each in found["faults"]] == [
        ("arp.proxy-off", "certain")
    ]


def test_reading_alone_forgets_nothing() -> None:
    build("vxlan")
    traced()
    before = neighbours("web-0")
    wish = Wish(source=ENDS[0], destination=ENDS[1], flow=Flow(), probe=False, cold_arp=True)
    assert document(trace_live(wish))["level"] == 1
    assert [each.split()[:5] for each in neighbours("web-0")] == [
        each.split()[:5] for each in before
    ]
