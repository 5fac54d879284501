"""Output of iproute2's `ip`, `bridge`, `tc` (-j -N) and `ss` → the records netlink is decoded to.

Pure. `-N` makes types, scopes, protocols and tables numbers, whatever names the node's files give
them. Where a program prints less than the kernel said, the difference stands at the function.
Source: iproute2, ip/ipaddress.c, ip/iproute.c, ip/iprule.c, ip/ipneigh.c, bridge/fdb.c.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from podwire.errors import BadInput, PodwireError
from podwire.model.addressing import (
    host_network,
    parse_address,
    parse_interface,
    parse_network,
)
from podwire.model.link import (
    PORT_STATES,
    Address,
    BridgeSettings,
    Link,
    PortSettings,
    VXLANSettings,
)
from podwire.model.overlay import (
    NUD_DELAY,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
    FDBEntry,
    Neighbour,
)
from podwire.model.route import MAIN_TABLE, NextHop, Route, RouteKey, RouteKind, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.model.addressing import IPAddress, IPNetwork

Object: TypeAlias = dict[str, Any]
Indexes: TypeAlias = "Mapping[str, int]"
"""Index by name of the links of one namespace."""

_STATES = {
    "INCOMPLETE": NUD_INCOMPLETE,
    "REACHABLE": NUD_REACHABLE,
    "STALE": NUD_STALE,
    "DELAY": NUD_DELAY,
    "PROBE": NUD_PROBE,
    "FAILED": NUD_FAILED,
    "NOARP": NUD_NOARP,
    "PERMANENT": NUD_PERMANENT,
    "NONE": 0,
}
_FDB_STATES = {
    "permanent": NUD_PERMANENT,
    "static": NUD_NOARP,
    "stale": NUD_STALE,
    "": NUD_REACHABLE,
}
_RULE_ACTIONS = {3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_CONNECTION_WORDS = ("src=", "dst=", "sport=", "dport=", "[UNREPLIED]", "[ASSURED]", "mark=")
_WITHOUT_HOPS = frozenset(
    {RouteKind.BLACKHOLE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT, RouteKind.THROW}
)
_ROUTE_NOT_MODELLED = {"from": "from", "flow": "realm", "encap": "encap", "as": "newdst"}
_RULE_NOT_MODELLED = {
    "flow_to": "realm",
    "tun_id": "tunnel id",
    "suppress_ifgroup": "suppress group",
    "l3mdev": "l3mdev",
    "uid_start": "uid range",
    "dscp": "dscp",
}
_PORT_NOT_MODELLED = {
    "proxy_arp": "proxy_arp of the port",
    "proxy_arp_wifi": "proxy_arp_wifi of the port",
    "vlan_tunnel": "vlan_tunnel of the port",
    "neigh_suppress": "neigh_suppress of the port",
    "locked": "a locked port",
}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def parse_links(text: str) -> tuple[Link, ...]:
    """`ip -j -d link show`."""
    found = _objects(text, "ip link")
    indexes = {each["ifname"]: each["ifindex"] for each in found}
    return _each(found, "ip link", lambda each: _link(each, indexes))


def _link(each: Object, indexes: Indexes) -> Link:
    flags = each["flags"]
    info = each.get("linkinfo", {})
    kind = info.get("info_kind")
    data = info.get("info_data", {}) if kind == "vxlan" else {}
    loopback = "LOOPBACK" in flags
    bridge = info.get("info_data", {}) if kind == "bridge" else {}
    port = info.get("info_slave_data", {}) if info.get("info_slave_kind") == "bridge" else {}
    there = each.get("link_index")
    unknown = {"xdp"} if "xdp" in each else set()
    unknown |= {title for name, title in _PORT_NOT_MODELLED.items() if port.get(name)}
    if bridge.get("vlan_filtering"):
        unknown.add("vlan_filtering")
    if data.get("external"):
        unknown.add("vxlan external")
    if there is None and each.get("link") is not None:
        there = _index(each["link"], indexes)
    return Link(
        index=each["ifindex"],
        name=each["ifname"],
        mtu=each["mtu"],
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        kind=kind,
        mac=None if loopback else _mac(each.get("address")),
        alias=each.get("ifalias"),
        master=_index(each["master"], indexes) if "master" in each else None,
        peer_index=there or None,
        # Without a number the other end is in a namespace that has none here: the kernel's -1.
        peer_netnsid=each.get("link_netnsid", -1) if "link_index" in each else None,
        loopback=loopback,
        vxlan=_vxlan(data, indexes) if "id" in data else None,
        bridge=_bridge(bridge) if kind == "bridge" else None,
        port=_port(port) if port else None,
        operstate=each.get("operstate", "unknown").lower(),
        not_modelled=frozenset(unknown),
    )


def _bridge(data: Object) -> BridgeSettings:
    return BridgeSettings(
        call_iptables=bool(data.get("nf_call_iptables")),
        call_ip6tables=bool(data.get("nf_call_ip6tables")),
    )


def _port(data: Object) -> PortSettings:
    state = data.get("state", "")
    return PortSettings(
        state=PORT_STATES.index(state) if state in PORT_STATES else _number(state),
        hairpin=bool(data.get("hairpin")),
        learning=bool(data.get("learning")),
        flood=bool(data.get("flood")),
        broadcast=bool(data.get("bcast_flood", True)),
        multicast=bool(data.get("mcast_flood", True)),
        isolated=bool(data.get("isolated")),
    )


def _vxlan(data: Object, indexes: Indexes) -> VXLANSettings:
    local = data.get("local") or data.get("local6")
    return VXLANSettings(
        vni=data["id"],
        port=data.get("port", 0),
        local=parse_address(local) if local else None,
        parent=_index(data["link"], indexes) if data.get("link") else None,
        learning=data.get("learning", True),
    )


def parse_addresses(text: str) -> tuple[Address, ...]:
    """`ip -j -N addr show`; IPv4 first, as the kernel lists them."""
    links = _each(_objects(text, "ip addr"), "ip addr", _addresses)
    found = [address for addresses in links for address in addresses]
    return tuple(sorted(found, key=lambda address: address.interface.version))


def _addresses(link: Object) -> list[Address]:
    device = link["ifindex"]
    listed = link.get("addr_info", ())
    return [_address(each, device) for each in listed if each.get("local")]


def _address(each: Object, device: int) -> Address:
    return Address(
        device=device,
        interface=parse_interface(f"{each['local']}/{each['prefixlen']}"),
        scope=_number(each.get("scope", 0)),
        tentative=bool(each.get("tentative") or each.get("dadfailed")),
    )


def parse_routes(text: str, version: int, indexes: Indexes) -> tuple[Route, ...]:
    """`ip -4|-6 -j -d -N route show table all`."""
    found = _objects(text, "ip route")
    return _each(found, "ip route", lambda each: _route(each, version, indexes))


def _route(each: Object, version: int, indexes: Indexes) -> Route:
    kind = RouteKind(_number(each.get("type", 1)))
    limits = {name: value for metric in each.get("metrics", ()) for name, value in metric.items()}
    return Route(
        key=RouteKey(
            destination=_network(each["dst"], version),
            table=_number(each.get("table", MAIN_TABLE)),
            metric=each.get("metric", 0),
            # An encapsulation has a TOS of its own, and the record has no room for both.
            tos=0 if "encap" in each else _number(each.get("tos", 0)),
        ),
        kind=kind,
        protocol=_number(each["protocol"]),
        scope=_number(each.get("scope", 0)),
        hops=() if kind in _WITHOUT_HOPS else _hops(each, indexes),
        source=parse_address(each["prefsrc"]) if "prefsrc" in each else None,
        mtu=limits.get("mtu"),
        nexthop_id=each.get("nhid"),
        not_modelled=frozenset(
            title for name, title in _ROUTE_NOT_MODELLED.items() if name in each
        ),
    )


def _hops(each: Object, indexes: Indexes) -> tuple[NextHop, ...]:
    if "nexthops" in each:
        return tuple(_hop(hop, indexes, hop.get("weight", 1)) for hop in each["nexthops"])
    if "dev" not in each and _gateway(each) is None:
        return ()
    return (_hop(each, indexes, 1),)


def _hop(each: Object, indexes: Indexes, weight: int) -> NextHop:
    flags = each.get("flags", ())
    return NextHop(
        device=_index(each["dev"], indexes) if "dev" in each else None,
        gateway=_gateway(each),
        onlink="onlink" in flags,
        weight=weight,
        dead="dead" in flags,
    )


def _gateway(each: Object) -> IPAddress | None:
    text = each.get("gateway") or each.get("via", {}).get("host")
    return parse_address(text) if text else None


def parse_rules(text: str, version: int) -> tuple[Rule, ...]:
    """`ip -4|-6 -j -d -N rule show`."""
    return _each(_objects(text, "ip rule"), "ip rule", lambda each: _rule(each, version))


def _rule(each: Object, version: int) -> Rule:
    action = "lookup"
    if "goto" in each:
        action = "goto"
    elif "action" in each:
        number = _number(each["action"])
        action = _RULE_ACTIONS.get(number, f"action {number}")
    mark, mask = each.get("fwmark"), each.get("fwmask")
    return Rule(
        family=version,
        priority=each["priority"],
        action=action,
        table=_number(each.get("table", 0)),
        source=_selector(each, "src", version),
        destination=_selector(each, "dst", version),
        iif=each.get("iif"),
        oif=each.get("oif"),
        mark=(_number(mark) or None) if mark is not None else None,
        mark_mask=None if mask is None else _number(mask),
        tos=_number(each.get("tos", 0)),
        invert="not" in each,
        suppress_prefix_length=each.get("suppress_prefixlen"),
        target=each.get("goto"),
        ip_protocol=_ip_protocol(each["ipproto"]) if "ipproto" in each else None,
        source_ports=_ports(each, "sport"),
        destination_ports=_ports(each, "dport"),
        protocol=_number(each.get("protocol", 0)),
        not_modelled=frozenset(title for name, title in _RULE_NOT_MODELLED.items() if name in each),
    )


def _selector(each: Object, side: str, version: int) -> IPNetwork | None:
    text = each.get(side, "all")
    if text == "all":
        return None
    length = each.get(f"{side}len")
    return _network(text if length is None else f"{text}/{length}", version)


def _ip_protocol(value: int | str) -> int:
    """Printed as `ipproto-17` by -N, and by name without."""
    names = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
    text = str(value).removeprefix("ipproto-")
    return names[text] if text in names else _number(text)


def _ports(each: Object, side: str) -> tuple[int, int] | None:
    if side in each:
        return each[side], each[side]
    if f"{side}_start" in each:
        return each[f"{side}_start"], each[f"{side}_end"]
    return None


def parse_neighbours(text: str, indexes: Indexes) -> tuple[Neighbour, ...]:
    """`ip -j neigh show nud all`, or `ip -j neigh show proxy`."""
    return _each(_objects(text, "ip neigh"), "ip neigh", lambda each: _neighbour(each, indexes))


def _neighbour(each: Object, indexes: Indexes) -> Neighbour:
    state = 0
    for name in each.get("state", ()):
        state |= _STATES[name]
    proxy = "proxy" in each
    return Neighbour(
        device=_index(each["dev"], indexes),
        address=parse_address(each["dst"]),
        mac=_mac(each.get("lladdr")),
        state=NUD_PERMANENT if proxy else state,
        proxy=proxy,
    )


def parse_fdb(text: str, indexes: Indexes) -> tuple[FDBEntry, ...]:
    """`bridge -j fdb show`; of several states of one entry only the strongest is printed."""
    return _each(_objects(text, "bridge fdb"), "bridge fdb", lambda each: _fdb(each, indexes))


def _fdb(each: Object, indexes: Indexes) -> FDBEntry:
    state = each.get("state", "")
    destination = each.get("dst")
    return FDBEntry(
        device=_index(each["ifname"], indexes),
        mac=each.get("mac", "00:00:00:00:00:00"),
        destination=parse_address(destination) if destination else None,
        state=_FDB_STATES[state] if state in _FDB_STATES else int(state.removeprefix("state="), 0),
        own="self" in each.get("flags", ()),
        master=_index(each["master"], indexes) if "master" in each else None,
        vni=each.get("vni"),
        port=each.get("port"),
        vlan=each.get("vlan"),
        sticky="sticky" in each.get("flags", ()),
    )


def strongest_state(state: int) -> int:
    """What `bridge fdb` tells of an entry's state."""
    return next((bit for bit in (NUD_PERMANENT, NUD_NOARP, NUD_STALE) if state & bit), state)


def parse_namespace_ids(text: str) -> dict[int, str]:
    """`ip -j netns list-id`: name under /run/netns by nsid, of those that have one."""
    found = _objects(text, "ip netns list-id")
    return {each["nsid"]: each["name"] for each in found if "name" in each}


def parse_qdiscs(text: str, indexes: Indexes) -> tuple[tuple[int, str], ...]:
    """`tc -j qdisc show`: link index and kind."""
    found = _objects(text, "tc qdisc")
    return _each(found, "tc qdisc", lambda each: (_index(each["dev"], indexes), each["kind"]))


def parse_sockets(text: str) -> tuple[str, ...]:
    """`ss -H -tuln`, as KernelState tells sockets: `tcp 0.0.0.0 5432`."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) < 5:
            raise BadInput(f"ss: {line!r} is not understood")
        address, _, port = words[4].rpartition(":")
        # `*` is an IPv6 socket that serves both families.
        address = address.partition("%")[0].strip("[]").replace("*", "::")
        found.add(f"{words[0]} {address} {port}")
    return tuple(sorted(found))


def parse_connections(text: str) -> tuple[str, ...]:
    """`conntrack -L` without what no packet is judged by: timers, states, counters."""
    return tuple(dict.fromkeys(_connection(line.split()) for line in text.splitlines() if line))


def _connection(words: list[str]) -> str:
    kept = [word for word in words[2:] if word.startswith(_CONNECTION_WORDS)]
    if not any(word.startswith("mark=") for word in kept):
        kept.append("mark=0")
    return " ".join([*words[:2], *kept])


def parse_sysctls(text: str) -> dict[str, str]:
    """`grep -H ''` of files below /proc/sys/net: `ipv4/conf/eth0/rp_filter:1`."""
    found = {}
    for line in text.splitlines():
        path, _, value = line.partition(":")
        if value:
            found[path.replace("/", ".", 1)] = value.strip()
    return found


def parse_nft(text: str) -> tuple[Mapping[str, object], ...]:
    """What `nft -j list table …` printed for each table, one document after the other.

    Its remarks about itself alone are an empty rule set.
    """
    found: list[Mapping[str, object]] = []
    rest = text.strip()
    try:
        while rest:
            listing, end = json.JSONDecoder().raw_decode(rest)
            found += listing["nftables"]
            rest = rest[end:].lstrip()
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        why = "it breaks off, as at a table that a program owns"
        raise BadInput(f"nft -j list table: {why}: {error!r}") from None
    if all("metainfo" in each for each in found):
        return ()
    return tuple(found)


# --- the pieces -------------------------------------------------------------------------------


def _objects(text: str, program: str) -> list[Object]:
    """The objects of a listing; some versions print nothing for nothing, and empty objects."""
    if not text.strip():
        return []
    try:
        found = json.loads(text, object_pairs_hook=_first_wins)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{program} printed no JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadInput(f"{program} printed no list of objects")
    return [each for each in found if each]


def _first_wins(pairs: list[tuple[str, Any]]) -> Object:
    """A route with an encapsulation prints `dst` twice: its own first, then the tunnel's."""
    found: Object = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _each(found: list[Object], program: str, function: Callable[[Object], Any]) -> tuple[Any, ...]:
    done = []
    for number, each in enumerate(found):
        try:
            done.append(function(each))
        except PodwireError as error:
            raise BadInput(f"{program}: entry {number}: {error.message}") from None
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{program}: entry {number} is not understood: {error!r}") from None
    return tuple(done)


def _index(name: str, indexes: Indexes) -> int:
    """A link's index; one of another namespace is printed as `if7`."""
    if name in indexes:
        return indexes[name]
    match = re.fullmatch(r"if(\d+)", name)
    if match is None:
        raise BadInput(f"there is no link {name!r}")
    return int(match[1])


def _network(text: str, version: int) -> IPNetwork:
    if text == "default":
        return parse_network("0.0.0.0/0" if version == 4 else "::/0")
    return parse_network(text) if "/" in text else host_network(parse_address(text))


def _number(value: int | str) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value, 0)
    except ValueError:
        raise BadInput(f"{value!r} is no number; this `ip` does not know -N") from None


def _mac(text: str | None) -> str | None:
    return text if text is not None and _MAC.fullmatch(text) else None
