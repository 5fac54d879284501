"""Mending: the commands that set right what a fault found, told from the states around it.

What goes with a link that goes down, or with a pod's last address, is put back in the same line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.addressing import POD_GATEWAY
from podwire.model.route import MAIN_TABLE, RouteKind
from podwire.trace import intent
from podwire.trace.fib import covering_routes
from podwire.trace.ruleset import LEGACY
from podwire.trace.schema import Fix, Where
from podwire.trace.space import Lacking

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.case import Case
    from podwire.trace.intent import Wanted
    from podwire.trace.space import Space
    from podwire.trace.world import Pod

AGENTS = "the agent of this node owns it: is it held, or stopped?"


def agents(command: str | None = None) -> Fix:
    """What the node's agent would put right by itself."""
    return Fix(text=AGENTS, command=command, agent=True)


def pod_routes(case: Case, pod: Pod) -> str:
    """What brings a pod's default route back; the kernel drops it with the last address."""
    space = case.world.spaces.get(pod.inode or 0)
    if space is None:
        return ""
    inner = space.links_by_name.get(pod.interface)
    routes = covering_routes(space, POD_GATEWAY, MAIN_TABLE)
    if inner is not None and any(
        hop.device == inner.index for route in routes for hop in route.hops
    ):
        return ""
    return f" && ip route add default via {POD_GATEWAY} dev {pod.interface} onlink"


def link_up(case: Case, pod: Pod, name: str, *, inside: bool) -> Fix:
    """Up again, with the routes that went when it went down."""
    command = f"ip link set {name} up"
    if inside:
        return Fix(text="set it up", command=command + pod_routes(case, pod))
    for address in (case.target, case.origin):
        wanted = intent.host_route(case.world, pod.host.space, address)
        by_it = wanted is not None and f" dev {name} " in f"{wanted.route} "
        if wanted is not None and by_it and not _has(pod.host.space, wanted):
            command += f" && ip route replace {wanted.route}"
    return Fix(text="set it up", command=command)


def default_route(case: Case) -> Fix | None:
    """A default route, by a router of a subnet of this namespace."""
    route = intent.default_route(case.world, case.space)
    if not route:
        return None
    return Fix(text=f"give {case.here} its default route back", command=f"ip route add {route}")


def _has(space: Space, wanted: Wanted) -> bool:
    routes = space.need(space.state.routes, "routes")
    return any(
        str(each.key.destination) == wanted.destination and each.kind is RouteKind.UNICAST
        for each in routes
        if each.key.table == MAIN_TABLE
    )


def tunnel_up(case: Case) -> Fix | None:
    """A tunnel device that is there and down; its routes went with it."""
    link = case.space.links_by_name.get(case.interface)
    if link is None or link.kind not in {"vxlan", "ipip"} or link.up:
        return None
    return agents(f"ip link set {link.name} up")


def vtep(case: Case, target: str) -> Fix:
    """The neighbour entry for another node's tunnel address."""
    for space in case.world.spaces.values():
        for link in space.links.values() if _readable(space) else ():
            carried = {str(each.interface.ip) for each in space.addresses_of(link)}
            if link.kind == "vxlan" and target in carried and space is not case.space:
                entry = f"{target} dev {case.interface} lladdr {link.mac} nud permanent"
                return agents(f"ip neigh replace {entry}")
    return agents()


def _readable(space: Space) -> bool:
    try:
        return bool(space.links) and space.addresses is not None
    except Lacking:
        return False


def true_node(
    case: Case, *, mac: str | None = None, destination: str | None = None
) -> tuple[Where | None, Fix | None]:
    """Where a forwarding entry is wrong or missing, and the right one.

    `mac`: of the VTEP that is meant; or `destination`: the outer address that is wrong.
    """
    hop = next((each for each in reversed(case.path.hops) if each.side == "out"
                and each.role == "tunnel"), None)  # fmt: skip
    if hop is None:
        return None, agents()
    space = case.world.spaces[hop.inode]
    device = space.links_by_name[hop.where.interface or ""]
    if mac is None:
        entries = (each for each in space.fdb if each.device == device.index)
        mac = next((each.mac for each in entries if str(each.destination) == destination), None)
    for other in case.world.spaces.values():
        for link in other.links.values() if _readable(other) else ():
            if link.kind != "vxlan" or link.mac != mac or link.vxlan is None or other is space:
                continue
            node = link.vxlan.local or _address(other, space)
            if node is not None:
                command = f"bridge fdb replace {mac} dev {device.name} dst {node} self permanent"
                return hop.where, agents(command)
    return hop.where, agents()


def _address(node: Space, seen_from: Space) -> IPAddress | None:
    """The address of a node on a subnet of another's."""
    hops = intent.hops_to(
        seen_from,
        {each.interface.ip for carried in node.addresses.values() for each in carried},
    )
    return hops[0].gateway if hops else None


def block_route(case: Case, space: Space, blackhole: str | None = None) -> Fix | None:
    """The route to the node of the destination: its block's, or its own when it is borrowed."""
    wanted = intent.block_route(case.world, space, case.target)
    if wanted is None or not wanted.route:
        return None
    if blackhole is None or wanted.destination != blackhole:
        return agents(f"ip route replace {wanted.route}")
    via = wanted.route.removeprefix(wanted.destination)
    owned = _owns(case, blackhole)
    target = blackhole if owned else f"{case.target}/32"
    return agents(f"ip route replace {target}{via}")


def _owns(case: Case, block: str) -> bool:
    """Whether the pod's own node holds the block: it discards what it has no pod for."""
    pod = intent.pod_of(case.world, case.target)
    if pod is None:
        return False
    routes = pod.host.space.need(pod.host.space.state.routes, "routes")
    return any(
        each.kind is RouteKind.BLACKHOLE and str(each.key.destination) == block for each in routes
    )


def allow_route(case: Case, route: str) -> Fix:
    """In place of a route or rule that refuses: the one that leads there, or none."""
    for rule in case.space.rules:
        if f" ip rule {rule.priority} " in case.cause.text:
            command = f"ip rule del priority {rule.priority}"
            return Fix(text="delete the rule if it is unwanted", command=command)
    prefix = case.cause.facts.get("prefix")
    wanted = intent.host_route(case.world, case.space, case.target) or intent.block_route(
        case.world, case.space, case.target
    )
    if wanted is not None and wanted.route and wanted.destination == prefix:
        return agents(f"ip route replace {wanted.route}")
    if prefix is None:
        return Fix(text=f"delete it if it is unwanted: {route}")
    kind = route.partition(" ")[0]
    table = case.cause.facts.get("table", str(MAIN_TABLE))
    beside = "" if table == str(MAIN_TABLE) else f" table {table}"
    command = f"ip route del {kind} {prefix}{beside}"
    if wanted is not None and wanted.route:
        command += f" && ip route replace {wanted.route}"
    return Fix(text="delete it if it is unwanted", command=command)


def let_pass(case: Case) -> Fix:
    """Without the rule, or with a chain that accepts what no rule decides."""
    facts = case.cause.facts
    table, chain, handle = facts.get("table"), facts.get("chain"), facts.get("handle")
    family = _family(case)
    by_policy = "(policy)" in case.cause.text
    if family is not None and by_policy:
        command = f"nft add chain {family} {table} {chain} '{{ policy accept ; }}'"
        text = "if it should pass: a rule that accepts it, or a chain that accepts the rest"
        return Fix(text=text, command=command)
    if family is not None and handle is not None:
        command = f"nft delete rule {family} {table} {chain} handle {handle}"
        return Fix(text="if it should pass, delete the rule", command=command)
    line = facts.get("line")
    if line is not None:
        said = legacy_line(case.space, int(line))
        command = f"iptables-legacy -t {table} -D {said}"
        return Fix(text="if it should pass, delete the rule of this older table", command=command)
    if by_policy:
        command = f"iptables-legacy -t {table} -P {chain} ACCEPT"
        return Fix(
            text="if it should pass: the table that drops it is a second one", command=command
        )
    return Fix(text="if it should pass, delete the rule")


def rule_met(case: Case) -> str:
    """The expression of the nftables rule that decided, as text; empty for another one."""
    facts = case.cause.facts
    wanted = tuple(facts.get(key) for key in ("table", "chain", "handle"))
    for entry in case.space.need(case.space.state.nft, "rule set"):
        rule = entry.get("rule")
        if isinstance(rule, dict) and wanted == (
            rule.get("table"), rule.get("chain"), str(rule.get("handle"))
        ):  # fmt: skip
            return str(rule.get("expr"))
    return ""


def legacy_line(space: Space, number: int) -> str:
    """The rule of that number, as `iptables-legacy -D` takes it."""
    saved = space.need(space.state.iptables_legacy, "iptables-legacy rules")
    lines = [line for line in saved.splitlines() if line.startswith("-A ")]
    return lines[number - 1].removeprefix("-A ")


def is_legacy(case: Case) -> bool:
    """Whether the rule is one of iptables-legacy, beside which nftables has its own."""
    return _family(case) is None


def _family(case: Case) -> str | None:
    """Family of the nftables table that holds the rule; None: it is iptables-legacy's."""
    family = case.cause.facts.get("family", LEGACY)
    return None if family.startswith(LEGACY) else family
