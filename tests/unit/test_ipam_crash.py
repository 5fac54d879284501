"""A crash at every write of every operation: what it leaves is sound and can be cleaned up."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from podwire.boundary import Verb, Write
from podwire.drivers.store.single_object import Crash
from podwire.ipam.service import Release
from podwire.model import keys
from tests.fakes.ipam_world import World, asked, pool

if TYPE_CHECKING:
    from podwire.ipam.service import IPAM

MOST_WRITES = 20

Operation = Callable[["IPAM"], object]


def endpoint(address: object) -> tuple[Write, ...]:
    return (Write(verb=Verb.CREATE, key="/endpoint/new", value={"address": str(address)}),)


OPERATIONS: dict[str, Operation] = {
    "assign": lambda ipam: ipam.assign(asked("new", also=endpoint)),
    "assign with a claim": lambda ipam: ipam.assign(asked("new", pools=["q"], also=endpoint)),
    "assign more to a handle": lambda ipam: ipam.assign(asked("old")),
    # The same owner may ask for the same address again: it cannot know whether it got it.
    "assign exactly": lambda ipam: ipam.assign(
        asked("new", address=ip_address("10.1.0.6"), reuse=True)
    ),
    "borrow": lambda ipam: ipam.assign(asked("new", pools=["full"])),
    "claim ahead": lambda ipam: ipam.claim_ahead(),
    "release by handle": lambda ipam: ipam.release_handle("old"),
    "release with an endpoint": lambda ipam: ipam.release_handle(
        "old", [Write(verb=Verb.DELETE, key="/endpoint/old")]
    ),
    "release by address": lambda ipam: ipam.release_addresses(
        [Release(address=ip_address("10.1.0.0")), Release(address=ip_address("10.1.0.1"))]
    ),
    "give an empty block back": lambda ipam: ipam.release_empty(keep=0),
    "give surplus blocks back": lambda ipam: (ipam.release_handle("old"), ipam.give_back()),
    "give a used block back": lambda ipam: ipam.release_affinity(
        ip_network("10.1.0.0/30"), must_be_empty=False
    ),
}


def prepared(batches: bool) -> World:
    """Node a has two blocks, one of them empty, and a handle with addresses in two; b has one."""
    world = World(
        pool("p", "10.1.0.0/28"),
        pool("q", "10.2.0.0/30"),
        pool("full", "10.3.0.0/30", automatic=False),
        batches=batches,
        strict_affinity=False,
    )
    world.node("b").assign(asked("b1", "b", address=ip_address("10.3.0.0")))
    ipam = world.node("a")
    for text in ("10.1.0.0", "10.1.0.1", "10.1.0.2", "10.3.0.1"):
        ipam.assign(asked("old", address=ip_address(text)))
    assert ipam.claim(ip_network("10.1.0.4/30"))
    world.store.create("/endpoint/old", {})
    world.store.after_write = world.check
    return world


def cleaned(world: World) -> None:
    """Everything the two nodes have can be released, and then nothing is left."""
    for name in world.handles():
        world.node("a").release_handle(name)
    assert world.users() == {}
    assert world.handles() == {}
    for node in ("a", "b"):
        world.node(node).release_empty(keep=0)
    assert world.blocks() == ()
    assert world.store.list(keys.AFFINITIES).entries == ()


@pytest.mark.parametrize("lost", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_write_is_recovered(name: str, batches: bool, lost: bool) -> None:
    operation = OPERATIONS[name]
    for writes in range(MOST_WRITES):
        for repeat in (False, True):
            world = prepared(batches)
            before = world.users()
            ipam = world.node("a")
            world.fake.fail_after(writes, answer_lost=lost)
            try:
                operation(ipam)
            except Crash:
                crashed = True
            else:
                crashed = False
            world.fake.recover()
            world.check()
            if crashed and repeat:
                world.store.delete("/endpoint/new")
                operation(world.node("a"))
                world.check()
            if name.startswith(("assign", "borrow", "claim")):
                after = world.users()
                assert before.items() <= after.items()
                if "/endpoint/new" in (e.key for e in world.store.list("/endpoint/").entries):
                    assert "new" in after.values()
            # The caller sends DEL after a failed ADD.
            world.node("a").release_handle("new")
            assert "new" not in world.handles()
            cleaned(world)
            if not crashed:
                return
    pytest.fail(f"more than {MOST_WRITES} writes")
