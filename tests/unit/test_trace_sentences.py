"""What is said of faults: the place, the reason, what is absent, and a fix that works."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from podwire.lab.fault_catalogue import FAULTS
from podwire.model.overlay import NUD_REACHABLE
from podwire.model.route import RouteKind, Rule
from podwire.trace.counterproof import Question, prove
from podwire.trace.flow import Flow
from podwire.trace.report import Style, render
from tests.fakes.drawn_network import Network, story
from tests.fakes.drawn_rules import DROP, chain, icmp_type, state

if TYPE_CHECKING:
    from podwire.trace.schema import Evidence, Fault, Trace

WEB, DB = "demo/web-0", "demo/db-0"


def proven(network: Network, flow: Flow | None = None) -> Trace:
    asked = Question(states=network.states(), source=WEB, destination=DB, flow=flow or Flow())
    return prove(asked.predict(), asked)


def first(network: Network, flow: Flow | None = None) -> Fault:
    return proven(network, flow).faults[0]


def fixed(fault: Fault) -> str:
    """The command, which was tried in the model."""
    assert fault.fix is not None
    assert fault.fix.verified_by == "counterproof"
    return str(fault.fix.command)


def line(fault: Fault, key: str) -> Evidence:
    return next(each for each in fault.evidence if each.key == key)


def too_wide() -> Network:
    """The pod and its veth take more than the tunnel."""
    network = story()
    network["web-0"].change("eth0", mtu=1500)
    network["vms103"].change("caliweb-0", mtu=1500)
    return network


BIG = Flow(size=1500, df=True)


def test_a_muted_error_is_a_black_hole_and_never_goes_back() -> None:
    network = too_wide()
    network["vms103"].nft = chain("output", [icmp_type("destination-unreachable"), DROP])
    trace = proven(network, BIG)
    fault = trace.faults[0]
    assert (fault.id, fault.where.netns) == ("mtu.black-hole", "vms103")
    assert fault.fix is not None
    assert fault.fix.command == "nft delete rule ip output c handle 2"
    text = render(trace, Style())
    assert "ICMP 3/4 gets lost" in text
    assert "goes back" not in text
    assert [each.id for each in trace.faults] == ["mtu.black-hole", "mtu.too-big"]


def test_an_error_may_be_muted_on_any_node() -> None:
    network = story("none")
    network["vms105"].change("calidb-0", mtu=1400)
    network["vms103"].nft = chain("forward", [icmp_type("destination-unreachable"), DROP])
    fault = first(network, BIG)
    assert (fault.id, fault.where.netns) == ("mtu.black-hole", "vms103")


def test_a_size_that_is_told_is_no_black_hole() -> None:
    trace = proven(too_wide(), BIG)
    assert [each.id for each in trace.faults] == ["mtu.too-big"]
    assert "ICMP 3/4 goes back" in render(trace, Style())


def test_a_forwarded_packet_is_dropped_where_it_came_in() -> None:
    network = story()
    network["vms103"].nft = chain("forward", policy="drop")
    trace = proven(network)
    fault = trace.faults[0]
    assert (fault.where.netns, fault.where.interface) == ("vms103", "caliweb-0")
    assert "DENIED  at vms103 caliweb-0" in render(trace, Style())
    assert fault.sentence.startswith("vms103 drops it at its forward hook: no rule of chain ")
    assert [each.value for each in fault.evidence] == ["policy drop"]
    assert fixed(fault).startswith("nft add chain ip forward c ")


def test_an_answer_that_is_dropped_as_invalid_is_said_to_be_one() -> None:
    network = story()
    untracked = chain("prerouting", [{"notrack": None}], prio=-300)
    network["vms103"].nft = untracked + chain("forward", [state("invalid"), DROP])
    # Only what comes from the pod is not tracked.
    left = {"meta": {"key": "iifname"}}
    only = {"match": {"op": "==", "left": left, "right": "caliweb-0"}}
    network["vms103"].nft[1]["rule"]["expr"].insert(0, only)  # type: ignore[index]
    fault = first(network)
    assert fault.sentence.startswith("vms103 drops the answer at its forward hook")
    assert "ct state invalid" in fault.sentence
    assert fault.where.interface == "vxlan.calico"


def test_loosening_changes_one_link_only() -> None:
    network = story()
    network["vms105"].switch("vxlan.calico", "rp_filter", 1)
    network["vms105"].unroute("10.244.38.128/26")
    assert fixed(first(network)) == "sysctl -w net/ipv4/conf/vxlan.calico/rp_filter=2"


@pytest.mark.parametrize(
    ("everywhere", "own", "wanted"),
    [
        (0, 1, "net/ipv4/conf/vxlan.calico/rp_filter=0"),
        (1, 0, "net/ipv4/conf/all/rp_filter=0"),
        (1, 2, "net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/vxlan.calico/rp_filter=0"),
    ],
)
def test_what_is_off_is_not_switched_off_again(everywhere: int, own: int, wanted: str) -> None:
    network = story()
    node = network["vms105"]
    node.switch("vxlan.calico", "rp_filter", own)
    node.switch("all", "rp_filter", everywhere)
    for link in ("ens32", "calidb-0"):
        node.switch(link, "rp_filter", 0)
    node.addresses = [each for each in node.addresses if str(each.interface) != "10.244.169.64/32"]
    node.unroute("10.244.38.128/26")
    fix = first(network).fix
    assert fix is not None
    assert fix.command == f"sysctl -w {wanted}"


def test_a_blackhole_is_told_by_what_covers_the_address() -> None:
    network = story()
    network["vms103"].unroute("10.244.169.64/26")
    network["vms103"].route("10.244.169.64/26", kind=RouteKind.BLACKHOLE)
    fault = first(network)
    assert "the longest prefix that covers it is a blackhole, 10.244.169.64/26" in fault.sentence
    assert (
        line(fault, "seen elsewhere").value
        == "vms105 has: blackhole 10.244.169.64/26 proto podwire"
    )
    told = next(each for each in FAULTS if each.name == "blackhole-covers-pod").description
    assert "borrowed" not in told
    assert "blackhole" in told


def test_a_rule_of_routing_is_named_as_one() -> None:
    network = story()
    network["vms103"].rules.insert(1, Rule(family=4, priority=100, table=0, action="prohibit"))
    cold = first(network)
    assert "and a prohibit route or rule covers it" in cold.sentence
    network["web-0"].neighbour("eth0", "169.254.1.1", "ee:ee:ee:ee:ee:ee")
    fault = first(network)
    assert fault.sentence.endswith("ip rule 100: from all prohibit")
    assert line(fault, "ip rule").value == "100: from all prohibit"
    assert fixed(fault) == "ip rule del priority 100"


def test_an_absent_neighbour_is_shown_as_absent() -> None:
    network = story()
    mac = str(network["vms105"].links["vxlan.calico"].mac)
    network["vms103"].neighbours.pop(0)
    found = line(first(network), "neighbour 10.244.169.64 dev vxlan.calico")
    assert (found.kind, found.value, found.expected) == ("neigh", None, f"lladdr {mac}")


def test_an_absent_forwarding_entry_is_shown_as_absent() -> None:
    network = story()
    mac = str(network["vms105"].links["vxlan.calico"].mac)
    network["vms103"].fdb.clear()
    fault = first(network)
    found = line(fault, f"fdb {mac} dev vxlan.calico")
    assert (found.kind, found.value, found.expected) == ("fdb", None, "dst 192.168.26.105")
    assert f"fdb {mac} dev vxlan.calico = none  (expected:" in render(proven(network), Style())


def test_a_wrong_forwarding_entry_is_shown_beside_the_right_one() -> None:
    network = story()
    [entry] = network["vms103"].fdb
    dead = type(entry.destination)("192.168.26.77")  # type: ignore[misc]
    network["vms103"].fdb = [replace(entry, destination=dead)]
    found = line(first(network), f"fdb {entry.mac} dev vxlan.calico")
    assert (found.value, found.expected) == ("dst 192.168.26.77", "dst 192.168.26.105")


def test_an_address_that_is_gone_is_not_shown_as_there() -> None:
    network = story()
    network["db-0"].addresses.clear()
    network["db-0"].routes = []
    fault = first(network)
    assert [(each.key, each.value) for each in fault.evidence] == [("10.244.169.66 dev eth0", None)]


def test_pieces_of_a_tunnel_are_counted_and_can_be_avoided() -> None:
    network = story()
    for name in ("vms103", "vms105"):
        network[name].change("ens32", mtu=1400)
    trace = proven(network, Flow(size=1450))
    assert {each.where.netns for each in trace.faults} == {"vms103", "vms105"}
    for fault in trace.faults:
        assert fixed(fault) == "ip link set vxlan.calico mtu 1350"
    text = render(trace, Style())
    assert "pieces" in text
    assert "+-" not in text
    assert "  note" not in text


def test_the_programs_of_a_sender_are_told_at_once() -> None:
    network = story()
    network["web-0"].unroute("0.0.0.0/0")
    text = " ".join(render(proven(network), Style()).split())
    assert "; its ✘ program is told at once" in text
    assert "silently" not in text


@pytest.mark.parametrize("cached", [False, True])
def test_a_late_proxy_is_told_of_whether_it_is_waited_for_now_or_later(cached: bool) -> None:
    network = story()
    network["vms103"].sysctls["ipv4.neigh/caliweb-0/proxy_delay"] = "80"
    if cached:
        network["web-0"].neighbour("eth0", "169.254.1.1", "ee:ee:ee:ee:ee:ee", NUD_REACHABLE)
    fault = first(network)
    assert (fault.id, fault.severity) == ("arp.proxy-delay", "warning")
    assert fixed(fault) == "sysctl -w net/ipv4/neigh/caliweb-0/proxy_delay=0"


def test_a_route_that_a_proxy_lacks_is_shown_as_absent() -> None:
    network = story()
    network["vms103"].unroute("0.0.0.0/0")
    found = line(first(network), "route to 169.254.1.1")
    assert (found.ns, found.value) == ("vms103", None)
