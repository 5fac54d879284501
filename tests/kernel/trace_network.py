"""Two nodes, a switch with a gateway and three pods, in real namespaces, built with `ip` alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = {
    "vms103": ("192.168.26.103", "10.244.38.128"),
    "vms105": ("192.168.26.105", "10.244.169.64"),
}
PODS = {
    "web-0": ("vms103", "10.244.38.174"),
    "web-1": ("vms103", "10.244.38.175"),
    "db-0": ("vms105", "10.244.169.66"),
}
MACS = {"vms103": "66:00:00:00:01:03", "vms105": "66:00:00:00:01:05"}


def run(command: str, *, check: bool = True) -> str:
    """Run a line of words; its standard output."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def sysctl(namespace: str, name: str, value: int) -> None:
    run(f"ip netns exec {namespace} sysctl -qw {name}={value}")


def build(encapsulation: str) -> None:
    """Make it all, in one shell: starting a program a hundred times from Python takes seconds."""
    lines = [*_fabric(), *_pods(1450 if encapsulation == "vxlan" else 1500)]
    for name in NODES:
        lines += _block_route(name, next(each for each in NODES if each != name), encapsulation)
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)


def _fabric() -> Iterator[str]:
    for name in ("underlay", *NODES):
        yield f"ip netns add {name}"
        yield f"ip -n {name} link set lo up"
        yield f"ip netns exec {name} sysctl -qw net/ipv4/ip_forward=1"
    yield "ip -n underlay link add br0 type bridge"
    yield "ip -n underlay addr add 192.168.26.2/24 dev br0"
    yield "ip -n underlay link set br0 up"
    for name, (address, tunnel) in NODES.items():
        yield f"ip -n {name} link add ens32 type veth peer name {name} netns underlay"
        yield f"ip -n underlay link set {name} master br0 up"
        yield f"ip -n {name} addr add {address}/24 dev ens32"
        yield f"ip -n {name} link set ens32 up"
        yield f"ip -n {name} route add default via 192.168.26.2"
        yield f"ip -n {name} route add blackhole {tunnel}/26 proto 80"


def _block_route(name: str, other: str, encapsulation: str) -> Iterator[str]:
    (local, tunnel), (there, remote) = NODES[name], NODES[other]
    if encapsulation == "none":
        yield f"ip -n {name} route add {remote}/26 via {there} dev ens32 proto 80"
        return
    yield (
        f"ip -n {name} link add vxlan.calico address {MACS[name]} mtu 1450 type vxlan id 4096 "
        f"dstport 4789 local {local} dev ens32 nolearning"
    )
    yield f"ip -n {name} addr add {tunnel}/32 dev vxlan.calico"
    yield f"ip -n {name} link set vxlan.calico up"
    yield f"ip -n {name} neigh replace {remote} dev vxlan.calico lladdr {MACS[other]} nud permanent"
    yield f"bridge -n {name} fdb add {MACS[other]} dev vxlan.calico dst {there} self permanent"
    yield f"ip -n {name} route add {remote}/26 via {remote} dev vxlan.calico onlink proto 80"


def _pods(mtu: int) -> Iterator[str]:
    for number, (pod, (node, address)) in enumerate(PODS.items(), start=1):
        host, mac = f"cali{pod}", f"02:00:00:00:00:{number:02x}"
        yield f"ip netns add {pod}"
        yield f"ip -n {pod} link set lo up"
        yield f"ip -n {node} link add {host} type veth peer name eth0 address {mac} netns {pod}"
        yield f"ip -n {node} link set {host} address ee:ee:ee:ee:ee:ee mtu {mtu} up"
        yield f"ip -n {node} link set {host} alias 'podwire id{pod} demo/{pod} eth0'"
        yield f"ip -n {pod} link set eth0 mtu {mtu} up"
        yield f"ip -n {pod} addr add {address}/32 dev eth0"
        yield f"ip -n {pod} route add 169.254.1.1 dev eth0 scope link"
        yield f"ip -n {pod} route add default via 169.254.1.1 dev eth0"
        conf = f"net/ipv4/conf/{host}"
        yield (
            f"ip netns exec {node} sysctl -qw {conf}/proxy_arp=1 {conf}/rp_filter=1 "
            f"net/ipv4/neigh/{host}/proxy_delay=0"
        )
        yield f"ip -n {node} route add {address} dev {host} scope link proto 80"
        yield f"ip -n {node} neigh replace {address} dev {host} lladdr {mac} nud permanent"


def ping(source: str, address: str, options: str = "") -> bool:
    """Whether one packet and its answer arrive."""
    command = f"ip netns exec {source} ping -c 1 -W 0.5 {options} {address}"
    return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0
