"""What deleted nodes left: given back whole, by any number of others, and nothing else."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.drivers.store.single_object import Crash
from podwire.errors import InUse
from podwire.ipam.leftovers import Farewell, Rota, drop_handle, survey
from podwire.ipam.request import AssignRequest
from podwire.model import keys
from podwire.model.block import Handle
from podwire.model.node import Node
from podwire.model.resource import Metadata
from tests.fakes.ipam_world import MiddleDice, World, asked, pod_endpoint, pool

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress, IPNetwork

GONE = "gone"
BOTH = pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])


@given(st.sets(st.text("abc-1", min_size=1, max_size=6), min_size=1), st.text(max_size=6))
def test_every_matter_has_one_first_and_one_next(nodes: set[str], about: str) -> None:
    rota = Rota(nodes)
    assert sorted(rota.turn(node, about) for node in nodes) == list(range(len(nodes)))


def test_matters_are_spread_over_the_nodes() -> None:
    nodes = [f"node-{number}" for number in range(10)]
    rota = Rota(nodes)
    first = {node for node in nodes for n in range(200) if rota.turn(node, f"lost-{n}") == 0}
    assert first == set(nodes)


def cluster(batches: bool) -> World:
    """Node b lives, with pods in its own block and in another's, who is gone and left more."""
    world = World(pool("p", "10.0.0.0/27"), batches=batches)
    world.put(Node(metadata=Metadata(name="b")))
    for number in range(2):
        attach(world, GONE, f"c{number}")
    tunnel = {"node": GONE, "type": "vxlanTunnelAddress"}
    world.node(GONE).assign(AssignRequest(handle="vxlan-tunnel-addr-gone", attributes=tunnel))
    attach(world, "b", "b0")
    # The last address of its block is lent to b.
    world.configure(strict_affinity=False)
    (block,) = (each for each in world.blocks() if each.node == GONE)
    world.node("b").assign(asked("net.b1", "b", address=block.cidr[3]))
    # And one of its pods is in b's block.
    (other,) = (each for each in world.blocks() if each.node == "b")
    attach(world, GONE, "c9", address=other.cidr[2])
    world.store.create(keys.applied_key(GONE), {"blocks": []})
    world.store.create(f"{keys.AFFINITIES}{GONE}", {})
    world.store.after_write = world.check
    return world


def attach(world: World, node: str, name: str, **fields: object) -> None:
    got = world.node(node).assign(asked(f"net.{name}", node, **fields))
    world.put(pod_endpoint(name, str(got.address), node))


def farewell(world: World) -> Farewell:
    return Farewell(world.store, GONE, world.clock, MiddleDice())


def lent(world: World) -> frozenset[IPNetwork]:
    return survey(world.store).users[GONE]


def left(world: World) -> list[str]:
    return [entry.key for entry in world.fake.list("/").entries if GONE in f"{entry}"]


def of_b(world: World) -> dict[IPAddress, str | None]:
    return {address: handle for address, handle in world.users().items() if "b" in str(handle)}


@BOTH
def test_all_of_a_deleted_node_goes_and_nothing_else(batches: bool) -> None:
    world = cluster(batches)
    mine = of_b(world)
    done = farewell(world).clear(lent(world))
    assert (done.addresses, done.blocks, done.endpoints) == (4, 1, 3)
    assert world.users() == mine
    assert set(world.handles()) == {"net.b0", "net.b1"}
    assert left(world) == []
    # The block lives on for the address that is lent to b, and nobody holds it.
    assert sorted(str(block.node) for block in world.blocks()) == ["None", "b"]
    assert not farewell(world).clear(lent_anywhere(world))


def lent_anywhere(world: World) -> list[IPNetwork]:
    return [block.cidr for block in world.blocks()]


@BOTH
def test_a_node_that_is_back_keeps_everything(batches: bool) -> None:
    world = cluster(batches)
    world.put(Node(metadata=Metadata(name=GONE)))
    before = world.fake.list("/").revision
    with pytest.raises(InUse, match="Node gone exists"):
        farewell(world).clear(lent(world))
    assert world.fake.list("/").revision == before


@BOTH
@pytest.mark.parametrize("answer_lost", [True, False])
def test_who_dies_at_any_write_is_followed_by_the_next_in_line(
    batches: bool, answer_lost: bool
) -> None:
    for writes in range(40):
        world = cluster(batches)
        mine, blocks = of_b(world), lent_anywhere(world)
        world.fake.fail_after(writes, answer_lost=answer_lost)
        try:
            farewell(world).clear(blocks)
            finished = True
        except Crash:
            finished = False
        world.fake.recover()
        if world.users() != mine:  # an affinity is left as long as there is work
            assert any(key.startswith(keys.affinity_prefix(GONE)) for key in left(world))
        farewell(world).clear(blocks)
        # Without a batch, a handle may have been left behind by its last address.
        for handle, revision in survey(world.store).empty.items():
            assert drop_handle(world.store, world.node("b"), handle, revision)
        assert left(world) == []
        assert world.users() == mine
        if finished:
            return
    raise AssertionError("never came to its end")


@BOTH
def test_handles_without_address_are_found_and_no_others(batches: bool) -> None:
    world = cluster(batches)
    world.put(Handle(id="net.ghost", blocks={ip_network("10.0.0.0/30"): 1}))
    world.put(Handle(id="net.empty", blocks={}))
    found = survey(world.store)
    assert set(found.empty) == {"net.ghost", "net.empty"}
    assert set(found.users) == {"b", GONE}
    node = world.node("b")
    assert drop_handle(world.store, node, "net.ghost", found.empty["net.ghost"])
    # One that was used, and came to nothing again, is another one.
    node.assign(asked("net.empty", "b"))
    node.release_handle("net.empty")
    world.put(Handle(id="net.empty", blocks={}))
    assert not drop_handle(world.store, node, "net.empty", found.empty["net.empty"])
    assert "net.empty" in world.handles()


@BOTH
def test_a_handle_of_a_block_that_cannot_be_read_is_kept(batches: bool) -> None:
    world = cluster(batches)
    (block,) = (each for each in world.blocks() if each.node == "b")
    entry = world.fake.get(keys.block_key(block.cidr))
    assert entry is not None
    world.fake.update(entry.key, {**entry.value, "allocations": [9]}, entry.revision)
    assert survey(world.store).empty == {}
