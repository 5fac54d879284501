"""Traces of real namespaces: what is predicted is what ping meets."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from podwire.cli.trace import trace as command
from podwire.drivers.collect import collect_all
from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition, Trace
from tests.kernel.trace_network import NODES, PODS, build, ping, run

WEB, DB = "demo/web-0", "demo/db-0"
DB_ADDRESS = PODS["db-0"][1]


def traced(source: str = WEB, destination: str = DB, flow: Flow | None = None) -> Trace:
    return predict(collect_all(), source, destination, flow)


@pytest.mark.parametrize("encapsulation", ["vxlan", "none"])
def test_all_pairs_are_predicted_as_ping_finds_them(encapsulation: str) -> None:
    build(encapsulation)
    ends = {**{pod: address for pod, (_, address) in PODS.items()},
            **{node: address for node, (address, _) in NODES.items()}}  # fmt: skip
    states = collect_all()
    for source in ends:
        for destination, address in ends.items():
            trace = predict(states, source, destination)
            assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
            assert trace.faults == ()
            assert ping(source, address), (source, destination)


HOOK = "{type filter hook forward priority 0;policy drop;}"


def test_the_fix_of_a_missing_route_makes_it_whole() -> None:
    build("vxlan")
    run("ip -n vms103 route del 10.244.169.64/26")
    fix = traced().faults[0].fix
    assert fix is not None
    assert fix.command is not None
    run(fix.command.replace("ip route", "ip -n vms103 route"))
    assert traced().disposition is Disposition.DELIVERED_AND_ANSWERED
    assert ping("web-0", DB_ADDRESS)


def test_a_missing_link_route_in_the_pod_is_no_fault() -> None:
    build("vxlan")
    run("ip -n web-0 route del 169.254.1.1 dev eth0")
    trace = traced()
    assert ping("web-0", DB_ADDRESS)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED
    assert trace.faults == ()


@pytest.mark.parametrize("size", [1450, 1451])
def test_the_path_mtu_is_the_kernels(size: int) -> None:
    build("vxlan")
    trace = traced(flow=Flow(size=size, df=True))
    passes = ping("web-0", DB_ADDRESS, f"-s {size - 28} -M do")
    assert (trace.disposition is Disposition.DELIVERED_AND_ANSWERED) is passes


def test_an_accepting_firewall_is_seen_through() -> None:
    build("vxlan")
    run("ip netns exec vms105 nft -- add table inet t")
    run(f"ip netns exec vms105 nft -- add chain inet t c {HOOK}")
    run("ip netns exec vms105 nft -- add rule inet t c ct state established,related accept")
    run("ip netns exec vms105 nft -- add rule inet t c oifname cali* accept")
    trace = traced()
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    assert ping("web-0", DB_ADDRESS)


def test_a_bridge_network_without_us_is_followed() -> None:
    run("ip netns add host")
    run("ip -n host link add docker0 type bridge")
    run("ip -n host addr add 172.17.0.1/16 dev docker0")
    run("ip -n host link set docker0 up")
    for number in (2, 3):
        run(f"ip netns add box{number}")
        run(f"ip -n host link add veth{number} type veth peer name eth0 netns box{number}")
        run(f"ip -n host link set veth{number} master docker0 up")
        run(f"ip -n box{number} addr add 172.17.0.{number}/16 dev eth0")
        run(f"ip -n box{number} link set eth0 up")
        run(f"ip -n box{number} route add default via 172.17.0.1")
    assert traced("box2", "box3").disposition is Disposition.DELIVERED_AND_ANSWERED
    assert ping("box2", "172.17.0.3")
    trace = traced("box2", "8.8.8.8")
    assert trace.disposition.exit_code == 1


def test_the_command_speaks_json_and_exit_codes() -> None:
    build("vxlan")
    good = CliRunner().invoke(command, [WEB, DB, "-o", "json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.output)["result"]["disposition"] == "DELIVERED_AND_ANSWERED"
    closed = CliRunner().invoke(command, [WEB, DB, "--tcp", "5432", "-q"])
    assert closed.exit_code == 1
    assert "DELIVERED_NO_ANSWER" in closed.output
    unknown = CliRunner().invoke(command, [WEB, "demo/db-1"])
    assert unknown.exit_code == 64
    assert "demo/db-0" in unknown.output
