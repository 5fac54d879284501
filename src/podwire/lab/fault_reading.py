"""Reads from a running lab what faults are computed from, and runs commands in its namespaces."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.drivers import namespaces
from podwire.lab.fault_facts import Device, End, Facts, Impossible, Kernel, clean_route
from podwire.lab.topology import NODE_INTERFACE, UNDERLAY
from podwire.model.link import VXLAN_DEVICE
from podwire.model.pool import Encapsulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.lab.records import LabState

OPTIONAL_PROGRAMS = frozenset({"iptables-legacy"})
PATIENCE_S = 10.0
SETTINGS = Path("/proc/sys")
SINGLE_SETTINGS = ("net/ipv4/ip_forward", "net/ipv4/icmp_echo_ignore_all")
PER_DEVICE = "net/ipv4/neigh/*/proxy_delay"


def find_ends(state: LabState) -> tuple[End, ...]:
    """Pods that have a network."""
    return tuple(
        End(
            pod=record.title,
            node=record.node,
            ip=IPv4Address(record.ip),
            interface=record.pod_interface,
            host_interface=record.host_interface,
        )
        for record in (pod.record for pod in state.pods)
        if record.ip is not None and record.host_interface is not None
    )


def find_places(state: LabState) -> dict[str, Path]:
    """Namespaces by what people call them: nodes, pods, and the switch between the nodes."""
    named = Path(namespaces.NAMED_DIR)
    places = {name: named / name for name in (UNDERLAY, *(n.name for n in state.topology.nodes))}
    return places | {
        pod.record.title: Path(pod.record.netns) for pod in state.pods if pod.record.netns
    }


def read_facts(state: LabState, source: End, destination: End) -> Facts:
    """All about two pods and their nodes.

    Raises:
        Impossible: a namespace cannot be read.
    """
    places = find_places(state)
    wanted = sorted({source.pod, source.node, destination.pod, destination.node})
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        kernels = dict(
            zip(wanted, pool.map(lambda place: _read(place, places[place]), wanted), strict=True)
        )
    return Facts(
        encapsulation=_encapsulation(state, kernels[source.node], destination),
        source=source,
        destination=destination,
        kernels=kernels,
        addresses={node.name: node.address for node in state.topology.nodes},
        uplink=NODE_INTERFACE,
        programs=frozenset(one for one in OPTIONAL_PROGRAMS if shutil.which(one)),
    )


def _encapsulation(state: LabState, node: Kernel, destination: End) -> Encapsulation:
    """That between the two nodes: with CrossSubnet there is none inside a subnet."""
    block = node.block_route(destination.ip)
    if block is not None and f" dev {NODE_INTERFACE} " in f"{block} ":
        return Encapsulation.NONE
    return state.topology.encapsulation


def run(place: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace.

    Raises:
        BadInput: there is no such namespace.
        Impossible: the program is not installed, or does not end.
    """
    with namespaces.opened(place) as descriptor:
        # A program started by a thread is where the thread is.
        return namespaces.call_in(descriptor, _run, command)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except FileNotFoundError:
        raise Impossible(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Impossible(f"{' '.join(command)}: no end after {PATIENCE_S:.0f} s") from None


def _read(place: str, path: Path) -> Kernel:
    with namespaces.opened(path) as descriptor:
        return namespaces.call_in(descriptor, _read_here, place)


def _read_here(place: str) -> Kernel:
    devices = {
        device.name: device
        for device in map(_device, json.loads(_ask(place, "ip -j -d -4 addr show") or "[]"))
    }
    for link in json.loads(_ask(place, "ip -j -d link show") or "[]"):
        # `ip -4 addr` leaves out what has no address.
        devices.setdefault(link["ifname"], _device(link))
    fdb = _ask(place, f"bridge fdb show dev {VXLAN_DEVICE}") if VXLAN_DEVICE in devices else ""
    return Kernel(
        place=place,
        routes=tuple(map(clean_route, _lines(_ask(place, "ip -4 route show")))),
        neighbours=_lines(_ask(place, "ip -4 neigh show nud permanent")),
        fdb=tuple(line for line in _lines(fdb) if " dst " in line),
        devices=devices,
        sysctls=_settings(),
    )


def _device(said: Mapping[str, object]) -> Device:
    info = said.get("linkinfo")
    addresses = said.get("addr_info") or []
    assert isinstance(addresses, list)
    return Device(
        name=str(said["ifname"]),
        index=int(str(said["ifindex"])),
        mtu=int(str(said["mtu"])),
        mac=str(said.get("address", "")),
        details=info.get("info_data", {}) if isinstance(info, dict) else {},
        addresses=tuple(f"{one['local']}/{one['prefixlen']}" for one in addresses),
    )


def _ask(place: str, command: str) -> str:
    done = _run(command.split())
    if done.returncode != 0:
        raise Impossible(f"{place}: {command}: {done.stderr.strip()}")
    return done.stdout


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _settings() -> dict[str, str]:
    """IPv4 settings of the namespace of the calling thread."""
    paths = [
        *(SETTINGS / name for name in SINGLE_SETTINGS),
        *SETTINGS.glob("net/ipv4/conf/*/*"),
        *SETTINGS.glob(PER_DEVICE),
    ]
    found: dict[str, str] = {}
    for path in paths:
        try:
            found[str(path.relative_to(SETTINGS))] = path.read_text().strip()
        except OSError:
            continue  # Devices go while we look, and some settings can only be written.
    return found
