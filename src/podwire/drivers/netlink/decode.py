"""rtnetlink messages → values of the model. Pure.

Each function takes a datagram and the bounds of one message's body in it, and raises `Malformed`
when the body does not hold what its type promises. Routes and rules: route_decode.
Source: rtnl_fill_ifinfo, inet_fill_ifaddr, neigh_fill_info, vxlan_fdb_info in the kernel.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from podwire.drivers.netlink import wire
from podwire.drivers.netlink.wire import Malformed, attributes, nested
from podwire.model.link import Address, BridgeSettings, Link, PortSettings, VXLANSettings
from podwire.model.overlay import NUD_PERMANENT, FDBEntry, Neighbour

if TYPE_CHECKING:
    from struct import Struct

_IFF_UP, _IFF_LOOPBACK, _IFF_LOWER_UP = 0x1, 0x8, 0x10000
_ARPHRD_LOOPBACK = 772
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS = 16, 18, 20
_IFLA_LINK_NETNSID, _IFLA_XDP = 37, 43
_XDP_ATTACHED = 2
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BR_VLAN_FILTERING, _BR_CALL_IPTABLES, _BR_CALL_IP6TABLES = 7, 36, 37
_PORT_STATE, _PORT_HAIRPIN, _PORT_LEARNING, _PORT_FLOOD = 1, 4, 8, 9
_PORT_MULTICAST, _PORT_BROADCAST, _PORT_ISOLATED = 27, 30, 33
_PORT_NOT_MODELLED = {
    10: "proxy_arp of the port",
    12: "proxy_arp_wifi of the port",
    29: "vlan_tunnel of the port",
    32: "neigh_suppress of the port",
    39: "a locked port",
}
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_VXLAN_LOCAL6, _VXLAN_COLLECT_METADATA = 17, 25
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_NDA_DST, _NDA_LLADDR, _NDA_VLAN, _NDA_PORT, _NDA_VNI, _NDA_MASTER = 1, 2, 5, 6, 7, 9
_NTF_SELF, _NTF_PROXY, _NTF_STICKY = 0x02, 0x08, 0x40

_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")


def decode_link(data: bytes, start: int, end: int) -> Link:
    """A link from RTM_NEWLINK or RTM_DELLINK."""
    _, hardware, index, flags, _ = _body(wire.LINK, data, start, end, "link")
    found = attributes(data, start + wire.LINK.size, end)
    if _IFLA_IFNAME not in found:
        raise Malformed("link")
    info = nested(found.get(_IFLA_LINKINFO, b""))
    kind = wire.string(info[_INFO_KIND]) if _INFO_KIND in info else None
    data_of = nested(info.get(_INFO_DATA, b"")) if kind in {"vxlan", "bridge"} else {}
    settings = data_of if kind == "vxlan" else {}
    bridge = data_of if kind == "bridge" else {}
    is_port = wire.string(info.get(_INFO_SLAVE_KIND, b"\0")) == "bridge"
    port = nested(info.get(_INFO_SLAVE_DATA, b"")) if is_port else {}
    unknown = {name for number, name in _PORT_NOT_MODELLED.items() if _is_on(port, number)}
    if _is_on(bridge, _BR_VLAN_FILTERING):
        unknown.add("vlan_filtering")
    if wire.u8(nested(found.get(_IFLA_XDP, b"")).get(_XDP_ATTACHED, b"\0")):
        unknown.add("xdp")
    if _VXLAN_COLLECT_METADATA in settings and wire.u8(settings[_VXLAN_COLLECT_METADATA]):
        unknown.add("vxlan external")
    state = wire.u8(found.get(_IFLA_OPERSTATE, b"\0"))
    loopback = hardware == _ARPHRD_LOOPBACK
    return Link(
        index=index,
        name=wire.string(found[_IFLA_IFNAME]),
        mtu=wire.u32(found.get(_IFLA_MTU, b"\0\0\0\0")),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        kind=kind,
        mac=None if loopback else wire.mac_text(found.get(_IFLA_ADDRESS, b"")),
        alias=wire.string(found[_IFLA_IFALIAS]) if _IFLA_IFALIAS in found else None,
        master=wire.u32(found[_IFLA_MASTER]) if _IFLA_MASTER in found else None,
        # 0: a tunnel that is bound to no device.
        peer_index=(wire.u32(found[_IFLA_LINK]) or None) if _IFLA_LINK in found else None,
        peer_netnsid=wire.i32(found[_IFLA_LINK_NETNSID]) if _IFLA_LINK_NETNSID in found else None,
        loopback=loopback,
        vxlan=_vxlan(settings) if _VXLAN_ID in settings else None,
        bridge=_bridge(bridge) if kind == "bridge" else None,
        port=_port(port) if port else None,
        operstate=_OPERSTATES[state] if state < len(_OPERSTATES) else str(state),
        not_modelled=frozenset(unknown),
    )


def _is_on(found: dict[int, bytes], number: int) -> bool:
    return bool(wire.u8(found.get(number, b"\0")))


def _bridge(found: dict[int, bytes]) -> BridgeSettings:
    return BridgeSettings(
        call_iptables=_is_on(found, _BR_CALL_IPTABLES),
        call_ip6tables=_is_on(found, _BR_CALL_IP6TABLES),
    )


def _port(found: dict[int, bytes]) -> PortSettings:
    return PortSettings(
        state=wire.u8(found.get(_PORT_STATE, b"\0")),
        hairpin=_is_on(found, _PORT_HAIRPIN),
        learning=_is_on(found, _PORT_LEARNING),
        flood=_is_on(found, _PORT_FLOOD),
        broadcast=_is_on(found, _PORT_BROADCAST),
        multicast=_is_on(found, _PORT_MULTICAST),
        isolated=_is_on(found, _PORT_ISOLATED),
    )


def _vxlan(settings: dict[int, bytes]) -> VXLANSettings:
    local = settings.get(_VXLAN_LOCAL) or settings.get(_VXLAN_LOCAL6)
    return VXLANSettings(
        vni=wire.u32(settings[_VXLAN_ID]),
        port=wire.be16(settings.get(_VXLAN_PORT, b"\0\0")),
        local=wire.ip(local) if local else None,
        parent=wire.u32(settings[_VXLAN_LINK]) if _VXLAN_LINK in settings else None,
        learning=bool(wire.u8(settings.get(_VXLAN_LEARNING, b"\1"))),
    )


def decode_address(data: bytes, start: int, end: int) -> Address:
    """An address from RTM_NEWADDR or RTM_DELADDR."""
    _, length, flags, scope, device = _body(wire.ADDRESS, data, start, end, "address")
    found = attributes(data, start + wire.ADDRESS.size, end)
    if _IFA_FLAGS in found:
        flags = wire.u32(found[_IFA_FLAGS])
    # Where both are there, IFA_ADDRESS is the other end of a point-to-point link.
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if packed is None:
        raise Malformed("address")
    family = IPv4Interface if len(packed) == 4 else IPv6Interface
    try:
        interface = family((packed, length))
    except ValueError:
        raise Malformed("address") from None
    return Address(
        device=device,
        interface=interface,
        scope=scope,
        tentative=bool(flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)),
    )


def decode_neighbour(data: bytes, start: int, end: int) -> Neighbour:
    """An ARP or NDP entry from RTM_NEWNEIGH or RTM_DELNEIGH.

    A proxy entry never expires; it is told as permanent, though the kernel gives it no state.
    """
    _, device, state, flags, _ = _body(wire.NEIGHBOUR, data, start, end, "neighbour")
    found = attributes(data, start + wire.NEIGHBOUR.size, end)
    proxy = bool(flags & _NTF_PROXY)
    return Neighbour(
        device=device,
        address=wire.ip(found.get(_NDA_DST, b"")),
        mac=wire.mac_text(found.get(_NDA_LLADDR, b"")),
        state=NUD_PERMANENT if proxy else state,
        proxy=proxy,
    )


def decode_fdb(data: bytes, start: int, end: int) -> FDBEntry:
    """A forwarding entry from RTM_NEWNEIGH or RTM_DELNEIGH of family AF_BRIDGE."""
    _, device, state, flags, _ = _body(wire.NEIGHBOUR, data, start, end, "forwarding entry")
    found = attributes(data, start + wire.NEIGHBOUR.size, end)
    mac = wire.mac_text(found.get(_NDA_LLADDR, b""))
    return FDBEntry(
        device=device,
        # A vxlan device without a MAC table entry yet tells of its default as all zero.
        mac=mac or "00:00:00:00:00:00",
        destination=wire.ip(found[_NDA_DST]) if _NDA_DST in found else None,
        state=state,
        own=bool(flags & _NTF_SELF),
        master=wire.u32(found[_NDA_MASTER]) if _NDA_MASTER in found else None,
        vni=wire.u32(found[_NDA_VNI]) if _NDA_VNI in found else None,
        port=wire.be16(found[_NDA_PORT]) if _NDA_PORT in found else None,
        vlan=wire.u16(found[_NDA_VLAN]) if _NDA_VLAN in found else None,
        sticky=bool(flags & _NTF_STICKY),
    )


def _body(shape: Struct, data: bytes, start: int, end: int, what: str) -> tuple[int, ...]:
    if start + shape.size > end:
        raise Malformed(what)
    fields: tuple[int, ...] = shape.unpack_from(data, start)
    return fields
