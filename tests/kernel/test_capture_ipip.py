"""Observing through tunl0, whose frames have no Ethernet header."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from podwire.drivers.capture.observe import Limits
from podwire.trace.flow import Flow, Protocol
from podwire.trace.observation import Role
from tests.kernel.capture_network import WAY, back, network
from tests.kernel.trace_network import NODES

WITHOUT = "needs a kernel with IPIP (scripts/with-ipip-kernel has one)"
TUNNEL = Path("/proc/sys/net/ipv4/conf/tunl0")


def test_every_place_is_seen_in_both_directions_with_ipip() -> None:
    if not TUNNEL.exists():
        pytest.skip(WITHOUT)
    way = WAY["vxlan"].replace("vxlan.calico", "tunl0")
    with network("ipip") as net:
        for protocol, size in product((Protocol.ICMP, Protocol.TCP), (60, 1480)):
            port = None if protocol is Protocol.ICMP else 8080
            flow = Flow(protocol=protocol, port=port, size=size, df=True)
            seen = net.observe(flow=flow, limits=Limits(interval_s=20, timeout_s=20))
            assert net.ways(seen, Role.REQUEST) == [way] * 3, flow
            assert net.ways(seen, Role.REPLY) == [back(way)] * 3, flow
            assert seen.trustworthy
            outer = seen.spots(Role.REQUEST, 0)[3].first.packet
            assert outer is not None
            assert (outer.protocol, str(outer.source)) == (Protocol.IPIP, NODES["vms103"][0])
            assert outer.inner is not None
            assert outer.inner.length == size
