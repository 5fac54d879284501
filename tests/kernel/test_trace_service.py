"""A service's address, translated where a packet is made and where it comes in."""

from __future__ import annotations

import subprocess

import pytest

from podwire.trace.flow import Flow, Protocol
from tests.kernel.test_trace_bridges import OPEN, as_predicted, served, traced
from tests.kernel.trace_network import PODS, build

SERVICE, PORT = "10.96.0.10", 80
RULES = f"""
for node in vms103 vms105; do
  ip netns exec $node nft -f - <<'END'
table ip service {{
  chain back {{
    ip daddr {SERVICE} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {PODS["db-0"][1]}:{OPEN}
    ip daddr {SERVICE} icmp type echo-request dnat to {PODS["db-0"][1]}
  }}
  chain here {{ type nat hook output priority -100; jump back; }}
  chain coming {{ type nat hook prerouting priority -100; jump back; }}
  chain leaving {{
    type nat hook postrouting priority 100
    ip saddr {PODS["db-0"][1]} ip daddr {PODS["db-0"][1]} masquerade
  }}
}}
END
done
"""
FLOWS = (
    Flow(),
    Flow(protocol=Protocol.TCP, port=PORT),
    Flow(protocol=Protocol.UDP, port=PORT),
)
SENDERS = {"pod": "demo/web-0", "node": "vms103", "its-own-node": "vms105", "hairpin": "demo/db-0"}


@pytest.mark.parametrize("encapsulation", ["none", "vxlan"])
def test_a_service_is_seen_as_predicted_from_everywhere(encapsulation: str) -> None:
    build(encapsulation)
    subprocess.run(["sh", "-ec", RULES], check=True)
    with served("db-0"):
        for sender in SENDERS.values():
            for flow in FLOWS:
                as_predicted(traced(sender, SERVICE, flow))
