"""Several processes at once: every interleaving of their datastore calls keeps addresses single.

Each process is a thread that stops before each call of the store; hypothesis chooses who goes on,
and who dies. The rules of the datastore are checked after every write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Semaphore, Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podwire.drivers.store.single_object import Crash
from podwire.errors import Rejected, Transient
from podwire.ipam.leftovers import drop_handle, survey
from tests.fakes.ipam_world import WatchedStore, World, asked, pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Store
    from podwire.ipam.service import IPAM
    from podwire.model.addressing import IPAddress

EXAMPLES = settings().max_examples  # as much as the profile asks
SHARED = "shared"
Step = tuple[str, str]


@dataclass
class Actor:
    """One process: what it does, what it believes, and whether it may go on."""

    node: str
    steps: list[Step]
    owned: dict[IPAddress, str] = field(default_factory=dict)
    """Addresses it was given and has not begun to release."""
    go: Semaphore = field(default_factory=lambda: Semaphore(0))
    dies: bool = False
    ended: bool = False
    failure: BaseException | None = None


class Stage:
    """Runs the actors, one store call at a time."""

    def __init__(self, world: World, actors: list[Actor]) -> None:
        self.world = world
        self.actors = actors
        self.stopped = Semaphore(0)

    def play(self, choose: Callable[[int], int], chance_of_death: Callable[[], bool]) -> None:
        for actor in self.actors:
            Thread(target=self._run, args=(actor,), daemon=True).start()
            assert self.stopped.acquire(timeout=10)
        while alive := [actor for actor in self.actors if not actor.ended]:
            actor = alive[choose(len(alive))]
            actor.dies = chance_of_death()
            actor.go.release()
            assert self.stopped.acquire(timeout=10)

    def _run(self, actor: Actor) -> None:
        store = WatchedStore(self.world.fake)
        store.before = lambda: self._pause(actor)
        store.after_write = self.world.check
        try:
            self._pause(actor)
            ipam = self.world.node(actor.node, store=store)
            for verb, name in actor.steps:
                self._act(actor, ipam, store, (verb, name))
        except Crash:
            pass
        except BaseException as failure:
            actor.failure = failure
        actor.ended = True
        self.stopped.release()

    def _pause(self, actor: Actor) -> None:
        self.stopped.release()
        actor.go.acquire()
        if actor.dies:
            raise Crash

    def _act(self, actor: Actor, ipam: IPAM, store: Store, step: Step) -> None:
        verb, name = step
        handle = name if name == SHARED else f"{id(actor)}{name}"
        try:
            match verb:
                case "assign":
                    got = ipam.assign(asked(handle, actor.node))
                    if name != SHARED:
                        assert self.world.users()[got.address] == handle
                        actor.owned[got.address] = handle
                case "release":
                    for address, owner in list(actor.owned.items()):
                        if owner == handle:
                            del actor.owned[address]
                    ipam.release_handle(handle)
                case "ahead":
                    ipam.claim_ahead()
                case "drop":
                    # At once, without the grace period that agents let pass in between.
                    for empty, revision in survey(store).empty.items():
                        drop_handle(store, ipam, empty, revision)
                case _:
                    ipam.release_empty(keep=0)
        except (Rejected, Transient):
            pass  # full, or too many at once: that is an answer


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["assign", "assign", "assign", "release", "release", "ahead", "give back", "drop"]
        ),
        st.sampled_from(["x", "y", SHARED]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "borrowing"])
@pytest.mark.parametrize("batches", [True, False], ids=["batch", "single"])
@settings(max_examples=EXAMPLES // 2, suppress_health_check=list(HealthCheck))
@given(data=st.data(), scripts=st.lists(STEPS, min_size=2, max_size=3))
def test_no_address_is_ever_doubled(
    batches: bool, strict: bool, data: st.DataObject, scripts: list[list[Step]]
) -> None:
    world = World(pool("p", "10.0.0.0/29"), batches=batches, strict_affinity=strict)
    actors = [
        # The first two are processes of one node.
        Actor(node="a" if number < 2 else "b", steps=steps)
        for number, steps in enumerate(scripts)
    ]
    rng = data.draw(st.randoms(use_true_random=False))
    deadly = data.draw(st.sampled_from([0.0, 0.0, 0.03]))
    Stage(world, actors).play(rng.randrange, lambda: rng.random() < deadly)

    for actor in actors:
        if actor.failure is not None:
            raise actor.failure
    world.check()
    owned = [address for actor in actors for address in actor.owned]
    assert len(set(owned)) == len(owned)
    users = world.users()
    for actor in actors:
        assert actor.owned.items() <= users.items()
    # Whatever was left half-done, a release by handle ends it, and the blocks can be given back.
    for handle in world.handles():
        world.node("a").release_handle(handle)
    assert (world.users(), world.handles()) == ({}, {})
    for block in world.blocks():
        # A process that died while another gave the same block back may leave it without a claim.
        assert world.node(str(block.node)).claim(block.cidr)
    for node in ("a", "b"):
        world.node(node).release_empty(keep=0)
    assert world.blocks() == ()
