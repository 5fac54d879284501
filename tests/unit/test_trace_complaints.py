"""What is sent back about a loss, and whether the sender hears of it."""

from __future__ import annotations

import pytest

from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.schema import Direction, Trace
from tests.fakes.drawn_network import Network, story
from tests.fakes.drawn_rules import DROP, Rule, chain, icmp_type, state

WEB, DB = "demo/web-0", "demo/db-0"


def traced(network: Network, flow: Flow | None = None) -> Trace:
    return predict(network.states(), WEB, DB, flow)


def sent_back(trace: Trace) -> str:
    steps = trace.paths[0].hops[-1].steps
    return str(steps[-1].detail.get("sentBack"))


def refusing(encapsulation: str = "vxlan") -> Network:
    """The receiver's node has no route to its pod and says so."""
    network = story(encapsulation)
    for route in ("10.244.169.66/32", "10.244.169.64/26", "0.0.0.0/0"):
        network["vms105"].unroute(route)
    return network


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize("encapsulation", ["vxlan", "ipip", "none"])
def test_the_refusal_of_a_closed_port_has_a_way_back(
    protocol: Protocol, encapsulation: str
) -> None:
    trace = traced(story(encapsulation), Flow(protocol=protocol, port=81))
    healthy = traced(story(encapsulation))
    assert places(trace) == places(healthy)
    back = next(path for path in trace.paths if path.direction is Direction.RETURN)
    assert back.arrived is not None
    assert back.arrived.reset is (protocol is Protocol.TCP)
    assert (back.arrived.complaint is not None) is (protocol is Protocol.UDP)


def places(trace: Trace) -> list[tuple[str | None, str | None]]:
    paths = (path for path in trace.paths if path.direction is Direction.RETURN)
    return [(hop.position, hop.where.interface) for path in paths for hop in path.hops]


def test_a_refusal_may_be_lost_too() -> None:
    network = story()
    network["db-0"].unroute("0.0.0.0/0")
    trace = traced(network, Flow(protocol=Protocol.TCP, port=81))
    assert [fault.number for fault in trace.faults] == [51, 53]


def test_a_socket_of_another_address_is_named() -> None:
    network = story()
    network["db-0"].sockets += ["tcp 127.0.0.1 81", "udp 0.0.0.0 81"]
    trace = traced(network, Flow(protocol=Protocol.TCP, port=81))
    assert "tcp/81 listens on 127.0.0.1 only" in trace.summary
    fix = trace.faults[0].fix
    assert fix is not None
    assert "10.244.169.66" in fix.text


def test_an_error_without_a_way_back_is_not_said_to_come() -> None:
    network = story()
    network["vms103"].unroute("10.244.169.64/26")
    assert sent_back(traced(network)).startswith(
        "no ICMP 3/0 goes back: underlay itself has no route"
    )
    network["underlay"].route("10.244.38.128/26", via="192.168.26.103", dev="br0")
    assert sent_back(traced(network)) == "ICMP 3/0 goes back"


def test_an_error_about_a_tunnels_packet_goes_to_its_node() -> None:
    network = story()
    network["vms105"].change("vxlan.calico", up=False)
    assert sent_back(traced(network)) == "ICMP 3/3 goes to vms103 only"


def test_a_rule_may_keep_the_error_back() -> None:
    network = refusing()
    network["vms105"].nft = chain("output", [icmp_type("destination-unreachable"), DROP])
    assert "ICMP 3/0 gets lost: output c (rule handle 2) of vms105" in sent_back(traced(network))


def test_an_error_is_related_where_the_packet_came_through() -> None:
    network = refusing()
    network["vms103"].nft = chain("forward", [state("related"), DROP])
    assert "gets lost" in sent_back(traced(network))
    network["vms103"].nft = chain("forward", [state("invalid"), DROP])
    assert sent_back(traced(network)) == "ICMP 3/0 goes back"


def test_an_error_is_translated_back_with_its_connection() -> None:
    network = refusing("none")
    masquerade: Rule = [{"masquerade": None}]
    network["vms103"].nft = chain("postrouting", masquerade, kind="nat", prio=100)
    trace = traced(network)
    assert trace.paths[0].lost is not None
    assert str(trace.paths[0].lost.source) == "192.168.26.103"
    assert sent_back(trace) == "ICMP 3/0 goes back"


REJECTS = [
    (None, Protocol.ICMP, "ICMP 3/3 goes back"),
    ({"type": "icmp", "expr": "host-prohibited"}, Protocol.ICMP, "ICMP 3/10 goes back"),
    ({"type": "icmpx", "expr": "admin-prohibited"}, Protocol.UDP, "ICMP 3/13 goes back"),
    ({"type": "tcp reset"}, Protocol.TCP, "TCP reset goes back"),
    ({"expr": "icmp-port-unreachable"}, Protocol.UDP, "ICMP 3/3 goes back"),
    ({"expr": "icmp-proto-unreachable"}, Protocol.UDP, "ICMP 3/2 goes back"),
]


@pytest.mark.parametrize(("how", "protocol", "said"), REJECTS)
def test_a_rule_that_refuses_says_how(
    how: dict[str, str] | None, protocol: Protocol, said: str
) -> None:
    network = story()
    network["vms105"].nft = chain("forward", [{"reject": how}])
    port = None if protocol is Protocol.ICMP else 80
    assert sent_back(traced(network, Flow(protocol=protocol, port=port))) == said
