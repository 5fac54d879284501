"""Predictions over drawn networks: health, every disposition, the fault named and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from podwire.errors import BadInput
from podwire.model.kernelstate import Missing
from podwire.model.overlay import NUD_REACHABLE
from podwire.model.route import NextHop, RouteKind
from podwire.trace.flow import Flow, Protocol
from podwire.trace.predict import predict
from podwire.trace.schema import Direction, Disposition, Trace
from tests.fakes.drawn_network import Network, story

WEB, OTHER, DB = "demo/web-0", "demo/web-1", "demo/db-0"
WAYS = ["vxlan", "ipip", "none"]
Break = Callable[[Network], object]
# mypy: disable-error-code="func-returns-value"


def positions(trace: Trace, direction: Direction) -> list[str]:
    path = next(each for each in trace.paths if each.direction is direction)
    return [hop.position for hop in path.hops if hop.position is not None]


@pytest.mark.parametrize("encapsulation", WAYS)
@pytest.mark.parametrize(
    "flow", [Flow(), Flow(protocol=Protocol.TCP, port=80), Flow(protocol=Protocol.UDP, port=53)]
)
def test_a_healthy_network_is_predicted_there_and_back(encapsulation: str, flow: Flow) -> None:
    network = story(encapsulation)
    network["db-0"].sockets = ["tcp 0.0.0.0 80", "udp :: 53"]
    trace = predict(network.states(), WEB, DB, flow)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.faults == ()
    tunnel = encapsulation != "none"
    wanted = [f"P{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8) if tunnel or n not in {3, 6}]
    assert positions(trace, Direction.FORWARD) == wanted
    assert positions(trace, Direction.RETURN) == [each.replace("P", "R") for each in wanted]
    assert trace.paths[0].hops[-1].packet.ttl == 62


def test_two_pods_of_one_node_meet_there() -> None:
    trace = predict(story().states(), WEB, OTHER)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert positions(trace, Direction.FORWARD) == ["P1", "P2", "P7", "P8"]


@pytest.mark.parametrize("encapsulation", WAYS)
@pytest.mark.parametrize(
    "ends",
    [("vms103", DB), (DB, "vms103"), ("vms103", "vms105"), ("vms103", WEB), (WEB, "vms103")],
)
def test_nodes_are_ends_too(encapsulation: str, ends: tuple[str, str]) -> None:
    trace = predict(story(encapsulation).states(), *ends)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    assert trace.faults == ()


def test_a_pod_reaches_itself() -> None:
    assert predict(story().states(), WEB, WEB).disposition is Disposition.DELIVERED_AND_ANSWERED


def test_the_gateway_of_pods_is_answered_by_proxy() -> None:
    trace = predict(story().states(), WEB, DB)
    question = trace.paths[0].questions[0]
    assert (question.kind, question.replier, question.mac) == (
        "proxy",
        "vms103",
        "ee:ee:ee:ee:ee:ee",
    )


def without(state: str, network: Network, name: str) -> None:
    network[name].missing[state] = Missing("the node did not answer")


FAULTS: list[tuple[str, Break, Disposition, int | None, str, str]] = [
    (
        "pod without default route",
        lambda n: n["web-0"].unroute("0.0.0.0/0"),
        Disposition.NO_ROUTE, 1, WEB, "route.pod-default-missing",
    ),
    (
        "proxy_arp off",
        lambda n: n["vms103"].switch("caliweb-0", "proxy_arp", 0),
        Disposition.NEIGHBOR_FAILED, 3, "vms103", "arp.proxy-off",
    ),
    (
        "no route that covers the pods' gateway",
        lambda n: n["vms103"].unroute("0.0.0.0/0"),
        Disposition.NEIGHBOR_FAILED, 4, "vms103", "arp.no-route",
    ),
    (
        "forwarding off on the veth, nothing cached",
        lambda n: n["vms103"].switch("caliweb-0", "forwarding", 0),
        Disposition.NEIGHBOR_FAILED, 5, "vms103", "arp.forwarding-off",
    ),
    (
        "forwarding off on the veth, gateway cached",
        lambda n: (warm(n), n["vms103"].switch("caliweb-0", "forwarding", 0)),
        Disposition.FORWARDING_OFF, 6, "vms103", "forwarding.off-interface",
    ),
    (
        "host veth down",
        lambda n: (
            n["vms103"].change("caliweb-0", up=False, carrier=False),
            n["web-0"].change("eth0", carrier=False),
        ),
        Disposition.NEIGHBOR_FAILED, 9, "vms103", "link.down",
    ),
    (
        "address of the pod gone",
        lambda n: (n["db-0"].addresses.clear(), unlocal(n, "db-0")),
        Disposition.NOT_FOR_ME, 11, DB, "pod.address-missing",
    ),
    (
        "ip_forward off, gateway cached",
        lambda n: (warm(n), off(n, "vms103")),
        Disposition.FORWARDING_OFF, 12, "vms103", "forwarding.off",
    ),
    (
        "block route missing, no default route",
        lambda n: (
            n["vms103"].unroute("10.244.169.64/26"),
            n["vms103"].unroute("0.0.0.0/0"),
            n["vms103"].route("169.254.1.1/32", dev="ens32"),
        ),
        Disposition.NO_ROUTE, 13, "vms103", "route.missing-block-route",
    ),
    (
        "block route missing, default route swallows",
        lambda n: n["vms103"].unroute("10.244.169.64/26"),
        Disposition.NO_ROUTE, 14, "vms103", "route.missing-block-route",
    ),
    (
        "blackhole over a foreign block",
        lambda n: (
            n["vms103"].unroute("10.244.169.64/26"),
            n["vms103"].route("10.244.169.64/26", kind=RouteKind.BLACKHOLE, protocol=12),
        ),
        Disposition.NULL_ROUTED, 15, "vms103", "route.blackhole",
    ),
    (
        "unreachable route",
        lambda n: n["vms103"].route("10.244.169.66/32", kind=RouteKind.UNREACHABLE),
        Disposition.ROUTE_UNREACHABLE, 16, "vms103", "route.refusing",
    ),
    (
        "route of the source pod missing, gateway cached",
        lambda n: (warm(n), n["vms103"].unroute("10.244.38.174/32")),
        Disposition.RPF_FAILED, 18, "vms103", "rpf.failed",
    ),
    (
        "VTEP neighbour missing",
        lambda n: n["vms103"].neighbours.pop(0),
        Disposition.NEIGHBOR_FAILED, 28, "vms103", "neighbour.vtep-missing",
    ),
    (
        "forwarding entry missing",
        lambda n: n["vms103"].fdb.clear(),
        Disposition.NEIGHBOR_FAILED, 29, "vms103", "fdb.missing",
    ),
    (
        "forwarding entry to nobody",
        lambda n: n["vms103"].fdb.append(
            replace(n["vms103"].fdb.pop(), destination=ip_address("192.168.26.77"))
        ),
        Disposition.NEIGHBOR_FAILED, 30, "vms103", "tunnel.wrong-node",
    ),
    (
        "another VNI",
        lambda n: n["vms105"].change(
            "vxlan.calico", vxlan=replace(n["vms105"].links["vxlan.calico"].vxlan, vni=5000)  # type: ignore[type-var]
        ),
        Disposition.NOT_FOR_ME, 32, "vms105", "tunnel.vni-differs",
    ),
    (
        "host route missing, block dropped",
        lambda n: n["vms105"].unroute("10.244.169.66/32"),
        Disposition.NULL_ROUTED, 45, "vms105", "route.missing-host-route",
    ),
    (
        "host route missing, default route swallows",
        lambda n: (
            n["vms105"].unroute("10.244.169.66/32"),
            n["vms105"].unroute("10.244.169.64/26"),
        ),
        Disposition.NO_ROUTE, 44, "vms105", "route.missing-host-route",
    ),
    (
        "strict source validation on the tunnel",
        lambda n: (
            n["vms105"].switch("vxlan.calico", "rp_filter", 1),
            n["vms105"].unroute("10.244.38.128/26"),
        ),
        Disposition.RPF_FAILED, 46, "vms105", "rpf.failed",
    ),
    (
        "forwarding off on the tunnel",
        lambda n: n["vms105"].switch("vxlan.calico", "forwarding", 0),
        Disposition.FORWARDING_OFF, 47, "vms105", "forwarding.off-interface",
    ),
    (
        "pod's link down",
        lambda n: (
            n["db-0"].change("eth0", up=False, carrier=False),
            n["vms105"].change("calidb-0", carrier=False),
        ),
        Disposition.LOST_ON_LINK, 49, DB, "link.down",
    ),
    (
        "pod ignores ping",
        lambda n: n["db-0"].sysctls.update({"ipv4.icmp_echo_ignore_all": "1"}),
        Disposition.DELIVERED_NO_ANSWER, 52, DB, "pod.ignores-ping",
    ),
    (
        "no route back from the pod",
        lambda n: n["db-0"].unroute("0.0.0.0/0"),
        Disposition.DELIVERED_NO_ANSWER, 53, DB, "route.pod-default-missing",
    ),
]  # fmt: skip


def warm(network: Network) -> None:
    """The pod knows its gateway already."""
    network["web-0"].neighbour("eth0", "169.254.1.1", "ee:ee:ee:ee:ee:ee", NUD_REACHABLE)


def off(network: Network, name: str) -> None:
    drawn = network[name]
    drawn.sysctls["ipv4.ip_forward"] = "0"
    for link in drawn.links:
        drawn.switch(link, "forwarding", 0)


def unlocal(network: Network, name: str) -> None:
    drawn = network[name]
    drawn.routes = [each for each in drawn.routes if each.kind is not RouteKind.LOCAL]


@pytest.mark.parametrize(
    ("breaking", "disposition", "number", "place", "identity"),
    [each[1:] for each in FAULTS],
    ids=[each[0] for each in FAULTS],
)
def test_the_first_divergence_is_named(
    breaking: Break, disposition: Disposition, number: int | None, place: str, identity: str
) -> None:
    network = story()
    breaking(network)
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is disposition, trace.summary
    assert len(trace.faults) == 1, trace.faults
    fault = trace.faults[0]
    assert (fault.id, fault.number, fault.where.netns) == (identity, number, place)
    assert trace.summary == fault.sentence
    assert trace.disposition.exit_code == 1


def test_the_reply_may_fail_by_source_validation() -> None:
    network = story("none")
    node = network["vms103"]
    node.switch("ens32", "rp_filter", 1)
    # There by the gateway, back directly: the answer comes in where the way there does not go.
    network.cable(node, "ens33", network["underlay"], "side")
    node.address("ens33", "192.168.99.3/24")
    network["underlay"].address("side", "192.168.99.1/24")
    network["underlay"].route("10.244.169.64/26", via="192.168.26.105", dev="br0")
    node.unroute("10.244.169.64/26")
    node.route("10.244.169.64/26", via="192.168.99.1", dev="ens33")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.RPF_FAILED
    assert [fault.number for fault in trace.faults] == [55]
    assert trace.faults[0].where.interface == "ens32"


def test_a_link_route_to_the_gateway_is_not_missed() -> None:
    network = story()
    network["web-0"].unroute("169.254.1.1/32")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.faults == ()


def test_the_same_tunnel_address_twice_does_not_matter_between_pods() -> None:
    network = story()
    network["vms105"].address("vxlan.calico", "10.244.38.128/32")
    network["vms105"].addresses = [
        each for each in network["vms105"].addresses if str(each.interface.ip) != "10.244.38.128"
    ]
    third = network.namespace("vms106", forward=True)
    network.vxlan(third, "192.168.26.106", "10.244.38.128")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.faults == ()


def test_a_late_proxy_answer_is_a_warning() -> None:
    network = story()
    network["vms103"].sysctls["ipv4.neigh/caliweb-0/proxy_delay"] = "80"
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert [(each.number, each.severity) for each in trace.faults] == [(7, "warning")]
    assert trace.paths[0].questions[0].delay_ms == 800


def test_a_closed_port_is_no_answer() -> None:
    flow = Flow(protocol=Protocol.TCP, port=81)
    trace = predict(story().states(), WEB, DB, flow)
    assert "nothing listens on tcp/81" in trace.summary
    assert (trace.disposition.exit_code, trace.faults[0].number) == (1, 51)


def test_what_does_not_fit_and_may_not_be_cut_is_too_big() -> None:
    network = story()
    network["web-0"].change("eth0", mtu=1500)
    network["vms103"].change("caliweb-0", mtu=1500)
    trace = predict(network.states(), WEB, DB, Flow(size=1460, df=True))
    assert trace.disposition is Disposition.TOO_BIG
    assert (trace.faults[0].number, trace.faults[0].where.interface) == (39, "vxlan.calico")
    assert trace.paths[0].cause is not None
    assert trace.paths[0].cause.icmp == "3/4"
    cut = predict(network.states(), WEB, DB, Flow(size=1460))
    assert cut.disposition is Disposition.DELIVERED_AND_ANSWERED


def test_a_tunnel_larger_than_the_wire_is_a_warning() -> None:
    network = story()
    for node in ("vms103", "vms105"):
        network[node].change("ens32", mtu=1400)
    trace = predict(network.states(), WEB, DB, Flow(size=1450))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert {(each.number, each.severity) for each in trace.faults} == {(38, "warning")}
    assert trace.path_mtu == 1350


def test_ipip_inherits_the_ban_on_cutting() -> None:
    network = story("ipip")
    network["vms103"].change("ens32", mtu=1400)
    trace = predict(network.states(), WEB, DB, Flow(size=1450, df=True))
    assert trace.disposition is Disposition.TOO_BIG


def test_a_veth_with_a_narrower_other_end_swallows_in_silence() -> None:
    network = story()
    network["db-0"].change("eth0", mtu=1300)
    trace = predict(network.states(), WEB, DB, Flow(size=1400))
    assert trace.disposition is Disposition.TOO_BIG
    assert trace.faults[0].where.netns == DB


def test_routes_in_a_circle_are_a_loop() -> None:
    network = story("none")
    network["vms105"].unroute("10.244.169.66/32")
    network["vms105"].unroute("10.244.169.64/26")
    network["vms105"].route("10.244.169.64/26", via="192.168.26.103", dev="ens32")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.LOOP
    assert trace.faults[0].number == 27


def test_the_ttl_may_end_on_the_way() -> None:
    network = story()
    network["web-0"].sysctls["ipv4.ip_default_ttl"] = "1"
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.TTL_EXPIRED
    assert trace.faults[0].where.netns == "vms103"


def test_a_second_owner_of_the_address_is_told() -> None:
    network = story()
    network.pod(network["vms103"], "demo/twin", "10.244.169.66")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.ANSWERED_BY_OTHER
    assert trace.faults[0].number == 21
    assert "demo/twin" in trace.summary


def test_a_stale_neighbour_sends_to_nobody() -> None:
    network = story("none")
    network["vms103"].neighbour("ens32", "192.168.26.105", "02:de:ad:00:00:01", NUD_REACHABLE)
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.NOT_FOR_ME


def test_a_dead_next_hop_is_named() -> None:
    network = story("none")
    network["vms103"].unroute("10.244.169.64/26")
    network["vms103"].route("10.244.169.64/26", via="192.168.26.9", dev="ens32")
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.NEIGHBOR_FAILED
    assert trace.faults[0].number == 36


def test_all_branches_are_followed() -> None:
    network = story("none")
    node = network["vms103"]
    node.unroute("10.244.169.64/26")
    node.route("10.244.169.64/26", via="192.168.26.105", dev="ens32")
    two = (
        NextHop(device=node.links["ens32"].index, gateway=ip_address("192.168.26.105")),
        NextHop(device=node.links["ens32"].index, gateway=ip_address("192.168.26.9")),
    )
    node.routes[-1] = replace(node.routes[-1], hops=two)
    trace = predict(network.states(), WEB, DB)
    forward = [each for each in trace.paths if each.direction is Direction.FORWARD]
    assert [each.branch for each in forward] == [0, 1]
    assert {each.disposition for each in forward} == {
        Disposition.DELIVERED_AND_ANSWERED,
        Disposition.NEIGHBOR_FAILED,
    }
    assert trace.disposition is Disposition.NEIGHBOR_FAILED


SECTIONS = [
    "links", "addresses", "routes", "rules", "neighbours", "fdb", "sysctls", "nft", "qdiscs",
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", ["vms103", "vms105"])
def test_missing_data_never_looks_like_health(section: str, name: str) -> None:
    network = story()
    without(section, network, name)
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.INSUFFICIENT_INFO, trace.summary
    assert trace.gaps
    assert "did not answer" in trace.summary
    assert trace.faults == ()


def test_what_leaves_our_sight_is_not_known() -> None:
    network = story()
    del network.drawn["underlay"]
    trace = predict(network.states(), WEB, "8.8.8.8")
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "ens32" in trace.summary


def test_an_xdp_program_is_not_modelled() -> None:
    network = story()
    network["vms105"].change("ens32", not_modelled=frozenset({"xdp"}))
    trace = predict(network.states(), WEB, DB)
    assert trace.disposition is Disposition.INSUFFICIENT_INFO
    assert "xdp" in trace.summary


def test_a_bridge_network_of_others_is_followed_too() -> None:
    network = Network()
    host = network.namespace("host", forward=True, root=True)
    for number in (2, 3):
        box = network.namespace(f"box{number}")
        network.cable(host, f"veth{number}", box, "eth0")
        box.address("eth0", f"172.17.0.{number}/16")
        box.route("0.0.0.0/0", via="172.17.0.1", dev="eth0")
    network.bridge(host, "docker0", "veth2", "veth3")
    host.address("docker0", "172.17.0.1/16")
    trace = predict(network.states(), "box2", "box3")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    ports = [hop.where.interface for hop in trace.paths[0].hops if hop.role == "port"]
    assert ports == ["veth2", "veth3"]
    assert trace.paths[0].hops[-1].packet.ttl == 64
    assert predict(network.states(), "host", "172.17.0.3").disposition.exit_code == 0
    assert predict(network.states(), "box2", "172.17.0.1").disposition.exit_code == 0


@pytest.mark.parametrize("text", ["demo/web-9", "vms9", "127.0.0.1"])
def test_an_unknown_end_is_a_usage_error(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        predict(story().states(), WEB, text)
    assert caught.value.fix


def test_a_plain_name_serves_when_it_is_unique() -> None:
    network = story()
    assert predict(network.states(), "web-0", "db-0").destination.title == DB
    other = network.pod(network["vms105"], "prod/web", "10.244.169.70")
    other.name = "web-x"
    network.drawn["other"] = network.drawn.pop("web")
    network.pod(network["vms103"], "demo/web", "10.244.38.190").name = "web-y"
    with pytest.raises(BadInput, match="2 pods"):
        predict(network.states(), "web", "db-0")


def test_addresses_are_ends() -> None:
    trace = predict(story().states(), "10.244.38.174", "10.244.169.66")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.source.pod == "web-0"
    assert trace.destination.node == "vms105"
