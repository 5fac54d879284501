"""iptables of both kinds, read from a kernel: what its rules do is what ping meets."""

from __future__ import annotations

import shutil

import pytest

from podwire.drivers.collect import collect_all
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition, Trace
from tests.kernel.trace_network import PODS, build, ping, run

WEB, DB = "demo/web-0", "demo/db-0"
DROPS = "FORWARD -m addrtype --src-type UNICAST -d 10.244.0.0/16 -m comment --comment no -j DROP"
SPARES = "FORWARD -m addrtype --src-type LOCAL -d 10.244.0.0/16 -j DROP"


def traced() -> Trace:
    return predict(collect_all(), WEB, DB)


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_rules_of_iptables_decide(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    build("none")
    run(f"ip netns exec vms105 {program} -A {SPARES}")
    assert traced().disposition is Disposition.DELIVERED_AND_ANSWERED
    assert ping("web-0", PODS["db-0"][1])
    run(f"ip netns exec vms105 {program} -A {DROPS}")
    trace = traced()
    assert trace.disposition is Disposition.DENIED, trace.summary
    assert not ping("web-0", PODS["db-0"][1])


def test_a_masqueraded_connection_is_read_back_from_the_kernel() -> None:
    build("none")
    run("ip netns exec vms103 nft -- add table ip n")
    run("ip netns exec vms103 nft -- add chain ip n p {type nat hook postrouting priority 100;}")
    run("ip netns exec vms103 nft -- add rule ip n p oifname ens32 masquerade")
    trace = traced()
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED, trace.summary
    arrived = trace.paths[0].arrived
    assert arrived is not None
    assert str(arrived.source) == "192.168.26.103"
    assert ping("web-0", PODS["db-0"][1])
    state = next(each for each in collect_all() if each.namespace.name == "vms103")
    lines = getattr(state.conntrack, "value", ())
    assert any("dst=192.168.26.103" in line for line in lines), state.conntrack
