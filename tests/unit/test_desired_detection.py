"""By which address a node is known: each method on one machine with many addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.desired.detection import Tables, candidates, detect
from podwire.desired.ways import foreign_routes
from podwire.errors import BadInput
from podwire.model.detection import Detection, Method, parse_detection
from podwire.model.link import Address, Link
from podwire.model.route import PROTOCOL_STATIC, NextHop, Route, RouteKey

if TYPE_CHECKING:
    from podwire.model.addressing import IPInterface

LINKS = [
    Link(index=1, name="lo", mtu=65536, up=True, carrier=True, loopback=True),
    Link(index=2, name="docker0", mtu=1500, up=True, carrier=False, kind="bridge"),
    Link(index=3, name="eth0", mtu=1500, up=True, carrier=True),
    Link(index=4, name="eth1", mtu=9000, up=True, carrier=True),
    Link(index=5, name="eth2", mtu=1500, up=False, carrier=False),
    Link(index=6, name="vxlan.calico", mtu=1450, up=True, carrier=True, kind="vxlan"),
    Link(index=7, name="cali12", mtu=1450, up=True, carrier=True, kind="veth"),
]
ADDRESSES = [
    *((1, "127.0.0.1/8", 254), (1, "10.9.9.1/32", 0)),
    *((2, "172.17.0.1/16", 0), (3, "169.254.7.7/16", 0), (3, "fe80::1/64", 253)),
    *((3, "192.168.1.7/24", 0), (3, "10.0.0.1/24", 0), (4, "10.0.1.1/24", 0)),
    *((5, "10.0.2.1/24", 0), (6, "10.244.0.0/32", 0), (7, "10.244.0.9/32", 0)),
]


def route(destination: str, device: int, gateway: str | None = None, **fields: object) -> Route:
    hop = NextHop(device=device, gateway=None if gateway is None else ip_address(gateway))
    metric = fields.pop("metric", 0)
    key = RouteKey(destination=ip_network(destination), metric=metric)  # type: ignore[arg-type]
    return Route(key=key, hops=(hop,), protocol=PROTOCOL_STATIC, **fields)  # type: ignore[arg-type]


DEFAULT = route("0.0.0.0/0", 3, "10.0.0.254")
ROUTES = [DEFAULT, route("198.51.100.0/24", 4, "10.0.1.254")]


def tables(*routes: Route) -> Tables:
    found = routes or tuple(ROUTES)
    return Tables(
        links={link.index: link for link in LINKS},
        addresses=[
            Address(device=device, interface=ip_interface(text), scope=scope)
            for device, text, scope in ADDRESSES
        ],
        default_routes=[each for each in found if each.key.destination.prefixlen == 0],
        routes=foreign_routes(found),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default-route", "10.0.0.1/24"),
        ("first-found", "192.168.1.7/24"),
        ("can-reach=198.51.100.9", "10.0.1.1/24"),
        ("can-reach=203.0.113.1", "10.0.0.1/24"),
        ("interface=eth1", "10.0.1.1/24"),
        ("interface=bond.*, eth[1-9]", "10.0.1.1/24"),
        ("interface=lo", "10.9.9.1/32"),
        ("interface=eth2", None),
        ("skip-interface=^lo,docker,eth0", "10.0.1.1/24"),
        ("cidr=10.0.0.0/16", "10.0.0.1/24"),
        ("cidr=172.16.0.0/12,10.0.1.0/24", "172.17.0.1/16"),
        ("cidr=10.244.0.0/16", None),
    ],
)
def test_each_method_finds_its_address(text: str, expected: str | None) -> None:
    found = detect(parse_detection(text), tables(), None)
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("first-fond", "no method 'first-fond'; first-found"),
        ("kubernetes-internal-ip", "needs the Kubernetes API"),
        ("can-reach=www.example.org", "takes one IPv4 address"),
        ("can-reach=fd00::1", "takes one IPv4 address"),
        ("can-reach=1.2.3", "not an IP address"),
        ("interface", "lacks its value"),
        ("interface=eth[", "not a regular expression"),
        ("cidr=10.0.0.1/8", "write 10.0.0.0/8"),
        ("first-found=eth0", "takes nothing"),
        ("", "no method ''"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parse_detection(text)
    assert words.split(";", maxsplit=1)[0] in f"{refusal.value}"
    assert refusal.value.fix
    assert words.rpartition("; ")[2] in f"{refusal.value}"


def test_the_default_route_s_preferred_source_counts_most() -> None:
    preferred = replace(DEFAULT, source=ip_address("10.9.9.1"))
    assert str(detect(Detection(), tables(preferred), None)) == "10.9.9.1/32"


def test_the_known_address_stays_while_some_device_carries_it() -> None:
    known = ip_interface("10.0.1.1/24")
    assert detect(Detection(), tables(), known) == known
    # Its subnet was made larger: the same address with another length.
    assert detect(Detection(), tables(), ip_interface("10.0.1.1/25")) == known
    # On a device that is down it stays no longer.
    assert str(detect(Detection(), tables(), ip_interface("10.0.2.1/24"))) == "10.0.0.1/24"
    # A tunnel's address is a pod's, whatever a Node object says.
    assert str(detect(Detection(), tables(), ip_interface("10.244.0.0/32"))) == "10.0.0.1/24"


def test_a_method_moves_the_node_only_when_it_must() -> None:
    first = parse_detection("first-found")
    assert str(detect(first, tables(), ip_interface("10.0.1.1/24"))) == "10.0.1.1/24"
    assert str(detect(first, tables(), ip_interface("172.17.0.1/16"))) == "192.168.1.7/24"


METHODS = [
    *("default-route", "first-found", "can-reach=198.51.100.9", "interface=eth.*"),
    *("skip-interface=eth.*", "cidr=10.0.0.0/8"),
]
KNOWN = [ip_interface(text) for _, text, _ in ADDRESSES if ":" not in text]


@given(st.sampled_from(METHODS), st.none() | st.sampled_from(KNOWN))
def test_what_is_found_stays_found(text: str, known: IPInterface | None) -> None:
    detection = parse_detection(text)
    found = detect(detection, tables(), known)
    assert found is not None
    assert detect(detection, tables(), found) == found
    if detection.method is not Method.DEFAULT_ROUTE:
        assert found in candidates(detection, tables())
