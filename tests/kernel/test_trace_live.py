"""Live traces of broken networks: faults by name, fixes that work."""

from __future__ import annotations

import subprocess

import pytest

from podwire.cli.trace_live import Wish, trace_live
from podwire.trace.flow import Flow
from podwire.trace.report import Style, render
from podwire.trace.schema import Disposition, Fault, Trace
from tests.kernel.trace_network import MACS, build, run, sysctl

WEB, DB = "demo/web-0", "demo/db-0"


def traced() -> Trace:
    return trace_live(Wish(source=WEB, destination=DB, flow=Flow()))


SWALLOW = "ip -n vms105 route del 10.244.169.66\nip -n vms105 route del blackhole 10.244.169.64/26"
BLOCK = "10.244.169.64/26"
CHAIN = "nft -- add chain ip t c {type filter hook forward priority 0;policy accept;}"
DENY = "\n".join(
    f"ip netns exec vms105 {line}"
    for line in ("nft -- add table ip t", CHAIN, "nft add rule ip t c ip protocol icmp drop")
)
CLOSE = "\n".join(
    f"ip netns exec vms105 {line}"
    for line in ("nft -- add table ip t", CHAIN.replace("accept", "drop"))
)
STRICT = (
    "sysctl vms105 net/ipv4/conf/vxlan.calico/rp_filter 1\nip -n vms105 route del 10.244.38.128/26"
)
FAULTS = {
    1: ("ip -n web-0 route del default", WEB, "route.pod-default-missing"),
    3: ("sysctl vms103 net/ipv4/conf/caliweb-0/proxy_arp 0", "vms103", "arp.proxy-off"),
    4: ("ip -n vms103 route del default", "vms103", "arp.no-route"),
    5: ("sysctl vms103 net/ipv4/conf/caliweb-0/forwarding 0", "vms103", "arp.forwarding-off"),
    9: ("ip -n vms103 link set caliweb-0 down", "vms103", "link.down"),
    11: ("ip -n db-0 addr flush dev eth0", DB, "pod.address-missing"),
    12: ("sysctl vms103 net/ipv4/ip_forward 0", "vms103", "forwarding.off"),
    14: (f"ip -n vms103 route del {BLOCK}", "vms103", "route.missing-block-route"),
    15: (f"ip -n vms103 route replace blackhole {BLOCK}", "vms103", "route.blackhole"),
    16: (f"ip -n vms103 route replace unreachable {BLOCK}", "vms103", "route.refusing"),
    18: ("ip -n vms103 route del 10.244.38.174", "vms103", "rpf.failed"),
    22: (CLOSE, "vms105", "policy.denied"),
    50: (DENY, "vms105", "policy.denied"),
    28: (
        "ip -n vms103 neigh del 10.244.169.64 dev vxlan.calico",
        "vms103",
        "neighbour.vtep-missing",
    ),
    29: (
        f"bridge -n vms103 fdb del {MACS['vms105']} dev vxlan.calico self",
        "vms103",
        "fdb.missing",
    ),
    30: (
        f"bridge -n vms103 fdb replace {MACS['vms105']} dev vxlan.calico dst 192.168.26.77 self",
        "vms103",
        "tunnel.wrong-node",
    ),
    44: (SWALLOW, "vms105", "route.missing-host-route"),
    45: ("ip -n vms105 route del 10.244.169.66", "vms105", "route.missing-host-route"),
    46: (STRICT, "vms105", "rpf.failed"),
    47: (
        "sysctl vms105 net/ipv4/conf/vxlan.calico/forwarding 0",
        "vms105",
        "forwarding.off-interface",
    ),
    49: ("ip -n db-0 link set eth0 down", DB, "link.down"),
    52: ("sysctl db-0 net/ipv4/icmp_echo_ignore_all 1", DB, "pod.ignores-ping"),
    53: ("ip -n db-0 route del default", DB, "route.pod-default-missing"),
}  # fmt: skip
"""By number of the catalogue: how to break it, where it is, what it is called."""


def inject(text: str) -> None:
    for line in text.splitlines():
        words = line.split()
        if words[0] == "sysctl":
            sysctl(words[1], words[2], int(words[3]))
        else:
            run(line)


def repair(fault: Fault) -> None:
    """Run the printed fix where the report says."""
    assert fault.fix is not None
    assert fault.fix.command is not None, fault
    place = str(fault.where.netns).rpartition("/")[2]
    subprocess.run(["ip", "netns", "exec", place, "sh", "-ec", fault.fix.command], check=True)


@pytest.mark.parametrize("number", FAULTS)
def test_an_injected_fault_is_named_for_certain_and_its_fix_works(number: int) -> None:
    how, place, identity = FAULTS[number]
    build("vxlan")
    inject(how)
    trace = traced()
    text = render(trace, Style())
    named = [(each.id, each.where.netns) for each in trace.faults if each.confidence == "certain"]
    assert named == [(identity, place)], text
    assert trace.disposition.exit_code == 1, text
    first = trace.faults[0]
    assert first.confidence == "certain"
    assert first.number == number, text
    for fault in trace.faults:
        repair(fault)
        assert fault.fix is not None
        assert fault.fix.verified_by == "counterproof", text
    healed = traced()
    assert healed.disposition is Disposition.DELIVERED_AND_ANSWERED, render(healed, Style())
    assert not [each for each in healed.faults if each.severity == "error"]
