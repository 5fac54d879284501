"""Observing through tunl0, whose frames have no Ethernet header."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwire.drivers.capture.observe import Limits
from podwire.trace.flow import Flow, Protocol
from podwire.trace.observation import Role
from tests.kernel.capture_network import WAY, back, network
from tests.kernel.trace_network import NODES, run

WITHOUT = "needs a kernel with IPIP (scripts/with-ipip-kernel has one)"


@pytest.mark.parametrize("size", [60, 1480])
@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.TCP])
def test_every_place_is_seen_in_both_directions(size: int, protocol: Protocol) -> None:
    with network("none") as net:
        if not Path("/proc/sys/net/ipv4/conf/tunl0").exists():
            pytest.skip(WITHOUT)
        for name, other in (("vms103", "vms105"), ("vms105", "vms103")):
            there, block = NODES[other]
            run(f"ip -n {name} addr add {NODES[name][1]}/32 dev tunl0")
            run(f"ip -n {name} link set tunl0 up")
            run(f"ip -n {name} route replace {block}/26 via {there} dev tunl0 onlink")
        port = None if protocol is Protocol.ICMP else 8080
        flow = Flow(protocol=protocol, port=port, size=size, df=True)
        seen = net.observe(flow=flow, limits=Limits(interval_s=20, timeout_s=20))
    way = WAY["vxlan"].replace("vxlan.calico", "tunl0")
    assert net.ways(seen, Role.REQUEST) == [way] * 3
    assert net.ways(seen, Role.REPLY) == [back(way)] * 3
    assert seen.trustworthy
    outer = seen.spots(Role.REQUEST, 0)[3].first.packet
    assert outer is not None
    assert (outer.protocol, str(outer.source)) == (Protocol.IPIP, NODES["vms103"][0])
    assert outer.inner is not None
    assert outer.inner.length == size
