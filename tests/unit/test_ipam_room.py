"""Room is told exactly where an assignment would find it."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from podwire.errors import NoPool, PoolExhausted
from tests.fakes.ipam_world import World, asked, pool, reservation

POOLS = (
    pool("p", "10.0.0.0/30", block_size=31),
    pool("q", "10.0.0.4/30", block_size=31, node_selector="zone == 'x'"),
    pool("r", "10.0.0.8/31", block_size=31, automatic=False),
    pool("s", "10.0.0.16/31", block_size=31, disabled=True),
)
NODES = ("a", "b", "c")


@given(
    st.lists(st.sampled_from(POOLS), unique_by=lambda each: each.name),
    st.lists(st.sampled_from(["10.0.0.0/31", "10.0.0.2/32", "10.0.0.4/30"]), max_size=2),
    st.fixed_dictionaries(
        {
            "strict_affinity": st.booleans(),
            "auto_allocate_blocks": st.booleans(),
            "max_blocks_per_host": st.integers(0, 2),
            "cooldown_s": st.sampled_from([0, 60]),
        }
    ),
    st.lists(st.tuples(st.sampled_from(NODES), st.booleans()), max_size=10),
    st.none() | st.lists(st.sampled_from("pqrs"), min_size=1, max_size=2, unique=True),
)
def test_room_is_told_where_an_assignment_finds_it(
    pools: list[object],
    reserved: list[str],
    config: dict[str, object],
    before: list[tuple[str, bool]],
    wanted: list[str] | None,
) -> None:
    world = World(*pools, **config)  # type: ignore[arg-type]
    if reserved:
        world.put(reservation("kept", *reserved))
    nodes = {name: world.node(name, {"zone": "x" if name == "a" else "y"}) for name in NODES}
    for number, (name, keep) in enumerate(before):
        with suppress(NoPool, PoolExhausted):
            nodes[name].assign(asked(f"h{number}", name))
            if not keep:
                nodes[name].release_handle(f"h{number}")
    for name in NODES:
        told: type[Exception] | None = None
        there = world.fake.list("/")
        try:
            nodes[name].refuse_without_room(wanted)
        except (NoPool, PoolExhausted) as error:
            told = type(error)
        assert world.fake.list("/") == there
        found: type[Exception] | None = None
        try:
            nodes[name].assign(asked(f"new-{name}", name, pools=wanted))
        except (NoPool, PoolExhausted) as error:
            found = type(error)
        assert told == found
