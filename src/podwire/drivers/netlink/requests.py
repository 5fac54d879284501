"""Values → rtnetlink requests. Pure: nothing is sent here.

Every builder returns one `Request`; hand them to `Session.run` or `Session.apply`. What cannot be
said at all (a name of twenty bytes) raises BadInput here, everything else is the kernel's to judge.
Source: net/core/rtnetlink.c, drivers/net/{veth,vxlan}.c, net/ipv4/fib_frontend.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.request import Request
from podwire.drivers.netlink.route_requests import create_route, delete_route, replace_route
from podwire.drivers.netlink.wire import attribute, number
from podwire.model.overlay import NUD_PERMANENT

if TYPE_CHECKING:
    from podwire.model.link import Address, VXLANSettings
    from podwire.model.overlay import FDBEntry, Neighbour
    from podwire.model.route import Rule

__all__ = [
    "Request",
    "add_rule",
    "create_bridge",
    "create_device",
    "create_ipip",
    "create_route",
    "create_veth",
    "create_vxlan",
    "delete_address",
    "delete_fdb",
    "delete_link",
    "delete_neighbour",
    "delete_route",
    "delete_rule",
    "move_vxlan",
    "replace_address",
    "replace_fdb",
    "replace_neighbour",
    "replace_route",
    "set_link",
]

IFF_UP = 1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 18, 20, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_VXLAN_LOCAL6 = 17
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_NDA_DST, _NDA_LLADDR, _NDA_PORT, _NDA_VNI = 1, 2, 6, 7
_NTF_SELF, _NTF_MASTER, _NTF_PROXY = 0x02, 0x04, 0x08

_CREATE = wire.F_CREATE | wire.F_EXCL
_REPLACE = wire.F_CREATE | wire.F_REPLACE


# --- links ------------------------------------------------------------------------------------


def create_veth(  # noqa: PLR0913  # one message makes both ends complete: no half-made pair exists
    name: str,
    *,
    peer_name: str,
    peer_namespace: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    peer_mac: str | None = None,
    alias: str | None = None,
    up: bool = False,
    queues: int = 1,
) -> Request:
    """Make a veth pair, its peer directly in the namespace of a descriptor (None: here).

    `queues` is one per end, as Calico makes them: the kernel's own choice is one per processor,
    which takes time and memory for every pod. The peer cannot be set up in the same message: the
    driver opens it before it knows its other end (veth_open answers ENOTCONN).

    Raises:
        BadInput: a name or MAC that no interface can have.
    """
    common = b"" if mtu is None else number(_IFLA_MTU, mtu)
    common += number(_IFLA_NUM_TX_QUEUES, queues) + number(_IFLA_NUM_RX_QUEUES, queues)
    peer = wire.LINK.pack(0, 0, 0, 0, 0) + wire.name(_IFLA_IFNAME, peer_name) + common
    if peer_mac is not None:
        peer += wire.mac(_IFLA_ADDRESS, peer_mac)
    if peer_namespace is not None:
        peer += number(_IFLA_NET_NS_FD, peer_namespace)
    own = common if mac is None else common + wire.mac(_IFLA_ADDRESS, mac)
    # The kernel reads an alias only when it changes a link, not when it makes one.
    follow = None if alias is None else set_link(name, alias=alias)
    return _create(name, "veth", own, attribute(_VETH_INFO_PEER, peer), up=up, follow=follow)


def create_bridge(
    name: str, *, mtu: int | None = None, mac: str | None = None, up: bool = False
) -> Request:
    """Make a bridge; a MAC given is kept, else it follows the lowest of the ports."""
    return _create(name, "bridge", _mtu_and_mac(mtu, mac), up=up)


def create_vxlan(
    name: str,
    settings: VXLANSettings,
    *,
    mac: str | None = None,
    mtu: int | None = None,
    up: bool = False,
) -> Request:
    """Make a vxlan device; a parent and a local address of another family are refused.

    The kernel gives EEXIST, too, when another vxlan device here has the same VNI and port.
    """
    data = _vxlan_place(settings) + attribute(_VXLAN_PORT, wire.BE16.pack(settings.port))
    data += attribute(_VXLAN_LEARNING, bytes([settings.learning]))
    return _create(name, "vxlan", _mtu_and_mac(mtu, mac), data, up=up)


def move_vxlan(name: str, settings: VXLANSettings) -> Request:
    """Give a living vxlan device another local address and parent: its entries and routes stay.

    Kernels before Linux 5.0 answer EOPNOTSUPP.
    """
    info = attribute(_IFLA_INFO_KIND, b"vxlan")
    info += attribute(_IFLA_INFO_DATA, _vxlan_place(settings))
    payload = _reference(name, 0, 0) + attribute(_IFLA_LINKINFO, info)
    return Request(wire.NEWLINK, 0, payload, "move", f"vxlan {name}")


def _vxlan_place(settings: VXLANSettings) -> bytes:
    data = number(_VXLAN_ID, settings.vni)
    if settings.local is not None:
        kind = _VXLAN_LOCAL if settings.local.version == 4 else _VXLAN_LOCAL6
        data += attribute(kind, settings.local.packed)
    if settings.parent is not None:
        data += number(_VXLAN_LINK, settings.parent)
    return data


def create_ipip(name: str) -> Request:
    """Make an ipip device without fixed ends.

    Loading the module makes `tunl0` in every namespace by itself; asking for it then gives EEXIST.
    A kernel without the module answers EOPNOTSUPP.
    """
    return _create(name, "ipip", b"")


def create_device(name: str, kind: str, *, mtu: int | None = None, up: bool = False) -> Request:
    """Make a device of a kind that needs no settings (dummy, ifb …)."""
    return _create(name, kind, _mtu_and_mac(mtu, None), up=up)


def set_link(  # noqa: PLR0913  # everything one message can change
    link: int | str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    alias: str | None = None,
    new_name: str | None = None,
    master: int | None = None,
    namespace: int | None = None,
) -> Request:
    """Change a link, by index or name; None leaves a setting alone.

    `master` 0 takes the port out of its bridge; `alias` "" removes it; `namespace` is a descriptor
    to move the device to, where it is down and gets `new_name` if one is given.

    Raises:
        ValueError: `new_name` together with a name: the message has room for one name only.
        BadInput: a name, alias or MAC that no interface can have.
    """
    if new_name is not None and isinstance(link, str):
        raise ValueError("rename a link by its index")
    flags, mask = (IFF_UP if up else 0), (0 if up is None else IFF_UP)
    payload = _reference(link, flags, mask) + _mtu_and_mac(mtu, mac)
    if new_name is not None:
        payload += wire.name(_IFLA_IFNAME, new_name)
    if alias is not None:
        payload += attribute(_IFLA_IFALIAS, wire.alias_bytes(alias))
    if master is not None:
        payload += number(_IFLA_MASTER, master)
    if namespace is not None:
        payload += number(_IFLA_NET_NS_FD, namespace)
    return Request(wire.SETLINK, 0, payload, "set", _titled(link))


def delete_link(link: int | str) -> Request:
    """Take a link away, by index or name; a veth's peer goes with it."""
    return Request(wire.DELLINK, 0, _reference(link, 0, 0), "delete", _titled(link))


def _create(
    name: str,
    kind: str,
    settings: bytes,
    data: bytes = b"",
    *,
    up: bool = False,
    follow: Request | None = None,
) -> Request:
    info = attribute(_IFLA_INFO_KIND, kind.encode())
    if data:
        info += attribute(_IFLA_INFO_DATA, data)
    flags = IFF_UP if up else 0
    payload = wire.LINK.pack(0, 0, 0, flags, flags) + wire.name(_IFLA_IFNAME, name)
    payload += settings + attribute(_IFLA_LINKINFO, info)
    return Request(wire.NEWLINK, _CREATE, payload, "create", f"{kind} {name}", follow)


def _mtu_and_mac(mtu: int | None, mac: str | None) -> bytes:
    settings = b"" if mtu is None else number(_IFLA_MTU, mtu)
    return settings if mac is None else settings + wire.mac(_IFLA_ADDRESS, mac)


def _reference(link: int | str, flags: int, mask: int) -> bytes:
    if isinstance(link, int):
        return wire.LINK.pack(0, 0, link, flags, mask)
    return wire.LINK.pack(0, 0, 0, flags, mask) + wire.name(_IFLA_IFNAME, link)


def _titled(link: int | str) -> str:
    return f"link {link}"


# --- addresses --------------------------------------------------------------------------------


def replace_address(address: Address, *, detect_duplicates: bool = True) -> Request:
    """Give a device an address; `detect_duplicates` False skips IPv6's second of waiting."""
    skip = 0 if detect_duplicates or address.interface.version == 4 else _IFA_F_NODAD
    return Request(wire.NEWADDR, _REPLACE, _address(address, skip), "replace", address)


def delete_address(address: Address) -> Request:
    """Take an address away from a device."""
    return Request(wire.DELADDR, 0, _address(address, 0), "delete", address)


def _address(address: Address, flags: int) -> bytes:
    interface = address.interface
    family, packed = wire.family_of(interface.ip), interface.ip.packed
    head = wire.ADDRESS.pack(
        family, interface.network.prefixlen, flags, address.scope, address.device
    )
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


# --- neighbours and forwarding entries --------------------------------------------------------


def replace_neighbour(neighbour: Neighbour) -> Request:
    """Make an ARP or NDP entry exactly so."""
    return Request(wire.NEWNEIGH, _REPLACE, _neighbour(neighbour), "replace", neighbour)


def delete_neighbour(neighbour: Neighbour) -> Request:
    """Take an ARP or NDP entry away."""
    return Request(wire.DELNEIGH, 0, _neighbour(neighbour), "delete", neighbour)


def _neighbour(neighbour: Neighbour) -> bytes:
    flags = _NTF_PROXY if neighbour.proxy else 0
    family = wire.family_of(neighbour.address)
    head = wire.NEIGHBOUR.pack(family, neighbour.device, neighbour.state, flags, 0)
    payload = head + attribute(_NDA_DST, neighbour.address.packed)
    return payload if neighbour.mac is None else payload + wire.mac(_NDA_LLADDR, neighbour.mac)


def replace_fdb(entry: FDBEntry) -> Request:
    """Make a forwarding entry exactly so.

    For a broadcast MAC (all zero or a group address) a vxlan device keeps a list of destinations;
    there the entry is added to the list, because the kernel replaces unicast entries only.
    """
    group = bool(wire.mac_bytes(entry.mac)[0] & 1) or entry.mac == "00:00:00:00:00:00"
    flags = wire.F_CREATE | (wire.F_APPEND if group and entry.destination else wire.F_REPLACE)
    return Request(wire.NEWNEIGH, flags, _fdb(entry), "replace", entry)


def delete_fdb(entry: FDBEntry) -> Request:
    """Take a forwarding entry away."""
    return Request(wire.DELNEIGH, 0, _fdb(entry), "delete", entry)


def _fdb(entry: FDBEntry) -> bytes:
    # Without NTF_SELF or NTF_MASTER the kernel would look for a bridge above the device.
    flags = _NTF_SELF if entry.own else _NTF_MASTER
    payload = wire.NEIGHBOUR.pack(
        wire.AF_BRIDGE, entry.device, entry.state or NUD_PERMANENT, flags, 0
    )
    payload += wire.mac(_NDA_LLADDR, entry.mac)
    if entry.destination is not None:
        payload += attribute(_NDA_DST, entry.destination.packed)
    if entry.vni is not None:
        payload += number(_NDA_VNI, entry.vni)
    if entry.port is not None:
        payload += attribute(_NDA_PORT, wire.BE16.pack(entry.port))
    return payload


# --- rules ------------------------------------------------------------------------------------

RULE_ACTIONS = {"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}
RULE_INVERT = 0x2
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_PROTOCOL = 14, 15, 16, 17, 21


def add_rule(rule: Rule) -> Request:
    """Add a policy rule; EEXIST when exactly this rule is there."""
    return Request(wire.NEWRULE, _CREATE, _rule(rule), "add", rule)


def delete_rule(rule: Rule) -> Request:
    """Take away the rule with exactly these fields."""
    return Request(wire.DELRULE, 0, _rule(rule), "delete", rule)


def _rule(rule: Rule) -> bytes:
    source, destination = rule.source, rule.destination
    payload = wire.RULE.pack(
        wire.AF_INET if rule.family == 4 else wire.AF_INET6,
        destination.prefixlen if destination else 0,
        source.prefixlen if source else 0,
        rule.tos,
        rule.table if rule.table < 256 else 0,
        0,
        0,
        RULE_ACTIONS[rule.action],
        RULE_INVERT if rule.invert else 0,
    )
    payload += number(_FRA_PRIORITY, rule.priority) + number(_FRA_TABLE, rule.table)
    payload += attribute(_FRA_PROTOCOL, bytes([rule.protocol]))
    if destination:
        payload += attribute(_FRA_DST, destination.network_address.packed)
    if source:
        payload += attribute(_FRA_SRC, source.network_address.packed)
    for kind, interface in ((_FRA_IIFNAME, rule.iif), (_FRA_OIFNAME, rule.oif)):
        if interface is not None:
            payload += wire.name(kind, interface)
    for kind, value in (
        (_FRA_FWMARK, rule.mark),
        (_FRA_FWMASK, rule.mark_mask),
        (_FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix_length),
        (_FRA_GOTO, rule.target),
    ):
        if value is not None:
            payload += number(kind, value)
    return payload
