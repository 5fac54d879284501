"""The netlink codec: what is encoded is decoded again, and nonsense is refused, never a crash."""

from __future__ import annotations

import errno
from contextlib import suppress
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.drivers.netlink import requests, wire
from podwire.drivers.netlink.decode import (
    decode_address,
    decode_fdb,
    decode_link,
    decode_neighbour,
)
from podwire.drivers.netlink.describe import describe
from podwire.drivers.netlink.refusal import error_number, explanation, refused, translated
from podwire.drivers.netlink.request import Request
from podwire.drivers.netlink.route_decode import decode_route, decode_rule
from podwire.errors import (
    BadInput,
    Forbidden,
    InterfaceExists,
    KernelError,
    LinkNotReady,
    NotThere,
    Unsupported,
)
from podwire.model.link import Address, VXLANSettings
from podwire.model.overlay import FDBEntry, Neighbour
from podwire.model.route import NextHop, Route, RouteKey, RouteKind, Rule, normal

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPAddress, IPNetwork

DECODERS: list[Callable[[bytes, int, int], object]] = [
    decode_link,
    decode_address,
    decode_neighbour,
    decode_fdb,
    decode_route,
    decode_rule,
]

indexes = st.integers(1, 2**31 - 1)
numbers = st.integers(0, 2**32 - 1)
addresses4 = st.integers(0, 2**32 - 1).map(IPv4Address)
addresses6 = st.integers(0, 2**128 - 1).map(IPv6Address)
networks4 = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
networks6 = st.builds(
    lambda address, length: IPv6Network((address, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)
macs = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Any route that the kernel could list."""
    version = draw(st.sampled_from([4, 6]))
    gateways: st.SearchStrategy[IPAddress] = addresses4 if version == 4 else addresses6
    networks: st.SearchStrategy[IPNetwork] = networks4 if version == 4 else networks6
    hops = st.builds(
        NextHop,
        device=indexes,
        gateway=st.none() | gateways | addresses6,
        onlink=st.booleans(),
        weight=st.integers(1, 256),
    )
    key = RouteKey(
        destination=draw(networks),
        table=draw(numbers),
        metric=draw(st.integers(1, 2**32 - 1)),
        tos=draw(st.integers(0, 255)),
    )
    return normal(
        Route(
            key=key,
            kind=draw(st.sampled_from(RouteKind)),
            protocol=draw(st.integers(0, 255)),
            scope=draw(st.integers(0, 255)),
            hops=tuple(draw(st.lists(hops, min_size=1, max_size=4))),
            source=draw(st.none() | gateways),
            mtu=draw(st.none() | st.integers(1, 2**32 - 1)),
        )
    )


rules = st.integers().flatmap(
    lambda seed: st.builds(
        Rule,
        family=st.just(4 if seed % 2 else 6),
        priority=numbers,
        action=st.sampled_from(sorted(requests.RULE_ACTIONS)),
        table=numbers,
        source=st.none() | (networks4 if seed % 2 else networks6),
        destination=st.none() | (networks4 if seed % 2 else networks6),
        iif=st.none() | st.just("eth0"),
        oif=st.none() | st.just("cali12345678901"),
        mark=st.none() | numbers,
        mark_mask=st.none() | st.integers(0, 2**32 - 2),
        tos=st.integers(0, 255),
        invert=st.booleans(),
        suppress_prefix_length=st.none() | st.integers(0, 128),
        target=st.none() | numbers,
        protocol=st.integers(0, 255),
    )
)
neighbours = st.builds(
    Neighbour,
    device=indexes,
    address=addresses4 | addresses6,
    mac=st.none() | macs,
    state=st.sampled_from([2, 4, 0x80]),
)
fdb_entries = st.builds(
    FDBEntry,
    device=indexes,
    mac=macs,
    destination=st.none() | addresses4 | addresses6,
    state=st.sampled_from([2, 0x80, 0xC0]),
    own=st.booleans(),
    vni=st.none() | numbers,
    port=st.none() | st.integers(0, 65535),
)
addresses = st.builds(
    lambda device, address, share, scope: Address(
        device=device,
        interface=ip_interface(f"{address}/{share % (address.max_prefixlen + 1)}"),
        scope=scope,
    ),
    indexes,
    addresses4 | addresses6,
    st.integers(0, 128),
    st.integers(0, 255),
)


@given(routes())
def test_a_route_survives_the_wire(route: Route) -> None:
    payload = requests.replace_route(route).payload
    assert decode_route(payload, 0, len(payload)) == route
    assert describe(route).startswith("route ")


@given(rules)
def test_a_rule_survives_the_wire(rule: Rule) -> None:
    payload = requests.add_rule(rule).payload
    assert decode_rule(payload, 0, len(payload)) == rule
    assert describe(rule).startswith("rule ")


@given(neighbours)
def test_a_neighbour_survives_the_wire(neighbour: Neighbour) -> None:
    payload = requests.replace_neighbour(neighbour).payload
    assert decode_neighbour(payload, 0, len(payload)) == neighbour
    assert str(neighbour.address) in describe(neighbour)


@given(fdb_entries)
def test_a_forwarding_entry_survives_the_wire(entry: FDBEntry) -> None:
    payload = requests.replace_fdb(entry).payload
    assert decode_fdb(payload, 0, len(payload)) == entry
    assert entry.mac in describe(entry)


@given(addresses)
def test_an_address_survives_the_wire(address: Address) -> None:
    payload = requests.replace_address(address).payload
    assert decode_address(payload, 0, len(payload)) == address
    assert str(address.interface) in describe(address)


def test_a_link_survives_the_wire() -> None:
    settings = VXLANSettings(
        vni=4096, port=4789, local=ip_address("192.0.2.1"), parent=7, learning=False
    )
    payload = requests.create_vxlan("vx0", settings, mac="66:00:00:00:00:01", mtu=1450).payload
    link = decode_link(payload, 0, len(payload))
    assert (link.name, link.kind, link.vxlan, link.mtu) == ("vx0", "vxlan", settings, 1450)


SAMPLES = [
    requests.create_vxlan("vx0", VXLANSettings(vni=1, port=4789), mac="66:00:00:00:00:01"),
    requests.create_veth("a", peer_name="b", mtu=1500, mac="66:00:00:00:00:01", up=True),
    requests.replace_address(Address(device=1, interface=ip_interface("fd00::1/64"))),
    requests.replace_neighbour(
        Neighbour(device=1, address=ip_address("10.0.0.1"), mac="02:00:00:00:00:01")
    ),
    requests.replace_route(
        Route(
            key=RouteKey(destination=ip_network("10.0.0.0/8"), metric=5),
            hops=tuple(NextHop(device=n, gateway=ip_address(f"10.0.0.{n}")) for n in (1, 2)),
            mtu=1400,
        )
    ),
    requests.add_rule(Rule(family=4, priority=1, table=5, source=ip_network("10.0.0.0/8"))),
]


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=120))
def test_nonsense_is_refused_and_never_crashes(
    decode: Callable[[bytes, int, int], object], data: bytes
) -> None:
    with suppress(wire.Malformed):
        decode(data, 0, len(data))


@pytest.mark.parametrize("decode", DECODERS)
@given(sample=st.sampled_from(SAMPLES), cut=st.integers(0, 400), place=st.integers(0, 400),
       byte=st.integers(0, 255))  # fmt: skip
def test_a_damaged_message_is_refused_and_never_crashes(
    decode: Callable[[bytes, int, int], object], sample: Request, cut: int, place: int, byte: int
) -> None:
    data = bytearray(sample.payload[:cut])
    if place < len(data):
        data[place] = byte
    with suppress(wire.Malformed):
        decode(bytes(data), 0, len(data))


@given(st.binary(max_size=200))
def test_a_datagram_of_nonsense_ends(data: bytes) -> None:
    try:
        for _, _, _, _, start, end in wire.messages(data):
            assert 0 <= start <= end <= len(data)
            wire.attributes(data, start, end)
    except wire.Malformed:
        pass


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_an_answer_of_nonsense_is_refused_and_never_crashes(data: bytes, flags: int) -> None:
    try:
        error_number(data, 0, len(data))
        explanation(data, flags, 0, len(data))
    except wire.Malformed:
        pass


@pytest.mark.parametrize(
    ("number", "kind", "expected"),
    [
        (errno.EPERM, wire.NEWROUTE, Forbidden),
        (errno.EEXIST, wire.NEWLINK, InterfaceExists),
        (errno.EEXIST, wire.NEWROUTE, KernelError),
        (errno.EOPNOTSUPP, wire.NEWLINK, Unsupported),
        (errno.ENETDOWN, wire.NEWROUTE, LinkNotReady),
        (errno.ENODEV, wire.NEWADDR, NotThere),
        (errno.ESRCH, wire.DELROUTE, NotThere),
        (errno.ENOENT, wire.DELRULE, NotThere),
        (errno.EADDRNOTAVAIL, wire.DELADDR, NotThere),
        (errno.EINVAL, wire.NEWROUTE, KernelError),
    ],
)
def test_every_refusal_has_its_class(number: int, kind: int, expected: type[Exception]) -> None:
    request = Request(kind, 0, b"", "change", "it")
    error = translated(refused(number, request.subject), request)
    assert type(error) is expected
    assert error.message.startswith("change it: ")


def test_the_kernels_sentence_comes_first_and_the_number_stays() -> None:
    error = refused(errno.ENETUNREACH, "replace route", "Nexthop has invalid gateway")
    assert str(error) == ("replace route: Nexthop has invalid gateway (Network is unreachable)")
    assert error.errno == errno.ENETUNREACH


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "0200.0000.0001"])
def test_what_is_no_mac_is_refused(mac: str) -> None:
    with pytest.raises(BadInput):
        requests.set_link(1, mac=mac)


def test_an_alias_too_long_is_refused() -> None:
    with pytest.raises(BadInput):
        requests.set_link(1, alias="x" * 256)
