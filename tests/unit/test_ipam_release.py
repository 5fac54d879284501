"""Releasing addresses and blocks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.boundary import Verb, Write
from podwire.errors import AlreadyExists, DatastoreUnavailable, InUse
from podwire.ipam.service import Release
from podwire.model import keys
from podwire.model.block import Affinity, AffinityState, Block, Handle
from podwire.model.codec import encode, key_of
from tests.fakes.ipam_world import World, asked, pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.boundary import Entry, Revision
    from podwire.model.resource import Wire

P = pool("p", "10.0.0.0/28")
ABSENT = ip_address("10.0.0.3")


@pytest.fixture(params=[True, False], ids=["batch", "single"])
def batches(request: pytest.FixtureRequest) -> bool:
    assert isinstance(request.param, bool)
    return request.param


class TestByHandle:
    def test_frees_every_address_and_the_handle(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        got = [ipam.assign(asked("h")).address for _ in range(6)]
        kept = ipam.assign(asked("i")).address
        assert set(ipam.release_handle("h")) == set(got)
        assert world.users() == {kept: "i"}
        assert set(world.handles()) == {"i"}
        world.check()

    def test_is_safe_to_repeat(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        ipam.assign(asked("h"))
        assert len(ipam.release_handle("h")) == 1
        assert ipam.release_handle("h") == ()
        assert ipam.release_handle("never") == ()

    def test_works_for_another_process_and_a_borrowed_address(self, batches: bool) -> None:
        world = World(pool("p", "10.0.0.0/30"), batches=batches, strict_affinity=False)
        world.node("b").assign(asked("h"))
        got = world.node("a").assign(asked("i"))
        assert got.borrowed
        assert world.node("c").release_handle("i") == (got.address,)
        world.check()

    def test_ends_a_handle_that_counts_too_many(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        got = ipam.assign(asked("h"))
        gone = ip_network("10.9.0.0/30")
        world.put(Handle(id="h", blocks={got.block: 5, gone: 2}))
        assert ipam.release_handle("h") == (got.address,)
        assert world.handles() == {}

    def test_writes_what_belongs_to_it(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.store.create("/x", {})
        ipam = world.node("a")
        ipam.assign(asked("h"))
        delete = Write(verb=Verb.DELETE, key="/x")
        ipam.release_handle("h", [delete])
        assert world.store.get("/x") is None
        world.store.create("/x", {})
        ipam.release_handle("h", [delete])
        assert world.store.get("/x") is None

    def test_changes_nothing_when_that_is_refused(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.store.create("/x", {})
        ipam = world.node("a")
        got = ipam.assign(asked("h"))
        with pytest.raises(AlreadyExists):
            ipam.release_handle("h", [Write(verb=Verb.CREATE, key="/x", value={})])
        with pytest.raises(AlreadyExists):
            ipam.release_handle("never", [Write(verb=Verb.CREATE, key="/x", value={})])
        assert world.users() == {got.address: "h"}

    def test_writes_what_belongs_to_it_once(self, batches: bool) -> None:
        """Somebody else writes the block in between, so that the release begins again."""
        world = World(P, batches=batches)
        ipam, other = world.node("a"), world.node("a")
        ipam.assign(asked("h"))
        revision = world.store.create("/x", {}).revision
        wrote = 0

        def in_between() -> None:
            nonlocal wrote
            wrote += 1
            if wrote == 3:
                other.assign(asked("i"))

        world.store.before = in_between
        ipam.release_handle("h", [Write(verb=Verb.DELETE, key="/x", revision=revision)])
        assert world.store.get("/x") is None
        assert set(world.handles()) == {"i"}

    def test_in_the_middle_of_an_allocation_lets_no_address_go_astray(self, batches: bool) -> None:
        """The other process has raised the handle's count and is about to write the block."""
        world = World(P, batches=batches)
        ipam, other = world.node("a"), world.node("b")
        ipam.assign(asked("i"))
        update = world.store.update

        def released_first(key: str, value: Wire, revision: Revision) -> Entry:
            world.store.update = update  # type: ignore[method-assign]
            if key.startswith(keys.BLOCKS4):
                other.release_handle("h")
            return update(key, value, revision)

        world.store.update = released_first  # type: ignore[method-assign]
        got = ipam.assign(asked("h"))
        world.check()
        assert world.handles()["h"].blocks == {got.block: 1}


class TestByAddress:
    def test_frees_what_is_meant_and_tells_the_rest(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        one, two, three = (ipam.assign(asked(handle)) for handle in ("h", "h", "i"))
        done = ipam.release_addresses(
            [
                Release(address=one.address, handle="h", sequence=one.sequence),
                Release(address=two.address, handle="h", sequence=one.sequence),
                Release(address=three.address, handle="h"),
                Release(address=ip_address("10.9.0.1")),
            ]
        )
        assert done.released == (one.address,)
        assert set(done.foreign) == {two.address, three.address}
        assert done.absent == (ip_address("10.9.0.1"),)
        assert world.handles()["h"].blocks == {one.block: 1}
        world.check()

    def test_never_frees_a_later_allocation(self, batches: bool) -> None:
        world = World(pool("p", "10.0.0.0/32", block_size=32), batches=batches)
        ipam = world.node("a")
        first = ipam.assign(asked("h"))
        late = Release(address=first.address, handle="h", sequence=first.sequence)
        ipam.release_handle("h")
        ipam.release_empty(keep=0)
        world.later(1)
        second = ipam.assign(asked("h"))
        assert second.address == first.address
        assert ipam.release_addresses([late]).foreign == (first.address,)
        assert world.users() == {second.address: "h"}

    def test_twice_the_same_is_one(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        got = ipam.assign(asked("h"))
        twice = [Release(address=got.address)] * 2
        assert ipam.release_addresses(twice).released == (got.address,)
        assert ipam.release_addresses(twice).absent == (got.address,) * 2
        assert world.handles() == {}

    def test_works_when_the_pool_is_gone(self, batches: bool) -> None:
        world = World(P, batches=batches)
        got = world.node("a").assign(asked("h"))
        world.store.delete(keys.pool_key("p"))
        world.later(1)
        done = world.node("b").release_addresses([Release(address=got.address)])
        assert done.released == (got.address,)


class TestCooldown:
    def test_an_address_is_not_given_again_before_it_is_over(self, batches: bool) -> None:
        world = World(pool("p", "10.0.0.0/31", block_size=31), batches=batches, cooldown_s=60)
        ipam = world.node("a")
        first = ipam.assign(asked("h")).address
        ipam.assign(asked("i"))
        ipam.release_handle("h")
        count = ipam.usage().pools[0].count
        assert (count.in_use, count.resting, count.free) == (1, 1, 0)
        with pytest.raises(Exception, match="1 resting for 60 s after their release"):
            ipam.assign(asked("j"))
        world.later(61)
        assert ipam.assign(asked("j")).address == first
        world.check()

    def test_a_resting_address_keeps_its_block(self, batches: bool) -> None:
        world = World(P, batches=batches, cooldown_s=60)
        ipam = world.node("a")
        block = ipam.assign(asked("h")).block
        ipam.release_handle("h")
        with pytest.raises(InUse, match="1 addresses in use or resting"):
            ipam.release_affinity(block)
        assert ipam.release_empty(keep=0) == ()
        assert ipam.release_handle("h") == ()
        world.later(61)
        assert ipam.release_empty(keep=0) == (block,)


class TestBlocks:
    def test_an_empty_block_is_deleted_with_its_claim(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        block = ipam.assign(asked("h")).block
        with pytest.raises(InUse, match="1 addresses in use"):
            ipam.release_affinity(block)
        assert ipam.blocks() == (block,)
        ipam.release_handle("h")
        ipam.release_affinity(block)
        ipam.release_affinity(block)
        assert world.blocks() == ()
        assert world.store.list(keys.AFFINITIES).entries == ()

    def test_a_block_in_use_loses_its_holder_and_goes_with_its_last_address(
        self, batches: bool
    ) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        block = ipam.assign(asked("h")).block
        ipam.release_affinity(block, must_be_empty=False)
        assert [each.node for each in world.blocks()] == [None]
        assert ipam.blocks() == ()
        # Another node may not take a block with addresses of this one.
        assert not world.node("b").claim(block)
        ipam.release_handle("h")
        assert world.blocks() == ()

    def test_a_node_takes_its_own_addresses_block_back(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        got = ipam.assign(asked("h"))
        ipam.release_affinity(got.block, must_be_empty=False)
        assert ipam.claim(got.block)
        again = ipam.assign(asked("i"))
        assert again.block == got.block
        assert again.sequence > got.sequence

    def test_empty_blocks_go_but_for_those_to_keep(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        blocks = {ipam.assign(asked(f"h{n}")).block for n in range(12)}
        for number in range(12):
            ipam.release_handle(f"h{number}")
        assert len(ipam.release_empty(keep=1)) == 2
        assert set(ipam.blocks()) < blocks
        assert len(ipam.blocks()) == 1


class TestHalfDoneClaims:
    """What a crash left, met by the next process."""

    BLOCK = ip_network("10.0.0.8/30")

    def claim(self, world: World, state: AffinityState, node: str = "a") -> None:
        world.put(Affinity(node=node, block=self.BLOCK, state=state))

    def block(self, world: World, node: str | None) -> None:
        world.put(Block(cidr=self.BLOCK, node=node, unallocated=(0, 1, 2, 3), sequence=7))

    @pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.CONFIRMED])
    @pytest.mark.parametrize("holder", ["a", None, "absent"])
    def test_a_claim_is_finished(
        self, batches: bool, state: AffinityState, holder: str | None
    ) -> None:
        world = World(P, batches=batches)
        self.claim(world, state)
        if holder != "absent":
            self.block(world, holder)
        assert world.node("a").assign(asked("h")).block == self.BLOCK
        assert world.confirmed() == {"a": [str(self.BLOCK)]}
        world.check()

    @pytest.mark.parametrize("state", list(AffinityState))
    def test_a_claim_on_another_nodes_block_is_dropped(
        self, batches: bool, state: AffinityState
    ) -> None:
        world = World(P, batches=batches)
        self.claim(world, AffinityState.CONFIRMED, "b")
        self.block(world, "b")
        self.claim(world, state)
        assert world.node("a").assign(asked("h")).block != self.BLOCK
        assert world.confirmed()["b"] == [str(self.BLOCK)]
        world.check()

    @pytest.mark.parametrize("holder", ["a", "absent"])
    def test_a_giving_back_is_finished(self, batches: bool, holder: str) -> None:
        world = World(pool("p", str(self.BLOCK)), batches=batches)
        self.claim(world, AffinityState.PENDING_DELETION)
        if holder != "absent":
            self.block(world, holder)
        assert world.node("b").claim(self.BLOCK) is (holder == "absent")
        ipam = world.node("a")
        ipam.release_empty(keep=1)
        assert "a" not in world.confirmed()
        assert world.node("b").claim(self.BLOCK)

    def test_a_giving_back_ends_when_addresses_are_in_use(self, batches: bool) -> None:
        world = World(P, batches=batches)
        block = world.node("a").assign(asked("h")).block
        world.put(Affinity(node="a", block=block, state=AffinityState.PENDING_DELETION))
        assert world.node("a").assign(asked("i")).block == block
        assert world.confirmed() == {"a": [str(block)]}

    def test_an_object_marked_as_deleted_is_absent(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.put(Handle(id="h", blocks={self.BLOCK: 3}, deleted=True))
        self.block(world, "b")
        key = keys.block_key(self.BLOCK)
        entry = world.store.get(key)
        assert entry is not None
        world.store.update(key, {**entry.value, "deleted": True}, entry.revision)
        ipam = world.node("a")
        assert ipam.claim(self.BLOCK)
        assert ipam.assign(asked("h")).block == self.BLOCK
        assert world.handles()["h"].blocks == {self.BLOCK: 1}


def test_a_store_that_is_away_is_said_and_nothing_is_half_written(batches: bool) -> None:
    world = World(P, batches=batches)
    ipam = world.node("a")
    ipam.claim_ahead()
    world.fake.fail_after(0, DatastoreUnavailable("datastore x is away"))
    with pytest.raises(DatastoreUnavailable, match="away"):
        ipam.assign(asked("h"))
    world.fake.recover()
    assert world.users() == {}
    assert str(ipam.assign(asked("h")).address)
    world.check()


def test_endless_contention_ends_with_an_error() -> None:
    world = World(P)
    ipam = world.node("a")
    block = ipam.assign(asked("h")).block
    before = world.fake.batch

    def always_late(writes: object) -> object:
        entry = world.store.get(keys.block_key(block))
        assert entry is not None
        world.store.update(entry.key, entry.value, entry.revision)
        return before(writes)  # type: ignore[arg-type]

    world.fake.batch = always_late  # type: ignore[method-assign,assignment]
    with pytest.raises(DatastoreUnavailable, match="refused 100 writes of node a"):
        ipam.assign(asked("i"))


def test_unknown_fields_of_others_survive() -> None:
    world = World(P)
    ipam = world.node("a")
    got = ipam.assign(asked("h"))
    key = keys.block_key(got.block)
    entry = world.store.get(key)
    assert entry is not None
    world.store.update(key, {**entry.value, "novel": {"x": [2**60]}}, entry.revision)
    ipam.assign(asked("i"))
    ipam.release_handle("h")
    entry = world.store.get(key)
    assert entry is not None
    assert entry.value["novel"] == {"x": [2**60]}
    assert key == key_of(world.blocks()[0])
    assert encode(world.blocks()[0]) == entry.value


def test_a_large_block_is_emptied_in_batches_that_etcd_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(pool("p", "10.0.0.0/24", block_size=24))
    ipam = world.node("a")
    got = [ipam.assign(asked(f"h{number}")).address for number in range(150)]
    largest = 0
    batch = world.fake.batch

    def narrow(writes: Sequence[Write]) -> Sequence[Entry | None]:
        nonlocal largest
        largest = max(largest, len(writes))
        return batch(writes)

    monkeypatch.setattr(world.fake, "batch", narrow)
    told = ipam.release_addresses([Release(address=address) for address in got])
    assert set(told.released) == set(got)
    assert 2 < largest <= 128
    assert world.handles() == {}
    world.check()
