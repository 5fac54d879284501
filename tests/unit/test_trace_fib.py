"""The FIB model: longest prefix, metric, rules, against a reference that is too simple to err."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.model.kernelstate import Missing, Read
from podwire.model.route import NextHop, Route, RouteKey, RouteKind, Rule
from podwire.trace import fib
from podwire.trace.fib import Query
from podwire.trace.space import Lacking, Space
from tests.fakes.drawn_network import RULES, Network

HERE = IPv4Address("10.0.0.0")


def space_with(routes: list[Route], rules: tuple[Rule, ...] = RULES) -> Space:
    network = Network()
    one, two = network.namespace("one"), network.namespace("two")
    network.cable(one, "eth0", two, "eth0")
    network.cable(one, "eth1", two, "eth1")
    state = one.state()
    return Space(replace(state, routes=Read(tuple(routes)), rules=Read(rules)))


def route(destination: str, **fields: object) -> Route:
    key = RouteKey(
        destination=ip_network(destination),
        table=int(str(fields.pop("table", 254))),
        metric=int(str(fields.pop("metric", 0))),
    )
    fields.setdefault("hops", (NextHop(device=2),))
    return Route(key=key, **fields)  # type: ignore[arg-type]


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network:
    """A network of any length around a few addresses, so that many cover one another."""
    address = int(HERE) + draw(st.integers(0, 255))
    return IPv4Network((address, draw(st.integers(0, 32))), strict=False)


KINDS = st.sampled_from([RouteKind.UNICAST, RouteKind.BLACKHOLE, RouteKind.UNREACHABLE])


@given(
    st.lists(
        st.tuples(networks(), st.integers(0, 3), KINDS), max_size=12, unique_by=lambda e: e[:2]
    ),
    st.integers(0, 255),
)
def test_the_longest_prefix_with_the_lowest_metric_wins(
    entries: list[tuple[IPv4Network, int, RouteKind]], last: int
) -> None:
    destination = HERE + last
    routes = [
        route(
            str(network),
            metric=metric,
            kind=kind,
            hops=(NextHop(device=2),) if kind is RouteKind.UNICAST else (),
        )
        for network, metric, kind in entries
    ]
    covering = [each for each in routes if destination in each.key.destination]
    expected = min(
        covering, key=lambda each: (-each.key.destination.prefixlen, each.key.metric), default=None
    )
    found = fib.lookup(space_with(routes), Query(destination=destination))
    assert found.route == expected
    assert found.kind == (None if expected is None else expected.kind)


def ask(space: Space, **fields: object) -> fib.Decision:
    return fib.lookup(space, Query(destination=HERE, **fields))  # type: ignore[arg-type]


def test_without_rules_of_ones_own_the_longest_prefix_wins_over_local_and_main() -> None:
    local = route("10.0.0.0/8", table=255, kind=RouteKind.LOCAL)
    longer = route("10.0.0.0/24")
    assert ask(space_with([local, longer])).route == longer
    rules = (*RULES, Rule(family=4, priority=100, table=77))
    assert ask(space_with([local, longer], rules)).route == local


def test_throw_goes_on_with_the_next_rule() -> None:
    rules = (*RULES, Rule(family=4, priority=100, table=77))
    routes = [route("10.0.0.0/24", table=77, kind=RouteKind.THROW, hops=()), route("0.0.0.0/0")]
    assert ask(space_with(routes, rules)).route == routes[1]


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(family=4, priority=9, table=77, source=ip_network("192.0.2.0/24")), True),
        (Rule(family=4, priority=9, table=77, source=ip_network("192.0.3.0/24")), False),
        (Rule(family=4, priority=9, table=77, destination=ip_network("10.0.0.0/30")), True),
        (Rule(family=4, priority=9, table=77, iif="eth0"), True),
        (Rule(family=4, priority=9, table=77, iif="eth0", invert=True), False),
        (Rule(family=4, priority=9, table=77, mark=4, mark_mask=4), False),
        (Rule(family=4, priority=9, table=77, tos=16), False),
        (Rule(family=4, priority=9, table=77, suppress_prefix_length=8), False),
        (Rule(family=6, priority=9, table=77), False),
    ],
)
def test_a_rule_applies_when_all_its_selectors_fit(rule: Rule, fits: bool) -> None:
    special, usual = route("10.0.0.0/8", table=77), route("0.0.0.0/0")
    space = space_with([special, usual], (*RULES, rule))
    found = ask(space, source=IPv4Address("192.0.2.1"), iif="eth0")
    assert found.route == (special if fits else usual)


def test_goto_continues_at_its_target() -> None:
    rules = (
        *RULES,
        Rule(family=4, priority=10, action="goto", target=20),
        Rule(family=4, priority=15, action="blackhole"),
        Rule(family=4, priority=20, action="prohibit"),
    )
    assert ask(space_with([route("0.0.0.0/0")], rules)).kind is RouteKind.PROHIBIT


def test_links_that_are_down_are_passed_over() -> None:
    down = route("10.0.0.0/24", hops=(NextHop(device=2),))
    up = route("0.0.0.0/0", hops=(NextHop(device=3),))
    space = space_with([down, up])
    links = {**space.links, 2: replace(space.links[2], up=False)}
    space.__dict__["links"] = links
    assert ask(space).route == up


def test_all_branches_of_a_multipath_route_are_given() -> None:
    both = route("10.0.0.0/24", hops=(NextHop(device=2), NextHop(device=3)))
    assert len(ask(space_with([both])).hops) == 2
    assert len(ask(space_with([both]), oif=3).hops) == 1


def test_a_nexthop_object_that_was_not_read_is_lacking() -> None:
    with pytest.raises(Lacking, match="nexthop 7"):
        ask(space_with([route("10.0.0.0/24", hops=(), nexthop_id=7)]))


def test_a_missing_table_is_never_an_empty_one() -> None:
    space = space_with([])
    state = replace(space.state, routes=Missing("not in the bundle"))
    with pytest.raises(Lacking, match="not in the bundle"):
        ask(Space(state))
