"""By which next hops other nodes are reached: the longest match, and only through what is up."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.desired.here import find_underlay, routed_mtu
from podwire.desired.ways import devices_to, find_route, foreign_routes, leaves_as, ways_to
from podwire.model.link import Address, Link
from podwire.model.route import (
    PROTOCOL_PODWIRE,
    PROTOCOL_STATIC,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

OTHER = ip_address("10.9.9.2")


def link(index: int, **fields: object) -> Link:
    given_ = {"index": index, "name": f"eth{index}", "mtu": 1500, "up": True, "carrier": True}
    return Link(**{**given_, **fields})  # type: ignore[arg-type]


def hop(device: int, gateway: str | None = None) -> NextHop:
    return NextHop(device=device, gateway=None if gateway is None else ip_address(gateway))


def route(to: str, *hops: NextHop, metric: int = 0, **fields: object) -> Route:
    key = RouteKey(destination=ip_network(to), metric=metric)
    return Route(key=key, hops=hops, **{"protocol": PROTOCOL_STATIC, **fields})  # type: ignore[arg-type]


def ways(routes: Sequence[Route], *links: Link) -> list[tuple[int | None, str]]:
    found = ways_to(OTHER, foreign_routes(routes), {each.index: each for each in links})
    return [(each.device, str(each.gateway)) for each in found]


BOTH = route("10.9.9.2/32", hop(2, "10.0.0.2"), hop(3, "10.0.1.2"))


def test_all_next_hops_of_the_longest_match() -> None:
    default = route("0.0.0.0/0", hop(2, "10.0.0.254"))
    both = [(2, "10.0.0.2"), (3, "10.0.1.2")]
    assert ways([default, BOTH], link(2), link(3)) == both
    assert ways([default], link(2)) == [(2, "10.0.0.254")]
    assert ways([], link(2)) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (link(3, up=False, carrier=False), [(2, "10.0.0.2")]),
        (link(3, carrier=False), [(2, "10.0.0.2")]),
        (link(4), [(2, "10.0.0.2")]),
    ],
    ids=["down", "without carrier", "gone"],
)
def test_a_lost_uplink_is_no_way(second: Link, expected: list[tuple[int, str]]) -> None:
    assert ways([BOTH], link(2), second) == expected


def test_where_nothing_runs_what_is_up_is_as_good() -> None:
    assert len(ways([BOTH], link(2, carrier=False), link(3, carrier=False))) == 2
    assert ways([BOTH], link(2, up=False), link(3, up=False)) == []


def test_a_neighbour_on_a_wire_without_addresses_is_its_own_next_hop() -> None:
    (found,) = ways_to(OTHER, foreign_routes([route("10.9.9.2/32", hop(2))]), {2: link(2)})
    assert found == NextHop(device=2, gateway=OTHER, onlink=True)


def test_our_own_routes_lead_to_no_node() -> None:
    ours = route("10.9.9.2/32", hop(7), protocol=PROTOCOL_PODWIRE)
    assert ways([ours], link(7)) == []


def test_the_lower_metric_counts_and_a_discarding_route_is_no_way() -> None:
    better, worse = (
        route("10.9.9.2/32", hop(3, "10.0.1.2"), metric=5),
        route("10.9.9.2/32", hop(2, "10.0.0.2"), metric=20),
    )
    assert ways([worse, better], link(2), link(3)) == [(3, "10.0.1.2")]
    refused = route("10.9.9.0/24", kind=RouteKind.UNREACHABLE)
    assert ways([refused, route("0.0.0.0/0", hop(2, "10.0.0.254"))], link(2)) == []


networks = st.builds(
    lambda bits, length: IPv4Network((bits << 24, length), strict=False),
    st.integers(0, 255),
    st.integers(0, 32),
)


@given(st.lists(networks, unique=True, max_size=12), st.integers(0, 255), st.integers(0, 1 << 24))
def test_the_match_is_the_longest_of_all_that_hold_the_address(
    found: list[IPv4Network], first: int, rest: int
) -> None:
    address = IPv4Address(((first << 24) + rest) & 0xFFFFFFFF)
    index = foreign_routes([route(str(network), hop(2)) for network in found])
    holding = [network for network in found if address in network]
    matched = find_route(index, address)
    if not holding:
        assert matched is None
    else:
        assert matched is not None
        assert matched.key.destination == max(holding, key=lambda network: network.prefixlen)


def address(device: int, text: str) -> Address:
    return Address(device=device, interface=ip_interface(text))


def test_an_address_on_no_wire_makes_a_routed_underlay() -> None:
    lo = link(1, name="lo", mtu=65536, loopback=True)
    dummy = link(4, name="d0", kind="dummy")
    links = {each.name: each for each in (lo, dummy, link(2))}
    for device, routed in ((1, True), (4, True), (2, False)):
        underlay = find_underlay(OTHER, [address(device, "10.9.9.2/32")], links)
        assert underlay is not None
        assert underlay.routed is routed


def test_of_two_devices_with_the_address_the_one_that_is_up_counts() -> None:
    old, new = link(2, up=False), link(3, name="bond0")
    carried = [address(2, "10.0.0.1/24"), address(3, "10.0.0.1/24")]
    for links in ({"a": old, "b": new}, {"b": new, "a": old}):
        found = find_underlay(ip_address("10.0.0.1"), carried, links)
        assert found is not None
        assert found.name == "bond0"


def test_a_routed_underlay_is_as_narrow_as_the_narrowest_way() -> None:
    lo = link(1, name="lo", mtu=65536, loopback=True)
    wires = [link(2, mtu=9000), link(3, mtu=1500), link(4, mtu=1280)]
    tunnel = link(9, name="vxlan.calico", mtu=1450)
    links = {each.name: each for each in (lo, *wires, tunnel)}
    routes = foreign_routes([BOTH])
    assert set(devices_to([OTHER], routes)) == {2, 3}
    assert routed_mtu({2, 3}, links) == 1500
    assert routed_mtu({1}, links) == 1280, "no way is known: any could be one"
    assert routed_mtu(set(), {"lo": lo}) == 65535


@pytest.mark.parametrize(
    ("source", "addresses", "expected"),
    [
        ("10.9.9.1", ["10.0.0.1/24"], True),
        ("10.0.0.1", ["10.0.0.1/24"], False),
        (None, ["10.0.0.1/24"], False),
        (None, [], True),
        (None, ["fd00::1/64"], True),
    ],
)
def test_under_which_address_a_host_is_heard(
    source: str | None, addresses: list[str], expected: bool
) -> None:
    preferred = None if source is None else ip_address(source)
    routes = foreign_routes([route("10.9.9.2/32", hop(2, "10.0.0.2"), source=preferred)])
    there = [address(2, text) for text in addresses]
    assert leaves_as(ip_address("10.9.9.1"), OTHER, routes, there) is expected
