"""Rule sets as people have them: how much of each is modelled, and what they do with packets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podwire.model.kernelstate import Read
from podwire.trace.flow import Flow, Protocol
from podwire.trace.iptables import parse, parse_sets
from podwire.trace.modelled import unmodelled
from podwire.trace.predict import predict
from podwire.trace.schema import Direction, Disposition, Trace
from tests.fakes.drawn_network import Network, story

HERE = Path(__file__).parent / "rulesets"
PAGE = Path(__file__).parents[2] / "docs" / "trace-model.md"
NAMES = {
    "kube-proxy.json": "kube-proxy, nftables",
    "kube-proxy.iptables": "kube-proxy, iptables",
    "docker.iptables": "a container engine with a bridge, iptables",
    "calico.iptables": "Calico's agent, iptables with ipset",
}


def text(name: str) -> str:
    return (HERE / name).read_text()


def rules(name: str) -> list[dict[str, Any]]:
    if name.endswith(".json"):
        entries = json.loads(text(name))["nftables"]
    else:
        entries = parse(text(name), parse_sets(text("calico.ipset")))
    return [entry["rule"] for entry in entries if "rule" in entry]


def share(name: str) -> str:
    """One row of the page's table."""
    found = [unmodelled(rule) for rule in rules(name)]
    covered = sum(not each for each in found)
    beyond = sorted(set().union(*found))
    percent = 100 * covered // len(found)
    told = ", ".join(f"`{each}`" for each in beyond) or "none"
    return f"| {NAMES[name]} | {covered} of {len(found)} | {percent} % | {told} |"


def test_the_page_tells_the_share_of_rules_that_are_modelled() -> None:
    page = PAGE.read_text()
    for name in NAMES:
        assert share(name) in page


def traced(network: Network, source: str, target: str, flow: Flow | None = None) -> Trace:
    return predict(network.states(), source, target, flow)


def service(
    form: str, port: int = 80, address: str = "10.96.0.20", source: str = "demo/web-0"
) -> Trace:
    network = story("none")
    node = network["vms103"]
    if form == "nft":
        node.nft = json.loads(text("kube-proxy.json"))["nftables"]
    else:
        node.missing["iptables_legacy"] = Read(text("kube-proxy.iptables"))
    for pod in ("web-1", "db-0"):
        network[pod].sockets = ["tcp 0.0.0.0 80", "udp 0.0.0.0 53"]
    protocol = Protocol.UDP if port == 53 else Protocol.TCP
    return traced(network, source, address, Flow(protocol=protocol, port=port))


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_a_service_leads_to_each_of_its_pods_and_back(form: str) -> None:
    trace = service(form)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    there = [path for path in trace.paths if path.direction is Direction.FORWARD]
    back = [path for path in trace.paths if path.direction is Direction.RETURN]
    assert {str(path.arrived.destination) for path in there if path.arrived} == {
        "10.244.38.175",
        "10.244.169.66",
    }
    assert {str(path.arrived.source) for path in back if path.arrived} == {"10.96.0.20"}


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_a_service_without_pods_is_refused(form: str) -> None:
    trace = service(form, address="10.96.0.30")
    assert trace.disposition is Disposition.REJECTED, trace.summary


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_a_pod_that_is_its_own_backend_is_masqueraded(form: str) -> None:
    trace = service(form, source="demo/web-1")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    arrived = [path.arrived for path in trace.paths if path.direction is Direction.FORWARD]
    sources = {
        str(each.source) for each in arrived if each and str(each.destination).endswith("175")
    }
    assert sources == {"192.168.26.103"}


@pytest.mark.parametrize(
    ("flow", "disposition"),
    [
        (Flow(protocol=Protocol.TCP, port=80), Disposition.DENIED),
        (Flow(protocol=Protocol.UDP, port=4789), Disposition.DENIED),
    ],
)
def test_calicos_chains_decide(flow: Flow, disposition: Disposition) -> None:
    network = story("none")
    network["vms103"].missing["iptables_legacy"] = Read(text("calico.iptables"))
    network["vms103"].missing["ipsets"] = Read(text("calico.ipset"))
    trace = traced(network, "demo/db-0", "demo/web-0", flow)
    assert trace.disposition is disposition, trace.summary


def test_a_pod_goes_out_through_calicos_chains() -> None:
    network = story("none")
    network["vms103"].missing["iptables_legacy"] = Read(text("calico.iptables"))
    network["vms103"].missing["ipsets"] = Read(text("calico.ipset"))
    trace = traced(network, "demo/web-0", "demo/db-0")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary


def dockers() -> Network:
    """A host with a bridge, two containers, and a server in the world."""
    network = Network()
    host = network.namespace("host", forward=True)
    world = network.namespace("world")
    network.cable(host, "eth0", world, "eth0")
    host.address("eth0", "192.0.2.1/24")
    world.address("eth0", "192.0.2.9/24")
    for number in (2, 3):
        box = network.namespace(f"box{number}")
        network.cable(host, f"veth{number}", box, "eth0")
        box.address("eth0", f"172.17.0.{number}/16")
        box.route("0.0.0.0/0", via="172.17.0.1", dev="eth0", protocol=3)
    network.bridge(host, "docker0", "veth2", "veth3")
    host.address("docker0", "172.17.0.1/16")
    host.forward()
    host.missing["iptables_legacy"] = Read(text("docker.iptables"))
    return network


def test_a_container_reaches_the_world_under_its_hosts_address() -> None:
    network = dockers()
    trace = traced(network, "box2", "192.0.2.9")
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    arrived = trace.paths[0].arrived
    assert arrived is not None
    assert str(arrived.source) == "192.0.2.1"


def test_a_published_port_leads_into_the_container() -> None:
    network = dockers()
    network["box2"].sockets = ["tcp 0.0.0.0 80"]
    trace = traced(network, "world", "192.0.2.1", Flow(protocol=Protocol.TCP, port=8080))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    arrived = trace.paths[0].arrived
    assert arrived is not None
    assert (str(arrived.destination), arrived.destination_port) == ("172.17.0.2", 80)


def test_a_container_without_a_published_port_is_closed_to_the_world() -> None:
    network = dockers()
    network["world"].route("172.17.0.0/16", via="192.0.2.1", dev="eth0")
    trace = traced(network, "world", "172.17.0.2")
    assert trace.disposition is Disposition.DENIED, trace.summary
