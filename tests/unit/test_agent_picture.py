"""Both copies side by side: in whatever order they fill, nothing is deleted before all is known."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from podwire.agent.mirror import FOR_BIRD, NEEDED
from podwire.agent.picture import Picture
from podwire.boundary import Change, Entry
from podwire.desired.bgp import KERNEL_METRIC
from podwire.desired.entries import Table
from podwire.drivers.netlink.monitor import OVERRUN, Event
from podwire.model import keys
from podwire.model.block import Affinity, IPAMConfig
from podwire.model.codec import encode, key_of
from podwire.model.config import AgentConfig
from podwire.model.link import Address, Link
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from podwire.model.route import PROTOCOL_BIRD, PROTOCOL_STATIC, NextHop, Route, RouteKey, RouteKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.resource import Stored

OWN, THEIRS = ip_network("10.244.1.0/26"), ip_network("10.244.2.0/26")
STALE = ip_network("10.244.3.0/26")
HERE = Node(metadata=Metadata(name="a"), address=ip_interface("10.0.0.1/24"))
THERE = Node(metadata=Metadata(name="b"), address=ip_interface("10.0.0.2/24"))
POOL = IPPool(metadata=Metadata(name="p"), cidr=ip_network("10.244.0.0/16"))
ENS32 = Link(index=2, name="ens32", mtu=1500, up=True, carrier=True)
ADDRESS = Address(device=2, interface=ip_interface("10.0.0.1/24"))


def route(destination: str, device: int = 2, **fields: object) -> Route:
    key = RouteKey(destination=ip_network(destination))
    return Route(key=key, hops=(NextHop(device=device),), **fields)  # type: ignore[arg-type]


PRESENT = [
    Route(key=RouteKey(destination=OWN), kind=RouteKind.BLACKHOLE),
    Route(
        key=RouteKey(destination=THEIRS),
        hops=(NextHop(device=2, gateway=THERE.address.ip if THERE.address else None),),
    ),
    route("0.0.0.0/0", protocol=PROTOCOL_STATIC),
]


def entry(value: Stored, key: str = "") -> Entry:
    return Entry(key=key or key_of(value), value=encode(value), revision="1")


def listings(routing: Routing = Routing.AGENT) -> dict[str, list[Entry]]:
    cluster = ClusterInformation(metadata=Metadata(name="default"), guid="g", routing=routing)
    claims = [Affinity(node="a", block=OWN), Affinity(node="b", block=THEIRS)]
    return {
        keys.POOLS: [entry(POOL)],
        keys.NODES: [entry(HERE), entry(THERE)],
        keys.CLUSTER: [entry(cluster)],
        keys.AFFINITIES: [entry(c, keys.affinity_key(c.node, c.block)) for c in claims],
        keys.FELIX_CONFIGURATIONS: [],
        keys.IPAM_CONFIG_KEY: [entry(IPAMConfig(), keys.IPAM_CONFIG_KEY)],
    }


def fill(picture: Picture, routing: Routing = Routing.AGENT) -> list[Callable[[], None]]:
    """The steps in which a picture fills at start, each of which may come at any moment."""
    listed = listings(routing)
    assert listed.keys() == set(NEEDED)

    def listing(prefix: str) -> Callable[[], None]:
        return lambda: picture.mirror.on_listing(prefix, listed[prefix])

    def event(value: Link | Address | Route) -> Callable[[], None]:
        kind = {Link: "link", Address: "address", Route: "route"}[type(value)]
        return lambda: picture.kernel.on_events([Event(kind=kind, value=value)])  # type: ignore[arg-type]

    return [
        *map(listing, listed),
        event(ENS32),
        event(ADDRESS),
        *map(event, PRESENT),
    ]


def decide(picture: Picture) -> bool:
    picture.look({})
    return picture.why_blocked() is None and picture.decide(float("inf"), lambda: 0.0)


@given(st.permutations(range(11)))
def test_nothing_of_ours_is_superfluous_before_all_is_known(order: list[int]) -> None:
    picture = Picture(AgentConfig(node="a"))
    steps = fill(picture)
    for step in order:
        steps[step]()
        if decide(picture):
            assert not picture.kernel.trackers[Table.ROUTES].pending.deletes
    assert decide(picture)
    pending = picture.kernel.trackers[Table.ROUTES].pending
    assert pending.is_empty
    assert not pending.conflicts


def filled(routing: Routing = Routing.AGENT) -> Picture:
    picture = Picture(AgentConfig(node="a"))
    for step in fill(picture, routing):
        step()
    picture.look({})
    return picture


def test_what_is_ours_and_unwanted_is_superfluous_afterwards() -> None:
    picture = filled()
    picture.kernel.saw(route(str(STALE)))
    assert decide(picture)
    deletes = picture.kernel.trackers[Table.ROUTES].pending.deletes
    assert list(deletes) == [RouteKey(destination=STALE)]


def test_routes_go_without_a_word_when_their_device_does() -> None:
    picture = filled()
    picture.kernel.on_events([Event(kind="link", deleted=True, value=ENS32)])
    actual = picture.kernel.trackers[Table.ROUTES].actual
    assert set(actual) == {RouteKey(destination=OWN)}
    assert not picture.kernel.default_route
    picture.look({})
    assert "no device carries the address 10.0.0.1" in str(picture.why_blocked())


def test_a_hop_without_carrier_is_no_difference() -> None:
    picture = filled()
    dead = Route(
        key=PRESENT[1].key,
        hops=(NextHop(device=2, gateway=PRESENT[1].hops[0].gateway, dead=True),),
    )
    assert not picture.kernel.saw(dead)


def test_lost_events_ask_for_a_listing() -> None:
    picture = filled()
    assert not picture.take_lost()
    picture.kernel.on_events([OVERRUN])
    picture.look({})
    assert picture.take_lost()


BIRDS = Route(
    key=RouteKey(destination=THEIRS, metric=KERNEL_METRIC),
    hops=PRESENT[1].hops,
    protocol=PROTOCOL_BIRD,
)


def with_bird() -> Picture:
    picture = filled(Routing.BIRD)
    assert "has not been read" in str(picture.why_blocked())
    for prefix in FOR_BIRD:
        picture.mirror.on_listing(prefix, ())
    return picture


def test_where_bird_writes_routes_ours_are_the_blackhole_alone() -> None:
    picture = with_bird()
    assert decide(picture)
    assert list(picture.kernel.trackers[Table.ROUTES].desired) == [RouteKey(destination=OWN)]
    assert list(picture.blocks_without_bird()) == [THEIRS]
    assert picture.leads_elsewhere()
    picture.kernel.saw(BIRDS)
    assert list(picture.blocks_without_bird()) == []
    assert picture.stale_bird_routes() == [BIRDS]
    assert picture.routes_of_older_bird() == []
    calicos = replace(BIRDS, key=RouteKey(destination=THEIRS))
    picture.kernel.saw(calicos)
    assert picture.routes_of_older_bird() == [calicos]
    assert picture.has_successor(calicos)
    picture.kernel.gone(BIRDS)
    assert not picture.has_successor(calicos)
    # Newer Calicos give theirs a metric.
    block = Route(
        key=RouteKey(destination=OWN, metric=1024),
        kind=RouteKind.BLACKHOLE,
        protocol=PROTOCOL_BIRD,
    )
    assert picture.has_successor(block)


def test_where_ours_stand_in_for_bird_s_both_are_there() -> None:
    picture = with_bird()
    picture.kernel.saw(BIRDS)
    picture.standing_in = True
    assert decide(picture)
    pending = picture.kernel.trackers[Table.ROUTES].pending
    assert pending.is_empty
    assert not pending.conflicts
    picture.standing_in = False
    assert decide(picture)
    assert list(pending.deletes) == [RouteKey(destination=THEIRS)]


def test_a_block_is_applied_once_bird_s_route_is_there() -> None:
    picture = with_bird()
    assert decide(picture)
    assert picture.settle_publication().take().blocks == ()
    picture.kernel.saw(BIRDS)
    assert picture.settle_publication().take().blocks == (str(THEIRS),)


def test_the_publication_holds_what_is_reachable() -> None:
    picture = filled()
    assert decide(picture)
    assert picture.settle_publication().take().blocks == (str(THEIRS),)


def test_the_address_is_that_of_the_default_route() -> None:
    picture = Picture(AgentConfig(node="a"))
    for value in (ENS32, ADDRESS):
        picture.kernel.on_events([Event(kind="link", value=value)])
    assert picture.place.own_address() is None
    picture.kernel.saw(PRESENT[2])
    assert str(picture.place.own_address()) == "10.0.0.1/24"
    given_one = Picture(AgentConfig(node="a", address=ip_interface("10.9.9.9/16")))
    assert str(given_one.place.own_address()) == "10.9.9.9/16"


OTHER = Address(device=2, interface=ip_interface("10.7.0.9/24"))


def test_an_address_that_is_away_for_a_moment_moves_nobody() -> None:
    picture = filled()
    place = picture.place
    picture.kernel.on_events([Event(kind="address", value=OTHER)])
    assert str(place.settled_address(0.0)) == "10.0.0.1/24"
    assert place.next_wait_s(0.0) is None
    picture.kernel.on_events([Event(kind="address", deleted=True, value=ADDRESS)])
    assert str(place.settled_address(1.0)) == "10.0.0.1/24"
    assert place.next_wait_s(1.0) is not None
    assert not place.is_due(1.09)
    picture.kernel.on_events([Event(kind="address", value=ADDRESS)])
    assert str(place.settled_address(1.09)) == "10.0.0.1/24"
    assert place.next_wait_s(1.1) is None


def test_an_address_that_stays_away_gives_way_once() -> None:
    picture = filled()
    place = picture.place
    picture.kernel.on_events([Event(kind="address", deleted=True, value=ADDRESS)])
    assert str(place.settled_address(1.0)) == "10.0.0.1/24"
    picture.kernel.on_events([Event(kind="address", value=OTHER)])
    assert place.is_due(1.2)
    assert str(place.settled_address(1.2)) == "10.7.0.9/24"
    assert not place.is_due(1.3)
    assert str(place.settled_address(1.3)) == "10.7.0.9/24"


ENS33 = Link(index=3, name="ens33", mtu=1500, up=True, carrier=True)


def test_a_route_over_two_wires_outlives_one_of_them() -> None:
    picture = filled()
    picture.kernel.on_events([Event(kind="link", value=ENS33)])
    key = RouteKey(destination=ip_network("10.9.9.2/32"))
    hops = (NextHop(device=2), NextHop(device=3))
    picture.kernel.saw(Route(key=key, hops=hops, protocol=PROTOCOL_STATIC))
    routes = picture.kernel.trackers[Table.ROUTES].actual
    picture.kernel.on_events([Event(kind="link", value=replace(ENS33, up=False))])
    assert key in routes
    picture.kernel.on_events([Event(kind="link", value=replace(ENS32, up=False))])
    assert key not in routes
    picture.kernel.on_events([Event(kind="link", value=ENS32), Event(kind="link", value=ENS33)])
    picture.kernel.saw(Route(key=key, hops=hops, protocol=PROTOCOL_STATIC))
    # A device that is taken away takes the whole route with it.
    picture.kernel.on_events([Event(kind="link", deleted=True, value=ENS33)])
    assert key not in routes


nodes_said = st.lists(
    st.tuples(st.sampled_from("abcd"), st.none() | st.integers(576, 9000) | st.just(-1)),
    max_size=10,
)


@given(nodes_said)
def test_the_narrowest_other_node_is_known_after_every_change(
    said: list[tuple[str, int | None]],
) -> None:
    picture = filled()
    known: dict[str, int | None] = {}
    for name, mtu in said:
        node = Node(metadata=Metadata(name=name), address=HERE.address, underlay_mtu=mtu)
        key = keys.node_key(name)
        known.pop(name, None)
        if mtu == -1:
            picture.mirror.on_changes(keys.NODES, [Change(key=key, entry=None, revision="2")])
        else:
            known[name] = mtu
            added = Change(key=key, entry=entry(node), revision="2")
            picture.mirror.on_changes(keys.NODES, [added])
        picture.look({})
        others = [size for other, size in known.items() if other != "a" and size is not None]
        assert picture.place.others_mtu == min(others, default=65535)
