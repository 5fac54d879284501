"""Faults: the first divergence by name, with its place and the state that shows it.

The walk says what the kernel does; here a sentence is found for why. A cause without a sentence of
its own keeps the kernel's: a fault that no list has is still named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace import faults_link, faults_route
from podwire.trace.case import Case, plain
from podwire.trace.schema import Direction, Disposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPAddress
    from podwire.trace.schema import Fault, Path
    from podwire.trace.world import World

    Explain = Callable[[Case], Fault]

BY_CODE: dict[str, Explain] = {
    "source-no-route": faults_route.nothing_leaves,
    "source-blackhole": faults_route.blackhole,
    "source-unreachable": faults_route.refusing_route,
    "source-prohibit": faults_route.refusing_route,
    "no-route": faults_route.no_route,
    "blackhole": faults_route.blackhole,
    "unreachable": faults_route.refusing_route,
    "prohibit": faults_route.refusing_route,
    "rpf": faults_route.reverse_path,
    "forwarding-off": faults_route.forwarding_off,
    "ttl": faults_route.loop,
    "loop": faults_route.loop,
    "arp-proxy-arp-off": faults_link.unanswered,
    "arp-no-route": faults_link.unanswered,
    "arp-blackhole": faults_link.unanswered,
    "arp-unreachable": faults_link.unanswered,
    "arp-prohibit": faults_link.unanswered,
    "arp-forwarding-off": faults_link.unanswered,
    "arp-rpf": faults_link.unanswered,
    "arp-own-source": faults_link.unanswered,
    "arp-same-link": faults_link.unanswered,
    "arp-arp-ignore": faults_link.unanswered,
    "arp-nobody": faults_link.unanswered,
    "not-mine": faults_link.address_missing,
    "link-down": faults_link.link_down,
    "tunnel-down": faults_link.tunnel_down,
    "no-ipip": faults_link.tunnel_down,
    "no-vxlan": faults_link.tunnel_down,
    "vtep-missing": faults_link.vtep_missing,
    "fdb-missing": faults_link.fdb_missing,
    "vtep-mac": faults_link.vtep_mac,
    "vni": faults_link.vni,
    "too-big": faults_link.too_big,
    "peer-mtu": faults_link.peer_mtu,
    "outer-fragments": faults_link.outer_fragments,
    "proxy-delay": faults_link.proxy_delay,
    "rule-drop": faults_link.rule,
    "rule-reject": faults_link.rule,
    "echo-ignored": faults_link.echo_ignored,
    "port-closed": faults_link.port_closed,
    "taken-by-other": faults_link.duplicate,
    "several-answers": faults_link.duplicate,
}
WORTH_A_WARNING = frozenset({"outer-fragments", "proxy-delay", "several-answers"})
"""Remarks of a walk that are faults though packets pass; the others only stand in the table."""


def explain(
    world: World, paths: tuple[Path, ...], destination: IPAddress | None
) -> tuple[Fault, ...]:
    """The faults of all paths, the one that ends the way first, each once."""
    found: list[Fault] = []
    for path in sorted(paths, key=lambda each: each.direction is Direction.RETURN):
        found += _explain_path(world, path, destination)
    found.sort(key=lambda fault: fault.severity != "error")
    return tuple({(fault.id, fault.where): fault for fault in reversed(found)}.values())[::-1]


def _explain_path(world: World, path: Path, destination: IPAddress | None) -> list[Fault]:
    found = []
    if path.disposition not in {Disposition.DELIVERED_AND_ANSWERED, Disposition.INSUFFICIENT_INFO}:
        swallowed = faults_route.swallowed(world, path)
        if swallowed is not None:
            found.append(swallowed)
        elif path.cause is not None:
            case = Case(world=world, path=path, cause=path.cause, destination=destination)
            found.append(BY_CODE.get(path.cause.code, plain)(case))
    for remark in path.remarks:
        if remark.code in WORTH_A_WARNING:
            case = Case(world=world, path=path, cause=remark, destination=destination)
            found.append(BY_CODE[remark.code](case))
    return found
