"""Whose a route is that stands where one of ours is wanted."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.agent.kernel import Kernel
from podwire.desired.entries import Table
from podwire.desired.ownership import Holder, holder
from podwire.drivers.netlink.monitor import Event
from podwire.model.route import (
    PROTOCOL_BIRD,
    PROTOCOL_BOOT,
    PROTOCOL_KERNEL,
    PROTOCOL_PODWIRE,
    PROTOCOL_STATIC,
    NextHop,
    Route,
    RouteKey,
    RouteKind,
)

KEY = RouteKey(destination=ip_network("10.244.2.0/26"))
OURS = Route(key=KEY, hops=(NextHop(device=2, gateway=ip_address("10.0.0.2")),))
BOOT = replace(
    OURS, protocol=PROTOCOL_BOOT, hops=(NextHop(device=2, gateway=ip_address("10.0.0.77")),)
)
STATIC = replace(BOOT, protocol=PROTOCOL_STATIC)


@given(st.integers(0, 255), st.booleans())
def test_only_a_hand_made_route_in_our_place_is_taken_back(protocol: int, stood: bool) -> None:
    expected = Holder.FOREIGN
    if protocol == PROTOCOL_PODWIRE:
        expected = Holder.OURS
    elif protocol == PROTOCOL_BOOT and stood:
        expected = Holder.DRIFT
    assert holder(replace(OURS, protocol=protocol), ours_stood_here=stood) is expected


def kernel_that(*seen: Route, wanted: Route | None = OURS) -> Kernel:
    kernel = Kernel()
    if wanted is not None:
        kernel.trackers[Table.ROUTES].want(KEY, wanted)
    kernel.on_events(Event(kind="route", value=route) for route in seen)
    return kernel


def test_ours_replaced_by_hand_is_written_again() -> None:
    pending = kernel_that(OURS, BOOT).trackers[Table.ROUTES].pending
    assert dict(pending.writes) == {KEY: OURS}
    assert not pending.conflicts


def test_a_foreign_route_that_says_the_same_is_as_good() -> None:
    """As Calico's plugin leaves it: it is kept, and ours comes when it goes."""
    calicos = replace(OURS, protocol=PROTOCOL_BOOT, source=ip_address("10.0.0.1"))
    kernel = kernel_that(calicos)
    tracker = kernel.trackers[Table.ROUTES]
    assert tracker.pending.is_empty
    assert not tracker.pending.conflicts
    kernel.on_events([Event(kind="route", value=calicos, deleted=True)])
    assert dict(tracker.pending.writes) == {KEY: OURS}


@pytest.mark.parametrize(
    "other",
    [
        STATIC,
        replace(STATIC, hops=OURS.hops, mtu=1400),
        replace(STATIC, hops=OURS.hops, nexthop_id=7),
        replace(STATIC, hops=OURS.hops, scope=253),
        replace(STATIC, hops=OURS.hops, not_modelled=frozenset({"encap"})),
    ],
)
def test_a_foreign_route_that_says_anything_else_is_a_conflict(other: Route) -> None:
    assert dict(kernel_that(other).trackers[Table.ROUTES].pending.conflicts) == {KEY: other}


def test_ours_deleted_and_another_added_by_hand_is_written_again() -> None:
    kernel = kernel_that(OURS)
    kernel.on_events(
        [Event(kind="route", deleted=True, value=OURS), Event(kind="route", value=BOOT)]
    )
    assert dict(kernel.trackers[Table.ROUTES].pending.writes) == {KEY: OURS}


def test_a_listing_tells_as_much_as_an_event() -> None:
    kernel = kernel_that(OURS)
    kernel.resync(Table.ROUTES, [BOOT])
    assert dict(kernel.trackers[Table.ROUTES].pending.writes) == {KEY: OURS}


def test_what_was_there_before_us_is_a_conflict() -> None:
    pending = kernel_that(BOOT).trackers[Table.ROUTES].pending
    assert dict(pending.conflicts) == {KEY: BOOT}
    assert not pending.writes


@pytest.mark.parametrize("protocol", [PROTOCOL_STATIC, PROTOCOL_BIRD, PROTOCOL_KERNEL])
def test_a_protocol_with_an_owner_is_always_a_conflict(protocol: int) -> None:
    foreign = replace(BOOT, protocol=protocol)
    for seen in ([foreign], [OURS, foreign], [OURS, BOOT, foreign]):
        pending = kernel_that(*seen).trackers[Table.ROUTES].pending
        assert dict(pending.conflicts) == {KEY: foreign}
        assert not pending.writes


BLOCK = Route(key=KEY, kind=RouteKind.BLACKHOLE)
CALICOS = replace(BLOCK, protocol=PROTOCOL_BIRD)


def test_ours_takes_the_place_of_the_blackhole_that_calicos_bird_left() -> None:
    """Our BIRD announces what carries our mark: with theirs nobody would announce the block."""
    kernel = kernel_that(CALICOS, wanted=BLOCK)
    assert dict(kernel.trackers[Table.ROUTES].pending.writes) == {KEY: BLOCK}


def test_a_blackhole_of_bird_that_comes_back_has_a_living_owner() -> None:
    kernel = kernel_that(CALICOS, BLOCK, CALICOS, wanted=BLOCK)
    pending = kernel.trackers[Table.ROUTES].pending
    assert dict(pending.conflicts) == {KEY: CALICOS}
    assert not pending.writes


def test_a_blackhole_of_bird_that_is_no_block_of_ours_is_left_alone() -> None:
    assert kernel_that(CALICOS, wanted=None).trackers[Table.ROUTES].pending.is_empty


def test_a_place_we_left_is_nobodys() -> None:
    """What a person makes where we no longer want, or have taken our route away, is theirs."""
    kernel = kernel_that(OURS)
    tracker = kernel.trackers[Table.ROUTES]
    tracker.unwant(KEY)
    kernel.forget_unwanted(KEY)
    assert dict(tracker.pending.deletes) == {KEY: OURS}
    kernel.gone(OURS)
    kernel.saw(BOOT)
    assert not tracker.pending.deletes
    tracker.want(KEY, OURS)
    assert dict(tracker.pending.conflicts) == {KEY: BOOT}


def test_a_hand_made_route_is_never_deleted() -> None:
    kernel = kernel_that(OURS, BOOT)
    tracker = kernel.trackers[Table.ROUTES]
    tracker.unwant(KEY)
    kernel.forget_unwanted(KEY)
    assert tracker.pending.is_empty
    tracker.want(KEY, OURS)
    assert dict(tracker.pending.conflicts) == {KEY: BOOT}
