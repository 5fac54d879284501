"""Faults for the network of `trace_network`: how to break it, where that is, what it is called."""

from __future__ import annotations

from typing import NamedTuple

from tests.kernel.trace_network import MACS, run, sysctl

WEB, DB = "demo/web-0", "demo/db-0"
BLOCK, OTHER_BLOCK = "10.244.169.64/26", "10.244.38.128/26"
CHAIN = "nft -- add chain ip t c {type filter hook forward priority 0;policy accept;}"
VTEP = f"{MACS['vms105']} dev vxlan.calico"


class Fault(NamedTuple):
    place: str
    identity: str
    how: tuple[str, ...]
    """Lines of words; `sysctl NAMESPACE NAME VALUE` writes a setting."""


def _inside(namespace: str, *lines: str) -> tuple[str, ...]:
    return tuple(f"ip netns exec {namespace} {line}" for line in lines)


FAULTS = {
    1: Fault(WEB, "route.pod-default-missing", ("ip -n web-0 route del default",)),
    3: Fault("vms103", "arp.proxy-off", ("sysctl vms103 net/ipv4/conf/caliweb-0/proxy_arp 0",)),
    4: Fault("vms103", "arp.no-route", ("ip -n vms103 route del default",)),
    5: Fault(
        "vms103", "arp.forwarding-off", ("sysctl vms103 net/ipv4/conf/caliweb-0/forwarding 0",)
    ),
    9: Fault("vms103", "link.down", ("ip -n vms103 link set caliweb-0 down",)),
    11: Fault(DB, "pod.address-missing", ("ip -n db-0 addr flush dev eth0",)),
    12: Fault("vms103", "forwarding.off", ("sysctl vms103 net/ipv4/ip_forward 0",)),
    14: Fault("vms103", "route.missing-block-route", (f"ip -n vms103 route del {BLOCK}",)),
    15: Fault("vms103", "route.blackhole", (f"ip -n vms103 route replace blackhole {BLOCK}",)),
    16: Fault("vms103", "route.refusing", (f"ip -n vms103 route replace unreachable {BLOCK}",)),
    18: Fault("vms103", "rpf.failed", ("ip -n vms103 route del 10.244.38.174",)),
    22: Fault(
        "vms105",
        "policy.denied",
        _inside("vms105", "nft -- add table ip t", CHAIN.replace("accept", "drop")),
    ),
    28: Fault(
        "vms103",
        "neighbour.vtep-missing",
        ("ip -n vms103 neigh del 10.244.169.64 dev vxlan.calico",),
    ),
    29: Fault("vms103", "fdb.missing", (f"bridge -n vms103 fdb del {VTEP} self",)),
    30: Fault(
        "vms103",
        "tunnel.wrong-node",
        (f"bridge -n vms103 fdb replace {VTEP} dst 192.168.26.77 self",),
    ),
    44: Fault(
        "vms105",
        "route.missing-host-route",
        ("ip -n vms105 route del 10.244.169.66", f"ip -n vms105 route del blackhole {BLOCK}"),
    ),
    45: Fault("vms105", "route.missing-host-route", ("ip -n vms105 route del 10.244.169.66",)),
    46: Fault(
        "vms105",
        "rpf.failed",
        (
            "sysctl vms105 net/ipv4/conf/vxlan.calico/rp_filter 1",
            f"ip -n vms105 route del {OTHER_BLOCK}",
        ),
    ),
    47: Fault(
        "vms105",
        "forwarding.off-interface",
        ("sysctl vms105 net/ipv4/conf/vxlan.calico/forwarding 0",),
    ),
    49: Fault(DB, "link.down", ("ip -n db-0 link set eth0 down",)),
    50: Fault(
        "vms105",
        "policy.denied",
        _inside(
            "vms105", "nft -- add table ip t", CHAIN, "nft add rule ip t c ip protocol icmp drop"
        ),
    ),
    52: Fault(DB, "pod.ignores-ping", ("sysctl db-0 net/ipv4/icmp_echo_ignore_all 1",)),
    53: Fault(DB, "route.pod-default-missing", ("ip -n db-0 route del default",)),
}
"""By number of the catalogue."""


def inject(fault: Fault) -> None:
    for line in fault.how:
        words = line.split()
        if words[0] == "sysctl":
            sysctl(words[1], words[2], int(words[3]))
        else:
            run(line)
