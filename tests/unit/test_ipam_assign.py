"""Assigning addresses: whose block, which address, and what refusals say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from podwire.boundary import Verb, Write
from podwire.errors import AddressTaken, AlreadyExists, NoPool, PoolExhausted
from podwire.model import keys
from podwire.model.pool import Use
from tests.fakes.ipam_world import World, asked, pool, reservation

if TYPE_CHECKING:
    from podwire.ipam.service import IPAM

P = pool("p", "10.0.0.0/28")
"""Four blocks of four addresses."""


@pytest.fixture(params=[True, False], ids=["batch", "single"])
def batches(request: pytest.FixtureRequest) -> bool:
    assert isinstance(request.param, bool)
    return request.param


def fill(ipam: IPAM, node: str, count: int, prefix: str = "") -> list[str]:
    return [
        str(ipam.assign(asked(f"{prefix}{node}{number}", node)).address) for number in range(count)
    ]


def exhausted(ipam: IPAM, **fields: Any) -> str:
    with pytest.raises(PoolExhausted) as caught:
        ipam.assign(asked("one-more", **fields))
    assert caught.value.fix is not None
    return f"{caught.value.message} ({caught.value.fix})"


def test_an_address_comes_with_block_handle_and_confirmed_affinity(batches: bool) -> None:
    world = World(P, batches=batches)
    got = world.node("a").assign(asked("h1"))
    assert got.claimed
    assert not got.borrowed
    assert got.address in got.block
    assert world.users() == {got.address: "h1"}
    assert world.handles()["h1"].blocks == {got.block: 1}
    assert world.confirmed() == {"a": [str(got.block)]}
    block = world.blocks()[0]
    assert block.allocations[0].attributes == {"node": "a", "namespace": "demo", "pod": "h1"}
    assert block.allocations[0].sequence == got.sequence
    assert block.sequence == got.sequence + 1


def test_in_the_steady_state_an_address_costs_one_write_and_no_read() -> None:
    world = World(P)
    ipam = world.node("a")
    ipam.assign(asked("h1"))
    before, reads = world.fake.writes, world.store.reads
    ipam.assign(asked("h2"))
    assert world.store.reads == reads
    assert world.fake.writes == before + 2  # handle and block, in one batch


def test_a_block_is_used_up_before_the_next_is_claimed(batches: bool) -> None:
    world = World(P, batches=batches)
    ipam = world.node("a")
    got = [ipam.assign(asked(f"h{n}")) for n in range(5)]
    assert [each.claimed for each in got] == [True, False, False, False, True]
    assert len({each.address for each in got}) == 5
    assert len({each.block for each in got}) == 2


def test_a_restarted_process_goes_on_with_its_blocks(batches: bool) -> None:
    world = World(P, batches=batches)
    first = world.node("a").assign(asked("h1"))
    second = world.node("a").assign(asked("h2"))
    assert second.block == first.block
    assert not second.claimed


def test_several_processes_of_one_node_share_it(batches: bool) -> None:
    world = World(P, batches=batches)
    one, two = world.node("a"), world.node("a")
    got = [ipam.assign(asked(f"h{n}")).address for n, ipam in enumerate((one, two) * 8)]
    assert len(set(got)) == 16


def test_strict_affinity_says_who_holds_the_blocks() -> None:
    world = World(P)
    fill(world.node("b"), "b", 12)
    fill(world.node("a"), "a", 4)
    text = exhausted(world.node("a"))
    assert "IPPool p (10.0.0.0/28) has 16 of 16 addresses in use" in text
    assert "4 of 4 blocks held, 1 by this node and 3 by others (b 3)" in text
    assert "strictAffinity forbids to borrow" in text
    assert "add an IPPool" in text


def test_without_strict_affinity_the_last_address_is_borrowed(batches: bool) -> None:
    world = World(P, batches=batches, strict_affinity=False)
    fill(world.node("b"), "b", 13)
    ipam = world.node("a")
    got = [ipam.assign(asked(f"h{n}")) for n in range(3)]
    assert all(each.borrowed for each in got)
    assert "borrow" not in exhausted(ipam)
    assert len(world.users()) == 16
    assert "a" not in world.confirmed()
    world.check()


def test_a_block_of_a_load_balancer_is_not_borrowed_from() -> None:
    world = World(pool("p", "10.0.0.0/30"), strict_affinity=False)
    fill(world.node("b"), "b", 1)
    key = keys.block_key(ip_network("10.0.0.0/30"))
    entry = world.store.get(key)
    assert entry is not None
    world.store.update(key, {**entry.value, "affinity": "virtual:load-balancer"}, entry.revision)
    assert "virtual:load-balancer 1" in exhausted(world.node("a"))


def test_the_block_limit_counts_this_node_only() -> None:
    world = World(P, max_blocks_per_host=1)
    fill(world.node("a"), "a", 4)
    text = exhausted(world.node("a"))
    assert "node a holds 1 blocks, the limit is 1" in text
    assert "raise maxBlocksPerHost" in text
    fill(world.node("b"), "b", 4)


def test_the_limit_is_twenty_unless_set() -> None:
    world = World(pool("p", "10.0.0.0/24", block_size=32))
    fill(world.node("a"), "a", 20)
    assert "the limit is 20" in exhausted(world.node("a"))


def test_at_the_limit_an_address_is_borrowed_where_that_is_allowed() -> None:
    world = World(P, strict_affinity=False, max_blocks_per_host=1)
    fill(world.node("b"), "b", 1)
    got = [world.node("a").assign(asked(f"h{n}")).borrowed for n in range(5)]
    assert got == [False, False, False, False, True]


def test_without_auto_allocation_no_block_is_claimed() -> None:
    world = World(P, auto_allocate_blocks=False)
    assert "autoAllocateBlocks is false" in exhausted(world.node("a"))
    assert world.node("a").claim_ahead() is None


def test_the_second_pool_serves_when_the_first_is_full(batches: bool) -> None:
    world = World(pool("q", "10.1.0.0/30"), pool("r", "10.2.0.0/30"), batches=batches)
    got = fill(world.node("a"), "a", 8)
    assert [address[:4] for address in got] == ["10.1"] * 4 + ["10.2"] * 4
    assert "IPPool q (10.1.0.0/30)" in exhausted(world.node("a"))


def test_pools_asked_for_are_used_up_in_their_order(batches: bool) -> None:
    world = World(P, pool("q", "10.1.0.0/29", automatic=False), batches=batches)
    ipam = world.node("a")
    fill(ipam, "a", 1)
    order = ["10.1.0.0/29", "p"]
    got = [str(ipam.assign(asked(f"h{n}", pools=order)).address) for n in range(9)]
    assert [address[:4] for address in got] == ["10.1"] * 8 + ["10.0"]


def test_a_pool_applied_or_disabled_counts_at_once() -> None:
    world = World()
    ipam = world.node("a")
    with pytest.raises(NoPool, match="no IPPool for IPv4 exists"):
        ipam.assign(asked("h1"))
    world.put(P)
    ipam.assign(asked("h1"))
    world.put(pool("p", "10.0.0.0/28", disabled=True))
    with pytest.raises(NoPool, match="is disabled"):
        ipam.assign(asked("h2"))


def test_node_labels_come_from_the_node() -> None:
    world = World(pool("p", "10.0.0.0/28", node_selector="zone == 'x'"))
    world.node("a", {"zone": "x"}).assign(asked("h1"))
    with pytest.raises(NoPool, match="which node b does not match"):
        world.node("b", {"zone": "y"}).assign(asked("h2", "b"))


def test_an_empty_block_of_a_pool_that_no_longer_selects_the_node_is_given_back() -> None:
    world = World(P, pool("q", "10.1.0.0/28"))
    ipam = world.node("a", {})
    ipam.assign(asked("h1", pools=["q"]))
    ipam.release_handle("h1")
    world.put(pool("q", "10.1.0.0/28", node_selector="zone == 'x'"))
    assert str(ipam.assign(asked("h2")).address).startswith("10.0.")
    assert [block.cidr.network_address.packed[1] for block in world.blocks()] == [0]


def test_reserved_addresses_are_given_only_when_asked_for() -> None:
    world = World(P, reservation("r", "10.0.0.0/30", "10.0.0.4/31", "10.0.0.8/29"))
    ipam = world.node("a")
    assert set(fill(ipam, "a", 2)) == {"10.0.0.6", "10.0.0.7"}
    text = exhausted(ipam)
    assert "14 reserved" in text
    assert len(world.blocks()) == 1
    ipam.assign(asked("h", address=ip_address("10.0.0.9")))


def test_what_the_kernel_still_carries_is_passed_over() -> None:
    world = World(pool("p", "10.0.0.0/30"))
    carried = {ip_address("10.0.0.0"), ip_address("10.0.0.2")}
    ipam = world.node("a")
    got = [ipam.assign(asked(f"h{n}", avoid=carried.__contains__)).address for n in range(2)]
    assert got == [ip_address("10.0.0.1"), ip_address("10.0.0.3")]
    exhausted(ipam, avoid=carried.__contains__)
    assert ipam.assign(asked("h9")).address == ip_address("10.0.0.0")


def test_a_use_needs_a_pool_that_allows_it() -> None:
    world = World(pool("p", "10.0.0.0/28", allowed_uses=(Use.TUNNEL,)))
    world.node("a").assign(asked("t", use=Use.TUNNEL))
    with pytest.raises(NoPool, match="allowedUses Tunnel"):
        world.node("a").assign(asked("h"))


class TestAnAddressAskedFor:
    ADDRESS = ip_address("10.0.0.5")

    def test_is_given_and_its_block_claimed(self, batches: bool) -> None:
        world = World(P, batches=batches, max_blocks_per_host=1)
        ipam = world.node("a")
        got = ipam.assign(asked("h", address=self.ADDRESS))
        assert (got.address, got.claimed) == (self.ADDRESS, True)
        # Neither the limit nor a node selector is asked.
        assert ipam.assign(asked("i", address=ip_address("10.0.0.9"))).claimed
        world.check()

    def test_is_given_once(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.node("a").assign(asked("h", address=self.ADDRESS))
        with pytest.raises(AddressTaken, match=r"10\.0\.0\.5 is in use by demo/h"):
            world.node("a").assign(asked("h2", address=self.ADDRESS))
        assert "h2" not in world.handles()

    def test_is_given_again_after_its_release(self) -> None:
        world = World(P)
        ipam = world.node("a")
        ipam.assign(asked("h", address=self.ADDRESS))
        ipam.release_handle("h")
        assert ipam.assign(asked("h2", address=self.ADDRESS)).address == self.ADDRESS

    def test_rests_after_its_release(self) -> None:
        world = World(P, cooldown_s=60)
        ipam = world.node("a")
        ipam.assign(asked("h", address=self.ADDRESS))
        ipam.release_handle("h")
        with pytest.raises(AddressTaken, match="rests for 60 s"):
            ipam.assign(asked("h2", address=self.ADDRESS))
        world.later(61)
        ipam.assign(asked("h2", address=self.ADDRESS))

    def test_must_lie_in_a_pool(self) -> None:
        with pytest.raises(NoPool, match="not in an enabled IPPool"):
            World(P).node("a").assign(asked("h", address=ip_address("10.9.0.1")))

    def test_must_lie_in_a_pool_that_was_asked_for(self) -> None:
        world = World(P, pool("q", "10.1.0.0/28"))
        with pytest.raises(NoPool, match="not in one of q"):
            world.node("a").assign(asked("h", address=self.ADDRESS, pools=["q"]))

    def test_is_not_borrowed_under_strict_affinity(self) -> None:
        world = World(P)
        world.node("b").assign(asked("h", "b", address=self.ADDRESS))
        with pytest.raises(AddressTaken, match=r"block 10\.0\.0\.4/30 of b, .* strictAffinity"):
            world.node("a").assign(asked("i", address=ip_address("10.0.0.6")))
        world.configure(strict_affinity=False)
        assert world.node("a").assign(asked("i", address=ip_address("10.0.0.6"))).borrowed

    def test_is_refused_while_the_kernel_carries_it(self) -> None:
        request = asked("h", address=self.ADDRESS, avoid=lambda _: True)
        with pytest.raises(AddressTaken, match="a route or link"):
            World(P).node("a").assign(request)


def test_who_asks_again_may_have_the_same_address(batches: bool) -> None:
    world = World(P, batches=batches)
    ipam = world.node("a")
    first = ipam.assign(asked("tunnel", use=Use.TUNNEL, reuse=True))
    again = world.node("a").assign(asked("tunnel", use=Use.TUNNEL, reuse=True))
    assert (again.address, again.sequence) == (first.address, first.sequence)
    exact = ipam.assign(asked("tunnel", reuse=True, address=first.address))
    assert exact.address == first.address
    assert ipam.assign(asked("tunnel")).address != first.address
    assert world.handles()["tunnel"].blocks == {first.block: 2}
    assert len(ipam.release_handle("tunnel")) == 2


class TestWritesThatBelongToTheRequest:
    def also(self, key: str) -> tuple[Write, ...]:
        return (Write(verb=Verb.CREATE, key=key, value={"n": 1}),)

    def test_are_written_with_it(self, batches: bool) -> None:
        world = World(P, batches=batches)
        got = world.node("a").assign(asked("h", also=lambda a: self.also(f"/x/{a}")))
        assert world.store.get(f"/x/{got.address}") is not None

    def test_are_refused_with_it(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.store.create("/x", {})
        ipam = world.node("a")
        with pytest.raises(AlreadyExists):
            ipam.assign(asked("h", also=lambda _: self.also("/x")))
        assert world.users() == {}
        assert world.handles() == {}
        world.check()
        ipam.assign(asked("h"))

    def test_are_refused_with_an_address_the_handle_adds(self, batches: bool) -> None:
        world = World(P, batches=batches)
        world.store.create("/x", {})
        ipam = world.node("a")
        kept = ipam.assign(asked("h"))
        with pytest.raises(AlreadyExists):
            ipam.assign(asked("h", also=lambda _: self.also("/x")))
        assert world.users() == {kept.address: "h"}
        assert world.handles()["h"].blocks == {kept.block: 1}


class TestClaimingAhead:
    def test_claims_the_first_block_and_then_one_at_three_quarters(self, batches: bool) -> None:
        world = World(P, batches=batches)
        ipam = world.node("a")
        first = ipam.claim_ahead()
        assert first is not None
        assert ipam.claim_ahead() is None
        fill(ipam, "a", 2)
        assert ipam.claim_ahead() is None
        fill(ipam, "a", 1, "x")
        second = ipam.claim_ahead()
        assert second not in (None, first)
        assert ipam.claim_ahead() is None
        assert ipam.blocks() == tuple(sorted((first, second)))
        assert not any(ipam.assign(asked(f"y{n}")).claimed for n in range(5))

    def test_is_quiet_when_there_is_nothing_to_claim(self) -> None:
        assert World().node("a").claim_ahead() is None
        world = World(P)
        fill(world.node("b"), "b", 16)
        assert world.node("a").claim_ahead() is None
        limited = World(P, max_blocks_per_host=1)
        fill(limited.node("a"), "a", 4)
        assert limited.node("a").claim_ahead() is None


def test_a_block_can_be_claimed_by_name() -> None:
    world = World(P)
    block = ip_network("10.0.0.8/30")
    assert world.node("a").claim(block)
    assert world.node("a").claim(block)
    assert not world.node("b").claim(block)
    assert world.confirmed() == {"a": [str(block)]}
    assert world.node("a").assign(asked("h")).block == block
    with pytest.raises(NoPool, match="not a block"):
        world.node("a").claim(ip_network("10.0.0.8/29"))
