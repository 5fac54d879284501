"""Faults: the first divergence by name, with its place and the state that shows it.

The walk says what the kernel does; here a sentence is found for why. A cause without a sentence of
its own keeps the kernel's: a fault that no list has is still named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.trace.case import Case, plain
from podwire.trace.faults import bridges, links, neighbours, policies, receivers, routes, tunnels
from podwire.trace.schema import Direction, Disposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPAddress
    from podwire.trace.schema import Fault, Path
    from podwire.trace.world import World

    Explain = Callable[[Case], Fault]

BY_CODE: dict[str, Explain] = {
    "source-no-route": routes.nothing_leaves,
    "source-blackhole": routes.blackhole,
    "source-unreachable": routes.refusing_route,
    "source-prohibit": routes.refusing_route,
    "no-route": routes.no_route,
    "blackhole": routes.blackhole,
    "unreachable": routes.refusing_route,
    "prohibit": routes.refusing_route,
    "rpf": routes.reverse_path,
    "forwarding-off": routes.forwarding_off,
    "ttl": routes.loop,
    "loop": routes.loop,
    "arp-proxy-arp-off": neighbours.unanswered,
    "arp-no-route": neighbours.unanswered,
    "arp-blackhole": neighbours.unanswered,
    "arp-unreachable": neighbours.unanswered,
    "arp-prohibit": neighbours.unanswered,
    "arp-forwarding-off": neighbours.unanswered,
    "arp-rpf": neighbours.unanswered,
    "arp-own-source": neighbours.unanswered,
    "arp-same-link": neighbours.unanswered,
    "arp-arp-ignore": neighbours.unanswered,
    "arp-nobody": neighbours.unanswered,
    "not-mine": neighbours.address_missing,
    "link-down": links.link_down,
    "tunnel-down": tunnels.tunnel_down,
    "no-ipip": tunnels.tunnel_down,
    "no-vxlan": tunnels.tunnel_down,
    "vtep-missing": tunnels.vtep_missing,
    "fdb-missing": tunnels.fdb_missing,
    "vtep-mac": tunnels.vtep_mac,
    "vni": tunnels.vni,
    "too-big": links.too_big,
    "peer-mtu": links.peer_mtu,
    "outer-fragments": links.outer_fragments,
    "proxy-delay": neighbours.proxy_delay,
    "rule-drop": policies.rule,
    "rule-reject": policies.rule,
    "arp-rule-drop": policies.question,
    "arp-rule-reject": policies.question,
    "port-isolated": bridges.port_setting,
    "no-hairpin": bridges.port_setting,
    "port-blocked": bridges.port_blocked,
    "port-silent": bridges.port_setting,
    "wrong-mac": bridges.wrong_port,
    "echo-ignored": receivers.echo_ignored,
    "port-closed": receivers.port_closed,
    "taken-by-other": receivers.duplicate,
    "several-answers": receivers.duplicate,
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
        swallowed = routes.swallowed(world, path)
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
