"""What nftables rules do with a packet: certain, or said to be uncertain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podwire.model.kernelstate import Missing, Read
from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition, Trace
from tests.fakes.drawn_network import story

Rule = list[dict[str, object]]
ACCEPT: dict[str, object] = {"accept": None}
DROP: dict[str, object] = {"drop": None}


def match(left: dict[str, object], right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: object) -> dict[str, object]:
    return match({"meta": {"key": key}}, right)


def payload(protocol: str, field: str, right: object, op: str = "==") -> dict[str, object]:
    return match({"payload": {"protocol": protocol, "field": field}}, right, op)


def ct(*states: str) -> dict[str, object]:
    return match({"ct": {"key": "state"}}, {"set": list(states)}, "in")


def ruleset(
    hook: str, *rules: Rule, policy: str = "accept", more: dict[str, list[Rule]] | None = None
) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = [
        {"table": {"family": "ip", "name": "t"}},
        {
            "chain": {
                "family": "ip", "table": "t", "name": "base", "type": "filter", "hook": hook,
                "prio": 0, "policy": policy,
            }
        },
    ]  # fmt: skip
    for chain, several in {"base": list(rules), **(more or {})}.items():
        for handle, rule in enumerate(several, start=10):
            entries.append(
                {"rule": {"family": "ip", "table": "t", "chain": chain, "handle": handle,
                          "expr": rule}}
            )  # fmt: skip
    return entries


def run(entries: list[dict[str, object]], node: str = "vms103", flow: Flow | None = None) -> Trace:
    network = story()
    network[node].nft = entries
    return predict(network.states(), "demo/web-0", "demo/db-0", flow)


PASSES: list[Rule] = [
    [ACCEPT],
    [{"counter": {"packets": 0, "bytes": 0}}, {"log": None}],
    [payload("ip", "daddr", "10.9.9.9"), DROP],
    [payload("ip", "daddr", {"prefix": {"addr": "10.9.0.0", "len": 16}}), DROP],
    [payload("ip", "saddr", {"range": ["10.9.0.1", "10.9.0.9"]}), {"reject": None}],
    [payload("udp", "dport", 53), DROP],
    [payload("tcp", "dport", {"set": [80, 443]}), DROP],
    [meta("iifname", "eth7"), DROP],
    [meta("l4proto", {"set": ["tcp", "udp"]}), DROP],
    [ct("invalid"), DROP],
    [payload("ip", "saddr", "@nodes"), ACCEPT],
]


@pytest.mark.parametrize("rule", PASSES)
def test_rules_that_cannot_take_the_packet_are_no_hindrance(rule: Rule) -> None:
    trace = run(ruleset("forward", rule))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    assert trace.faults == ()


DENIES: list[Rule] = [
    [DROP],
    [payload("ip", "daddr", "10.244.169.66"), DROP],
    [payload("ip", "daddr", {"prefix": {"addr": "10.244.0.0", "len": 16}}), DROP],
    [payload("ip", "protocol", "icmp"), payload("icmp", "type", "echo-request"), DROP],
    [meta("iifname", "cali*"), DROP],
    [meta("oifname", "vxlan.calico"), DROP],
    [payload("ip", "saddr", "10.9.9.9", "!="), DROP],
    [ct("new"), DROP],
]


@pytest.mark.parametrize("rule", DENIES)
def test_rules_that_take_the_packet_are_named(rule: Rule) -> None:
    trace = run(ruleset("forward", rule))
    assert trace.disposition is Disposition.DENIED, trace.summary
    assert trace.faults[0].number == 23
    assert "rule handle 10" in trace.summary
    assert "vms103" in trace.summary


def test_a_policy_is_named_as_one() -> None:
    trace = run(ruleset("forward", [payload("tcp", "dport", 80), ACCEPT], policy="drop"))
    assert (trace.disposition, trace.faults[0].number) == (Disposition.DENIED, 22)


def test_a_reject_is_refused_and_not_lost() -> None:
    trace = run(ruleset("forward", [{"reject": {"type": "icmp"}}]))
    assert (trace.disposition, trace.faults[0].number) == (Disposition.REJECTED, 24)


def test_the_answer_of_a_tracked_flow_is_established() -> None:
    rules = [[ct("established", "related"), ACCEPT], [meta("iifname", "cali*"), ACCEPT]]
    trace = run(ruleset("forward", *rules, policy="drop"))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED


def test_jumps_are_followed() -> None:
    jump: Rule = [{"jump": {"target": "side"}}]
    side: dict[str, list[Rule]] = {
        "side": [[payload("ip", "daddr", "10.9.9.9"), {"return": None}], [DROP]]
    }
    assert run(ruleset("forward", jump, more=side)).disposition is Disposition.DENIED
    harmless: dict[str, list[Rule]] = {"side": [[{"return": None}], [DROP]]}
    trace = run(ruleset("forward", jump, more=harmless))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED


UNSURE: list[Rule] = [
    [payload("ip", "saddr", "@blocked"), DROP],
    [{"xt": {"type": "match", "name": "comment"}}],
    [{"queue": {"num": 1}}],
    [{"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": 1}}],
    [{"limit": {"rate": 1, "per": "second"}}, DROP],
    [{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@interfaces"}}],
]


@pytest.mark.parametrize("rule", UNSURE)
def test_rules_nobody_can_judge_end_in_insufficient_info(rule: Rule) -> None:
    trace = run(ruleset("forward", rule))
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "nftables chain t base of vms103" in trace.summary


def test_a_drop_behind_a_doubtful_accept_is_not_certain() -> None:
    trace = run(ruleset("forward", [payload("ip", "saddr", "@friends"), ACCEPT], policy="drop"))
    assert trace.disposition is Disposition.INSUFFICIENT_INFO


@pytest.mark.parametrize(
    ("hook", "node", "rule"),
    [
        ("prerouting", "vms105", [payload("udp", "dport", 4789), DROP]),
        ("input", "vms105", [payload("udp", "dport", 4789), DROP]),
        ("output", "vms103", [payload("udp", "dport", 4789), DROP]),
        ("postrouting", "vms103", [meta("oifname", "ens32"), DROP]),
        ("forward", "vms105", [meta("oifname", "cali*"), DROP]),
        ("input", "db-0", [DROP]),
        ("output", "db-0", [DROP]),
    ],
)
def test_every_hook_on_the_way_is_asked(hook: str, node: str, rule: Rule) -> None:
    trace = run(ruleset(hook, rule), node)
    assert trace.disposition is Disposition.DENIED
    assert trace.faults[0].where.netns == ("demo/db-0" if node == "db-0" else node)


def test_a_rule_for_another_port_lets_tcp_pass() -> None:
    network = story()
    network["vms105"].nft = ruleset("forward", [payload("tcp", "dport", 80), DROP])
    network["db-0"].sockets = ["tcp 0.0.0.0 5432"]
    flow = Flow(protocol=Protocol.TCP, port=5432)
    trace = predict(network.states(), "demo/web-0", "demo/db-0", flow)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED


@pytest.mark.parametrize(
    ("text", "disposition"),
    [
        ("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\n", "DELIVERED_AND_ANSWERED"),
        ("*filter\n:FORWARD DROP [0:0]\n", "DENIED"),
        (
            "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 10.9.9.9/32 -j DROP\n",
            "DELIVERED_AND_ANSWERED",
        ),
        (
            "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m recent --rcheck --name x -j DROP\n",
            "INSUFFICIENT_INFO",
        ),
    ],
)
def test_legacy_rules_are_run_beside_those_of_nftables(text: str, disposition: str) -> None:
    states = list(story().states())
    states[1] = replace(states[1], iptables_legacy=Read(text))
    assert predict(states, "demo/web-0", "demo/db-0").disposition == disposition


def test_legacy_rules_that_could_not_be_read_are_lacking() -> None:
    states = list(story().states())
    states[1] = replace(states[1], iptables_legacy=Missing("iptables-legacy-save is missing"))
    trace = predict(states, "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.INSUFFICIENT_INFO


def test_bridged_packets_meet_the_rules_where_br_netfilter_says_so() -> None:
    network = story()
    network["underlay"].nft = ruleset("forward", [payload("udp", "dport", 4789), DROP])
    ends = ("demo/web-0", "demo/db-0")
    assert predict(network.states(), *ends).disposition is Disposition.DELIVERED_AND_ANSWERED
    network["underlay"].sysctls["bridge.bridge-nf-call-iptables"] = "1"
    trace = predict(network.states(), *ends)
    assert trace.disposition is Disposition.DENIED
    assert trace.faults[0].where.netns == "underlay"


def below(family: str, hook: str, expressions: Rule, **more: object) -> list[dict[str, object]]:
    names = {"family": family, "table": more.pop("table", "t")}
    chain = {**names, "name": "c", "type": "filter", "hook": hook, "prio": 0, **more}
    return [{"chain": chain}, {"rule": {**names, "chain": "c", "handle": 7, "expr": expressions}}]


VXLAN_PORT = payload("udp", "dport", 4789)
BELOW = {
    "ingress": below("netdev", "ingress", [VXLAN_PORT, DROP], dev="vms103"),
    "egress": below("netdev", "egress", [VXLAN_PORT, DROP], dev=["x", "vms1*"]),
    "inet": below("inet", "ingress", [VXLAN_PORT, DROP], dev="vms103"),
    "prerouting": below("bridge", "prerouting", [VXLAN_PORT, DROP]),
    "forward": below("bridge", "forward", [payload("ether", "type", "ip"), DROP]),
    "postrouting": below("bridge", "postrouting", [VXLAN_PORT, DROP]),
    "policy": below("bridge", "forward", [payload("ether", "type", "arp"), ACCEPT], policy="drop"),
    "other": below("bridge", "forward", [meta("protocol", "ip"), meta("pkttype", "other"), DROP]),
}  # fmt: skip


@pytest.mark.parametrize("name", BELOW)
def test_rules_below_ip_decide(name: str) -> None:
    network = story()
    network["underlay"].nft = BELOW[name]
    trace = predict(network.states(), "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.DENIED, trace.summary
    assert trace.faults[0].where.netns == "underlay"
    assert trace.faults[0].number == 35


def test_of_equal_priority_the_chain_that_came_last_runs_first() -> None:
    marked: dict[str, object] = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}
    sets = below("bridge", "forward", [marked], table="sets")
    asks = below("bridge", "forward", [VXLAN_PORT, meta("mark", 1), DROP], table="asks")
    outcomes = []
    for entries in (sets + asks, asks + sets):
        network = story()
        network["underlay"].nft = entries
        outcomes.append(predict(network.states(), "demo/web-0", "demo/db-0").disposition)
    assert outcomes == [Disposition.DELIVERED_AND_ANSWERED, Disposition.DENIED]


def test_rules_of_other_links_and_hooks_do_not() -> None:
    network = story()
    network["underlay"].nft = [
        *below("netdev", "ingress", [DROP], dev="other"),
        *below("bridge", "input", [DROP], table="t0"),
        *below("bridge", "output", [DROP], table="t1"),
        *below("arp", "input", [DROP]),
        *below("bridge", "forward", [payload("arp", "operation", "inrequest"), DROP], table="t2"),
        *below("bridge", "forward", [payload("vlan", "id", 5), DROP], table="t3"),
        *below(
            "bridge", "forward", [payload("ether", "saddr", "02:00:00:00:99:99"), DROP], table="t4"
        ),
    ]
    trace = predict(network.states(), "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary


def test_a_chain_beside_an_unknown_link_may_be_beside_this_one() -> None:
    network = story()
    network["underlay"].nft = below("netdev", "ingress", [DROP])
    trace = predict(network.states(), "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "netdev" in trace.summary


def test_a_rule_that_takes_arp_away_is_named() -> None:
    network = story()
    network["underlay"].nft = below("bridge", "forward", [payload("ether", "type", "arp"), DROP])
    trace = predict(network.states(), "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.NEIGHBOR_FAILED
    fault = trace.faults[0]
    assert (fault.id, fault.where.netns) == ("arp.denied", "underlay")
    assert fault.fix is not None
    assert fault.fix.command == "nft delete rule bridge t c handle 7"


def test_classifiers_are_not_modelled() -> None:
    states = list(story().states())
    states[1] = replace(states[1], qdiscs=Read(("2 clsact",)))
    trace = predict(states, "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "clsact" in trace.summary
