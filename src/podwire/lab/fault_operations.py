"""Operations that break something: each a command a person would type, and what undoes it exactly.

What undoes is computed beforehand from the state as it was, and does no harm when run twice or
when nothing was done: `replace` instead of `add`, so that a heal can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from podwire.lab.fault_facts import Impossible, prefix_of
from podwire.model.addressing import POD_GATEWAY
from podwire.model.link import HOST_MAC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.lab.fault_facts import Device, End, Facts, Kernel

FORWARD = "forward { type filter hook forward priority filter; }"
"""A base chain, for `add_firewall`."""

Command: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One step; the undoing of several runs in the reverse order of theirs."""

    place: str
    """Node, `namespace/pod` or the underlay: where to run it."""
    do: Command
    undo: tuple[Command, ...] = ()


def words(text: str) -> Command:
    """A command without quoting."""
    return tuple(text.split())


def conf(device: str, setting: str) -> str:
    """Name of a device's own IPv4 setting. Slashes, because names of devices contain dots."""
    return f"net/ipv4/conf/{device}/{setting}"


def set_sysctl(kernel: Kernel, name: str, value: str) -> Operation:
    """Change a setting."""
    return Operation(
        place=kernel.place,
        do=words(f"sysctl -w {name}={value}"),
        undo=(words(f"sysctl -w {name}={kernel.sysctl(name)}"),),
    )


def stop_forwarding(kernel: Kernel) -> Operation:
    """ip_forward=0. It rewrites the switch of every device, and who is told to redirect."""
    name = "net/ipv4/ip_forward"
    undo = [words(f"sysctl -w {name}={kernel.sysctl(name)}")]
    for setting, value in sorted(kernel.sysctls.items()):
        if setting.startswith("net/ipv4/conf/") and setting.endswith("/forwarding"):
            ordinary = "1"
        elif setting == "net/ipv4/conf/all/accept_redirects":
            ordinary = "0"
        else:
            continue
        if value != ordinary:
            undo.append(words(f"sysctl -w {setting}={value}"))
    return Operation(place=kernel.place, do=words(f"sysctl -w {name}=0"), undo=tuple(undo))


def delete_route(kernel: Kernel, line: str | None, destination: str) -> Operation:
    """Take a route away.

    Raises:
        Impossible: it is not there.
    """
    if line is None:
        raise Impossible(f"{kernel.place} has no route to {destination}")
    return Operation(
        place=kernel.place,
        do=words(f"ip route del {line}"),
        undo=(words(f"ip route replace {line}"),),
    )


def replace_route(kernel: Kernel, line: str) -> Operation:
    """Put a route in the place of that to the same destination, or where there was none."""
    before = kernel.route_to(prefix_of(line))
    undo = f"ip route del {line}" if before is None else f"ip route replace {before}"
    return Operation(place=kernel.place, do=words(f"ip route replace {line}"), undo=(words(undo),))


def forget_neighbours(end: End) -> Operation:
    """Let a pod forget its gateway's MAC, so that it has to ask."""
    return Operation(place=end.pod, do=words(f"ip neigh flush dev {end.interface}"))


def remember_gateway(facts: Facts, end: End) -> Operation:
    """Let a pod keep its gateway's MAC: what it would have learned while all was well."""
    before = facts.kernels[end.pod].neighbour(str(POD_GATEWAY), end.interface)
    entry = f"{POD_GATEWAY} dev {end.interface}"
    return Operation(
        place=end.pod,
        do=words(f"ip neigh replace {entry} lladdr {HOST_MAC} nud permanent"),
        undo=(words(f"ip neigh del {entry}") if before is None else keep_neighbour(before),),
    )


def keep_neighbour(line: str) -> Command:
    """The command that makes a permanent neighbour, from the line that shows it."""
    return words(f"ip neigh replace {line.removesuffix('PERMANENT').strip()} nud permanent")


def set_down(kernel: Kernel, device: str) -> Operation:
    """Set a device down. The kernel forgets its routes and neighbours, even the permanent ones."""
    return Operation(
        place=kernel.place,
        do=words(f"ip link set {device} down"),
        undo=(words(f"ip link set {device} up"), *_restored(kernel, device)),
    )


def _restored(kernel: Kernel, device: str) -> tuple[Command, ...]:
    neighbours = tuple(keep_neighbour(line) for line in kernel.neighbours_on(device))
    # The one to a gateway's own link first: the others go by it.
    routes = sorted(kernel.routes_by(device), key=lambda line: " via " in line)
    return (*neighbours, *(words(f"ip route replace {line}") for line in routes))


def set_mtu(kernel: Kernel, device: str, mtu: int) -> Operation:
    """Change a device's MTU. What the kernel learned of paths meanwhile is forgotten afterwards."""
    return Operation(
        place=kernel.place,
        do=words(f"ip link set {device} mtu {mtu}"),
        undo=(
            words(f"ip link set {device} mtu {kernel.device(device).mtu}"),
            words("ip route flush cache"),
        ),
    )


def add_firewall(place: str, name: str, *parts: str, family: str = "inet") -> Iterator[Operation]:
    """A table of its own. A part is `CHAIN RULE…`, or `CHAIN { type …; }` which makes the chain."""
    table = f"fault-{name}"
    undo = (words(f"nft delete table {family} {table}"),)
    yield Operation(place=place, do=words(f"nft add table {family} {table}"), undo=undo)
    for part in parts:
        chain, _, rest = part.partition(" ")
        kind = "rule" if rest and not rest.startswith("{") else "chain"
        text = (rest,) if kind == "chain" and rest else tuple(rest.split())
        yield Operation(place=place, do=("nft", "add", kind, family, table, chain, *text))


def add_policy(node: str, name: str, rule: str) -> Iterator[Operation]:
    """A rule in a chain that is jumped to, as policies are written."""
    return add_firewall(node, name, FORWARD, "netpol", "forward jump netpol", f"netpol {rule}")


def recreate_vxlan(kernel: Kernel, device: Device, vni: int) -> Iterator[Operation]:
    """Make a VXLAN device anew with another VNI: the kernel does not let it be changed.

    With it all that hangs on it goes and is made again; index and MAC stay the same.
    """
    name = device.name
    restored = _dressed(kernel, device)
    yield Operation(
        place=kernel.place,
        do=words(f"ip link del {name}"),
        undo=(_vxlan(device, int(device.details["id"])), *restored),
    )
    yield Operation(
        place=kernel.place, do=_vxlan(device, vni), undo=(words(f"ip link del {name}"),)
    )
    for command in restored:
        yield Operation(place=kernel.place, do=command)


def _vxlan(device: Device, vni: int) -> Command:
    told = device.details
    learning = "learning" if told.get("learning") else "nolearning"
    below = f" dev {told['link']}" if "link" in told else ""
    return words(
        f"ip link add {device.name} index {device.index} address {device.mac} mtu {device.mtu} "
        f"type vxlan id {vni} local {told['local']}{below} dstport {told['port']} {learning}"
    )


def _dressed(kernel: Kernel, device: Device) -> tuple[Command, ...]:
    name = device.name
    prefix = f"net/ipv4/conf/{name}/"
    settings = [
        words(f"sysctl -w {setting}={value}")
        for setting, value in sorted(kernel.sysctls.items())
        if setting.startswith(prefix)
        and value != kernel.sysctls.get(f"net/ipv4/conf/default/{setting.removeprefix(prefix)}")
    ]
    return (
        *settings,
        *(words(f"ip addr replace {address} dev {name}") for address in device.addresses),
        words(f"ip link set {name} up"),
        *(words(f"bridge fdb replace {keep_fdb(line, name)}") for line in kernel.fdb),
        *_restored(kernel, name),
    )


def keep_fdb(line: str, device: str) -> str:
    """A line of `bridge fdb show dev` as `bridge fdb replace` takes it."""
    mac, _, rest = line.partition(" ")
    return f"{mac} dev {device} {rest}"


def touched(operation: Operation) -> frozenset[tuple[str, ...]]:
    """The kernel's objects an operation or its undoing changes, each with its place."""
    commands = (operation.do, *operation.undo)
    return frozenset((operation.place, *_object(command)) for command in commands) - {
        (operation.place,)
    }


def _object(command: Command) -> Command:
    match command:
        case ("sysctl", "-w", setting):
            name = setting.partition("=")[0]
            # ip_forward and the switches of the devices write each other.
            return ("forwarding",) if name.endswith("forward") or "forwarding" in name else (name,)
        case ("ip", "route" | "neigh", "flush", *_):
            return ()
        case ("ip", "route", _, *line):
            return ("route", prefix_of(" ".join(line)))
        case ("ip", "link", "set", device, *_) | ("ip", "link", _, device, *_):
            return ("link", device)
        case ("ip", "neigh" | "addr" as kind, _, address, "dev", device, *_):
            return (kind, address, device)
        case ("bridge", "fdb", _, mac, *_):
            return ("fdb", mac)
        case ("nft", _, _, family, table, *_):
            return ("nft", family, table)
        case _:
            return command
