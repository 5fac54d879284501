"""Remedy: what a command of `ip`, `bridge`, `nft` or `sysctl` would make of the kernel states.

Only the commands that fixes are printed with are understood. Because the very text a reader would
run is applied, a fix cannot promise more than it says.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

from podwire.model.kernelstate import KernelState, Missing, Read, Section
from podwire.model.link import PORT_FORWARDING, Address, Link, PortSettings, VXLANSettings
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import (
    LOCAL_TABLE,
    MAIN_TABLE,
    PROTOCOL_BOOT,
    PROTOCOL_KERNEL,
    SCOPE_HOST,
    SCOPE_LINK,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.addressing import IPNetwork

    States = dict[int, KernelState]
    Verb = Callable[[States, int, list[str]], None]

T = TypeVar("T")

KINDS = {kind.name.lower(): kind for kind in RouteKind}
FLAGS = frozenset({"onlink", "permanent", "self", "append", "nolearning", "learning"})
ZERO = {4: "0.0.0.0/0", 6: "::/0"}


class NotUnderstood(Exception):
    """A command that is not modelled, or that the kernel would refuse."""


def with_command(
    states: tuple[KernelState, ...], inode: int, command: str
) -> tuple[KernelState, ...]:
    """The states as they would be after a command in the namespace `inode`.

    Raises:
        NotUnderstood: the command is not one of those modelled, or a section was not read.
    """
    changed = {state.namespace.inode: state for state in states}
    for line in command.split(" && "):
        words = shlex.split(line)
        verb = VERBS.get(" ".join(words[:3])) or VERBS.get(words[0] if words else "")
        if verb is None or inode not in changed:
            raise NotUnderstood(line)
        try:
            verb(changed, inode, words)
        except (ValueError, KeyError, IndexError) as error:
            raise NotUnderstood(f"{line}: {error}") from None
    return tuple(changed.values())


def _sysctl(states: States, inode: int, words: list[str]) -> None:
    sysctls: Mapping[str, str] = _value(states[inode].sysctls)
    values = dict(sysctls)
    for assignment in words[2:]:
        path, _, value = assignment.partition("=")
        _, family, name = path.split("/", 2)
        values[f"{family}.{name}"] = value
        if name in {"ip_forward", "conf/all/forwarding"}:
            # The kernel writes it to every link there is.
            forwards = {key for key in values if key.startswith(f"{family}.conf/")}
            values |= {key: value for key in forwards if key.endswith("/forwarding")}
            values[f"{family}.ip_forward"] = value
    states[inode] = replace(states[inode], sysctls=Read(values))


def _route(states: States, inode: int, words: list[str]) -> None:
    state, rest = states[inode], words[3:]
    kind = KINDS[rest.pop(0)] if rest[0] in KINDS else RouteKind.UNICAST
    target = rest.pop(0)
    given = _pairs(rest)
    gateway = None if "via" not in given else ip_address(given["via"])
    version = 4 if gateway is None else gateway.version
    destination = ip_network(ZERO[version] if target == "default" else target)
    key = RouteKey(
        destination=destination,
        table=int(given.get("table", MAIN_TABLE)),
        metric=int(given.get("metric", 0)),
    )
    routes = [each for each in _value(state.routes) if each.key != key]
    same = len(routes) < len(_value(state.routes))
    if words[2] == "add" and same:
        raise ValueError("File exists")
    if words[2] == "del":
        if not same:
            raise ValueError("No such process")
        states[inode] = replace(state, routes=Read(tuple(routes)))
        return
    hops: tuple[NextHop, ...] = ()
    if kind is RouteKind.UNICAST:
        device = _link(state, given["dev"])
        if not device.up:
            raise ValueError("Network is down")
        hops = (NextHop(device=device.index, gateway=gateway, onlink="onlink" in given),)
    scope = SCOPE_LINK if hops and gateway is None else 0
    made = Route(key=key, kind=kind, protocol=PROTOCOL_BOOT, scope=scope, hops=hops)
    states[inode] = replace(state, routes=Read((*routes, made)))


def _rule(states: States, inode: int, words: list[str]) -> None:
    state, priority = states[inode], int(words[4])
    rules = _value(state.rules)
    kept = tuple(each for each in rules if (each.family, each.priority) != (4, priority))
    if len(kept) == len(rules):
        raise ValueError("No such file or directory")
    states[inode] = replace(state, rules=Read(kept))


def _address(states: States, inode: int, words: list[str]) -> None:
    state = states[inode]
    interface, device = ip_interface(words[3]), _link(state, _pairs(words[4:])["dev"])
    made = Address(device=device.index, interface=interface)
    state = replace(state, addresses=Read((*_value(state.addresses), made)))
    own = ip_network(interface.ip)
    local = _own_route(own, LOCAL_TABLE, device, made)
    routes = (*_value(state.routes), replace(local, kind=RouteKind.LOCAL, scope=SCOPE_HOST))
    states[inode] = replace(state, routes=Read((*routes, *_connected(state, device, routes))))


def _own_route(network: IPNetwork, table: int, device: Link, address: Address) -> Route:
    return Route(
        key=RouteKey(destination=network, table=table),
        protocol=PROTOCOL_KERNEL,
        scope=SCOPE_LINK,
        source=address.interface.ip,
        hops=(NextHop(device=device.index),),
    )


def _connected(state: KernelState, device: Link, routes: tuple[Route, ...]) -> list[Route]:
    """Routes to the subnets of a link that is up, as the kernel adds them."""
    if not device.up:
        return []
    present = {route.key.destination for route in routes if route.key.table == MAIN_TABLE}
    found = []
    for address in _value(state.addresses):
        network = address.interface.network
        wide = network.prefixlen < network.max_prefixlen
        if address.device == device.index and wide and network not in present:
            found.append(_own_route(network, MAIN_TABLE, device, address))
    return found


def _set_link(states: States, inode: int, words: list[str]) -> None:
    name, setting = words[3], words[4]
    link = _link(states[inode], name)
    if setting == "mtu":
        _put_link(states, inode, replace(link, mtu=int(words[5])))
        return
    if setting != "up":
        raise ValueError(setting)
    carrier = True
    peer = _peer(states, inode, link)
    if peer is not None:
        there, other = peer
        carrier = other.up
        state = "up" if other.up else "lowerlayerdown"
        other = replace(other, carrier=other.up, operstate=state, port=_opened(other))
        _put_link(states, there, other)
    _put_link(
        states,
        inode,
        replace(
            link,
            up=True,
            carrier=carrier,
            operstate="up" if carrier else "down",
            port=_opened(link) if carrier else link.port,
        ),
    )
    state_here = states[inode]
    routes = _value(state_here.routes)
    device = _link(state_here, name)
    added = _connected(state_here, device, routes)
    states[inode] = replace(state_here, routes=Read((*routes, *added)))


def _delete_link(states: States, inode: int, words: list[str]) -> None:
    """`ip link del NAME`, with all that hangs on it."""
    state = states[inode]
    gone = _link(state, words[3]).index
    routes = _value(state.routes)
    states[inode] = replace(
        state,
        links=Read(tuple(each for each in _value(state.links) if each.index != gone)),
        addresses=Read(tuple(each for each in _value(state.addresses) if each.device != gone)),
        neighbours=Read(tuple(each for each in _value(state.neighbours) if each.device != gone)),
        fdb=Read(tuple(each for each in _value(state.fdb) if each.device != gone)),
        routes=Read(tuple(each for each in routes if all(hop.device != gone for hop in each.hops))),
    )


def _add_vxlan(states: States, inode: int, words: list[str]) -> None:
    """`ip link add NAME index N address MAC mtu N type vxlan id N local IP dev … dstport N …`."""
    state, given = states[inode], _pairs(words[4:])
    if given["type"] != "vxlan" or any(each.name == words[3] for each in _value(state.links)):
        raise ValueError(words[3])
    settings = VXLANSettings(
        vni=int(given["id"]),
        port=int(given["dstport"]),
        local=ip_address(given["local"]) if "local" in given else None,
        parent=_link(state, given["dev"]).index if "dev" in given else None,
        learning="nolearning" not in given,
    )
    made = Link(
        index=int(given["index"]),
        name=words[3],
        mtu=int(given["mtu"]),
        up=False,
        carrier=False,
        kind="vxlan",
        mac=given["address"],
        vxlan=settings,
    )
    # New devices begin with the settings of `default`.
    before: Mapping[str, str] = _value(state.sysctls)
    sysctls = dict(before)
    for name, value in before.items():
        if name.startswith("ipv4.conf/default/"):
            sysctls[name.replace("/default/", f"/{made.name}/")] = value
    links = Read((*_value(state.links), made))
    states[inode] = replace(state, links=links, sysctls=Read(sysctls))


def _opened(link: Link) -> PortSettings | None:
    """A bridge gives frames to its port as soon as that carries them, unless trees are spanned."""
    return None if link.port is None else replace(link.port, state=PORT_FORWARDING)


def _peer(states: States, inode: int, link: Link) -> tuple[int, Link] | None:
    """The other end of a veth."""
    if link.kind != "veth" or link.peer_index is None:
        return None
    there: int | None = inode
    if link.peer_netnsid is not None:
        there = _value(states[inode].netns_ids).get(link.peer_netnsid)
    if there is None or there not in states:
        return None
    for other in _value(states[there].links):
        if other.index == link.peer_index:
            return there, other
    return None


def _put_link(states: States, inode: int, link: Link) -> None:
    state = states[inode]
    links = tuple(link if each.index == link.index else each for each in _value(state.links))
    states[inode] = replace(state, links=Read(links))


def _neighbour(states: States, inode: int, words: list[str]) -> None:
    state, given, address = states[inode], _pairs(words[4:]), ip_address(words[3])
    index = _link(state, given["dev"]).index
    made = Neighbour(device=index, address=address, mac=given["lladdr"])
    others = (
        each
        for each in _value(state.neighbours)
        if (each.device, each.address) != (index, address) or each.proxy
    )
    states[inode] = replace(state, neighbours=Read((*others, made)))


def _fdb(states: States, inode: int, words: list[str]) -> None:
    state, given, mac = states[inode], _pairs(words[4:]), words[3]
    index = _link(state, given["dev"]).index
    made = FDBEntry(device=index, mac=mac, destination=ip_address(given["dst"]), own=True)
    others = (each for each in _value(state.fdb) if (each.device, each.mac) != (index, mac))
    states[inode] = replace(state, fdb=Read((*others, made)))


def _delete_fdb(states: States, inode: int, words: list[str]) -> None:
    """`bridge fdb del MAC dev PORT master`."""
    state, mac = states[inode], words[3]
    index = _link(state, words[5]).index
    entries = _value(state.fdb)
    kept = tuple(
        each for each in entries if (each.device, each.mac, each.own) != (index, mac, False)
    )
    if len(kept) == len(entries):
        raise ValueError("No such file or directory")
    states[inode] = replace(state, fdb=Read(kept))


def _set_port(states: States, inode: int, words: list[str]) -> None:
    """`bridge link set dev PORT SETTING VALUE …`."""
    link = _link(states[inode], words[4])
    if link.port is None:
        raise ValueError("Operation not supported")
    names = {"bcast_flood": "broadcast", "mcast_flood": "multicast"}
    given: dict[str, Any] = {
        names.get(name, name): int(value) if name == "state" else value == "on"
        for name, value in zip(words[5::2], words[6::2], strict=True)
    }
    _put_link(states, inode, replace(link, port=replace(link.port, **given)))


def _delete_rule(states: States, inode: int, words: list[str]) -> None:
    family, table, chain, handle = words[3], words[4], words[5], int(words[7])
    state = states[inode]
    kept = []
    for entry in _value(state.nft):
        rule = entry.get("rule")
        if isinstance(rule, dict) and (
            rule.get("family"), rule.get("table"), rule.get("chain"), rule.get("handle")
        ) == (family, table, chain, handle):  # fmt: skip
            continue
        kept.append(entry)
    if len(kept) == len(_value(state.nft)):
        raise ValueError("no such rule")
    states[inode] = replace(state, nft=Read(tuple(kept)))


def _chain_policy(states: States, inode: int, words: list[str]) -> None:
    """`nft add chain FAMILY TABLE CHAIN { policy accept ; }`."""
    wanted = (words[3], words[4], words[5])
    text = " ".join(words[6:])
    if "policy accept" not in text:
        raise ValueError(text)
    state = states[inode]
    entries = []
    for entry in _value(state.nft):
        chain = entry.get("chain")
        if isinstance(chain, dict) and (
            chain.get("family"), chain.get("table"), chain.get("name")
        ) == wanted:  # fmt: skip
            entries.append({**entry, "chain": {**chain, "policy": "accept"}})
        else:
            entries.append(dict(entry))
    states[inode] = replace(state, nft=Read(tuple(entries)))


def _legacy(states: States, inode: int, words: list[str]) -> None:
    """`iptables-legacy -t TABLE -P CHAIN ACCEPT`, or `… -D CHAIN RULE…`."""
    if words[3] == "-P":
        _legacy_policy(states, inode, words)
        return
    if words[3] != "-D":
        raise ValueError(words[3])
    state, kept, here = states[inode], [], ""
    lines = _value(state.iptables_legacy).splitlines()
    for line in lines:
        here = line[1:] if line.startswith("*") else here
        if here != words[2] or not line.startswith("-A ") or shlex.split(line)[1:] != words[4:]:
            kept.append(line)
    if len(kept) == len(lines):
        raise ValueError("no such rule")
    states[inode] = replace(state, iptables_legacy=Read("\n".join(kept) + "\n"))


def _legacy_policy(states: States, inode: int, words: list[str]) -> None:
    table, chain = words[2], words[4]
    state, lines, here = states[inode], [], ""
    for line in _value(state.iptables_legacy).splitlines():
        here = line[1:] if line.startswith("*") else here
        mine = here == table and line.startswith(f":{chain} ")
        lines.append(line.replace(" DROP", " ACCEPT", 1) if mine else line)
    states[inode] = replace(state, iptables_legacy=Read("\n".join(lines) + "\n"))


def _pairs(words: list[str]) -> Mapping[str, str]:
    """`dev x onlink` as {dev: x, onlink: ""}."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        found[word] = "" if word in FLAGS else rest.pop(0)
    return found


def _link(state: KernelState, name: str) -> Link:
    for link in _value(state.links):
        if link.name == name:
            return link
    raise ValueError(f"Cannot find device {name}")


def _value(section: Section[T]) -> T:
    if isinstance(section, Missing):
        raise ValueError(section.reason)  # noqa: TRY004  # one kind of refusal
    return section.value


def _add_element(states: States, inode: int, words: list[str]) -> None:
    """`nft add element ip podwire nodes '{ 10.0.0.1 }'`."""
    place, element = tuple(words[3:6]), words[6].strip("{} ")

    def changed(entry: Mapping[str, object]) -> Mapping[str, object]:
        held = entry.get("set")
        if not isinstance(held, dict) or place != (held["family"], held["table"], held["name"]):
            return entry
        return {"set": {**held, "elem": [*held.get("elem", []), element]}}

    entries = _value(states[inode].nft)
    states[inode] = replace(states[inode], nft=Read(tuple(map(changed, entries))))


VERBS: dict[str, Verb] = {
    "sysctl": _sysctl,
    "ip route add": _route,
    "ip route replace": _route,
    "ip route del": _route,
    "ip rule del": _rule,
    "ip addr add": _address,
    "ip link set": _set_link,
    "ip link del": _delete_link,
    "ip link add": _add_vxlan,
    "ip neigh replace": _neighbour,
    "bridge fdb replace": _fdb,
    "bridge fdb del": _delete_fdb,
    "bridge link set": _set_port,
    "iptables-legacy": _legacy,
    "nft delete rule": _delete_rule,
    "nft add chain": _chain_policy,
    "nft add element": _add_element,
}
"""By the first words."""
