"""Two nodes, a switch with a gateway and three pods, in real namespaces, built with `ip` alone.

```
 web-0 ─┐                      192.168.26.2            ┌─ db-0
 web-1 ─┴─ vms103 ─ .103 ─ br0 ─ underlay ─ br0 ─ .105 ─ vms105
                                     └─ br1 ─ 192.168.27.107 ─ vms107 ─ far-0      (if wanted)
```
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES = {
    "vms103": ("192.168.26.103", "10.244.38.128"),
    "vms105": ("192.168.26.105", "10.244.169.64"),
}
FAR_NODES = {"vms107": ("192.168.27.107", "10.244.70.0")}
"""In another subnet, behind the gateway."""
PODS = {
    "web-0": ("vms103", "10.244.38.174"),
    "web-1": ("vms103", "10.244.38.175"),
    "db-0": ("vms105", "10.244.169.66"),
}
FAR_PODS = {"far-0": ("vms107", "10.244.70.7")}
MACS = {
    "vms103": "66:00:00:00:01:03",
    "vms105": "66:00:00:00:01:05",
    "vms107": "66:00:00:00:01:07",
}
MTU = {"none": 1500, "ipip": 1480, "vxlan": 1450}
DEVICE = {"none": "ens32", "ipip": "tunl0", "vxlan": "vxlan.calico"}


def run(command: str, *, check: bool = True) -> str:
    """Run a line of words; its standard output."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def sysctl(namespace: str, name: str, value: int) -> None:
    run(f"ip netns exec {namespace} sysctl -qw {name}={value}")


def build(encapsulation: str, *, far: bool = False) -> None:
    """Make it all, in one shell and with few programs: a hundred of them take seconds to start,
    and many in user-mode Linux."""
    nodes = NODES | (FAR_NODES if far else {})
    plan = _Plan(encapsulation)
    for name, (address, tunnel) in nodes.items():
        plan.add_node(name, address, tunnel)
        for other, (there, block) in nodes.items():
            if other != name:
                plan.add_block_route(name, address, other, (there, block))
    plan.add_underlay(nodes)
    for number, (pod, place) in enumerate((PODS | (FAR_PODS if far else {})).items(), start=1):
        plan.add_pod(pod, number, *place)
    subprocess.run(["sh", "-e"], input=plan.script(), text=True, check=True)


class _Plan:
    """What is to be done in each namespace."""

    def __init__(self, encapsulation: str) -> None:
        self._encapsulation = encapsulation
        self._device = DEVICE[encapsulation]
        self._mtu = MTU[encapsulation]
        self._bridges: list[str] = []
        self._ip: defaultdict[str, list[str]] = defaultdict(list)
        self._fdb: defaultdict[str, list[str]] = defaultdict(list)
        self._sysctls: defaultdict[str, list[str]] = defaultdict(list)

    def script(self) -> str:
        """Namespaces and bridges first, then nodes: they make both ends of every cable.

        Bridges first, because both ends of a cable should have different numbers: with equal ones
        the kernel takes a second to notice that the other end is up (linkwatch_urgent_event).
        """
        lines = _batch("ip", [f"netns add {name}" for name in self._ip])
        lines += _batch("ip -n underlay", self._bridges)
        for name, commands in self._ip.items():
            lines += _batch(f"ip -n {name}", commands)
        for name, commands in self._fdb.items():
            lines += _batch(f"bridge -n {name}", commands)
        for name, settings in self._sysctls.items():
            lines.append(f"ip netns exec {name} sysctl -qw {' '.join(settings)}")
        return "\n".join(lines)

    def add_node(self, name: str, address: str, tunnel: str) -> None:
        self._sysctls[name].append("net/ipv4/ip_forward=1")
        self._ip[name] += [
            "link set lo up",
            f"link add ens32 type veth peer name {name} netns underlay",
            f"addr add {address}/24 dev ens32",
            "link set ens32 up",
            f"route add default via {_gateway(address)}",
            f"route add blackhole {tunnel}/26 proto 80",
        ]
        if self._encapsulation == "vxlan":
            self._ip[name].append(
                f"link add vxlan.calico address {MACS[name]} mtu 1450 type vxlan id 4096 "
                f"dstport 4789 local {address} dev ens32 nolearning"
            )
        if self._encapsulation != "none":
            self._ip[name] += [
                f"addr add {tunnel}/32 dev {self._device}",
                f"link set {self._device} up",
            ]

    def add_block_route(self, name: str, address: str, other: str, place: tuple[str, str]) -> None:
        there, block = place
        if self._encapsulation == "none":
            via = there if _gateway(there) == _gateway(address) else _gateway(address)
            self._ip[name].append(f"route add {block}/26 via {via} dev ens32 proto 80")
            return
        via = there
        if self._encapsulation == "vxlan":
            via, mac = block, MACS[other]
            self._ip[name].append(
                f"neigh replace {block} dev {self._device} lladdr {mac} nud permanent"
            )
            self._fdb[name].append(f"fdb add {mac} dev {self._device} dst {there} self permanent")
        self._ip[name].append(f"route add {block}/26 via {via} dev {self._device} onlink proto 80")

    def add_underlay(self, nodes: Mapping[str, tuple[str, str]]) -> None:
        """A bridge and gateway for each subnet; without tunnels it knows the far pods' way."""
        self._sysctls["underlay"].append("net/ipv4/ip_forward=1")
        commands = self._ip["underlay"]
        commands.append("link set lo up")
        gateways: dict[str, str] = {}
        for name, (address, block) in nodes.items():
            gateway = _gateway(address)
            if gateway not in gateways:
                bridge = gateways[gateway] = f"br{len(gateways)}"
                self._bridges.append(f"link add {bridge} type bridge")
                commands += [f"addr add {gateway}/24 dev {bridge}", f"link set {bridge} up"]
            commands.append(f"link set {name} master {gateways[gateway]} up")
            if self._encapsulation == "none" and nodes.keys() & FAR_NODES.keys():
                commands.append(f"route add {block}/26 via {address}")

    def add_pod(self, pod: str, number: int, node: str, address: str) -> None:
        host, mac = f"cali{pod}", f"02:00:00:00:00:{number:02x}"
        self._ip[node] += [
            f"link add {host} type veth peer name eth0 address {mac} netns {pod}",
            f"link set {host} address ee:ee:ee:ee:ee:ee mtu {self._mtu} up",
            f'link set {host} alias "podwire id{pod} demo/{pod} eth0"',
            f"route add {address} dev {host} scope link proto 80",
            f"neigh replace {address} dev {host} lladdr {mac} nud permanent",
        ]
        self._ip[pod] += [
            "link set lo up",
            f"link set eth0 mtu {self._mtu} up",
            f"addr add {address}/32 dev eth0",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
        ]
        conf = f"net/ipv4/conf/{host}"
        self._sysctls[node] += [
            f"{conf}/proxy_arp=1",
            f"{conf}/rp_filter=1",
            f"net/ipv4/neigh/{host}/proxy_delay=0",
        ]


def _batch(program: str, commands: list[str]) -> list[str]:
    return [f"{program} -batch - <<'END'", *commands, "END"]


def _gateway(address: str) -> str:
    return f"{address.rpartition('.')[0]}.2"


def ping(source: str, address: str, options: str = "") -> bool:
    """Whether one packet and its answer arrive."""
    command = f"ip netns exec {source} ping -c 1 -W 0.5 {options} {address}"
    return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0
