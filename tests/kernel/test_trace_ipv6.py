"""IPv6 over the two-node network: what is predicted is what ping meets."""

from __future__ import annotations

import subprocess

import pytest

from podwire.drivers.collect import collect_all
from podwire.drivers.lookup import ask_kernels
from podwire.trace.kernelanswer import differences
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition, Trace
from podwire.trace.world import World
from tests.kernel.trace_network import NODES, PODS, build, ping, run, sysctl

UNDERLAY = {"vms103": "fd26::103", "vms105": "fd26::105"}
BLOCKS = {"vms103": "fd44:38::/122", "vms105": "fd44:169::/122"}
ADDRESSES = {"web-0": "fd44:38::4", "web-1": "fd44:38::5", "db-0": "fd44:169::4"}
GATEWAY = "fe80::ecee:eeff:feee:eeee"


def build6() -> None:
    build("none")
    lines = []
    for name in NODES:
        other = next(each for each in NODES if each != name)
        lines += [
            f"ip netns exec {name} sysctl -qw net/ipv6/conf/all/forwarding=1",
            f"ip -n {name} addr add {UNDERLAY[name]}/64 dev ens32 nodad",
            f"ip -n {name} route add {BLOCKS[other]} via {UNDERLAY[other]} dev ens32 proto 80",
            f"ip -n {name} route add blackhole {BLOCKS[name]} proto 80",
        ]
    for number, (pod, (node, _)) in enumerate(PODS.items(), start=1):
        host = f"cali{pod}"
        lines += [
            f"ip -n {node} addr flush dev {host} scope link",
            f"ip -n {node} addr add {GATEWAY}/64 dev {host} nodad",
            f"ip -n {pod} addr flush dev eth0 scope link",
            f"ip -n {pod} addr add fe80::{number}/64 dev eth0 nodad",
            f"ip -n {pod} addr add {ADDRESSES[pod]}/128 dev eth0 nodad",
            f"ip -n {pod} route add default via {GATEWAY} dev eth0",
            f"ip -n {node} route add {ADDRESSES[pod]} dev {host} proto 80",
        ]
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)


def traced(source: str, destination: str) -> Trace:
    states = collect_all()
    trace = predict(states, source, destination)
    asked = ask_kernels(each for path in trace.paths for each in path.lookups)
    assert differences(World(states), asked) == ()
    assert all(answer.unasked is None for _, answer in asked)
    return trace


@pytest.mark.parametrize(
    ("source", "destination"),
    [("web-0", "web-1"), ("web-0", "db-0"), ("db-0", "web-1"), ("vms103", "db-0")],
)
def test_pods_and_nodes_reach_each_other(source: str, destination: str) -> None:
    build6()
    address = ADDRESSES[destination]
    trace = traced(source, address)
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    # The first answers of neighbour discovery may come late.
    assert any(ping(source, address) for _ in range(10))


FAULTS = {
    "forwarding": ("", Disposition.FORWARDING_OFF),
    "host route": (f"ip -n vms105 route del {ADDRESSES['db-0']}", Disposition.NULL_ROUTED),
    "block route": (f"ip -n vms103 route del {BLOCKS['vms105']}", Disposition.NO_ROUTE),
    "prohibit": (f"ip -n vms103 route replace prohibit {BLOCKS['vms105']}",
                 Disposition.ROUTE_UNREACHABLE),
    "pod address": (f"ip -n db-0 addr del {ADDRESSES['db-0']}/128 dev eth0",
                    Disposition.NEIGHBOR_FAILED),
    "pod default": ("ip -n web-0 -6 route del default", Disposition.NO_ROUTE),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_the_way_for_the_right_reason(name: str) -> None:
    build6()
    command, disposition = FAULTS[name]
    if command:
        run(command)
    else:
        sysctl("vms103", "net/ipv6/conf/all/forwarding", 0)
    trace = traced("web-0", ADDRESSES["db-0"])
    assert not ping("web-0", ADDRESSES["db-0"])
    assert trace.disposition is disposition, trace.summary
