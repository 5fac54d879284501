"""Any sequence of requests, crashes and restarts on three nodes, against a simple model."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from podwire.drivers.store.single_object import Crash
from podwire.errors import AddressTaken, InUse, PoolExhausted
from podwire.ipam.service import IPAM, AssignRequest, Release
from tests.fakes.ipam_world import World, asked, pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.ipam.service import Assigned
    from podwire.model.addressing import IPAddress

T = TypeVar("T")

COOLDOWN_S = 5
EXAMPLES = settings().max_examples  # as much as the profile asks
NODES = st.sampled_from(["a", "b", "c"])
HANDLES = st.sampled_from(["h1", "h2", "h3", "h4"])
ORDINALS = st.integers(0, 7)
CRASHES = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 4), st.booleans()))


class Machine(RuleBasedStateMachine):
    """The model: who was told to have which address, and when an address was last given up."""

    batches = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            pool("p", "10.0.0.0/30", block_size=31),
            pool("q", "10.0.0.4/30", block_size=31),
            batches=self.batches,
            cooldown_s=COOLDOWN_S,
        )
        self.world.store.after_write = self.world.check
        self.processes: dict[str, IPAM] = {}
        self.owned: dict[IPAddress, Assigned] = {}
        self.owner: dict[IPAddress, str] = {}
        self.doubtful: set[str] = set()
        """Handles whose last request crashed: they may have more, or fewer, than they know."""
        self.given_up: dict[IPAddress, tuple[float, str | None]] = {}
        """When, and by whom where that is certain."""

    @rule(node=NODES, handle=HANDLES, crash=CRASHES)
    def assign(self, node: str, handle: str, crash: tuple[int, bool] | None) -> None:
        self._assign(node, asked(handle, node), crash)

    @rule(node=NODES, handle=HANDLES, ordinal=ORDINALS, crash=CRASHES)
    def assign_exactly(
        self, node: str, handle: str, ordinal: int, crash: tuple[int, bool] | None
    ) -> None:
        address = ip_address("10.0.0.0") + ordinal
        self._assign(node, asked(handle, node, address=address), crash)

    @rule(node=NODES, handle=HANDLES, crash=CRASHES)
    def release(self, node: str, handle: str, crash: tuple[int, bool] | None) -> None:
        mine = {address for address, owner in self.owner.items() if owner == handle}
        released = self._run(node, handle, lambda ipam: ipam.release_handle(handle), crash)
        if released is not None:
            assert mine <= set(released)
            if handle not in self.doubtful:
                assert mine == set(released)
            self.doubtful.discard(handle)
            assert handle not in self.world.handles()
        for address in mine if released is None else released:
            self._give_up(address)

    @rule(node=NODES, ordinal=ORDINALS, old=st.booleans(), crash=CRASHES)
    def release_address(
        self, node: str, ordinal: int, old: bool, crash: tuple[int, bool] | None
    ) -> None:
        address = ip_address("10.0.0.0") + ordinal
        known = self.owned.get(address)
        handle = self.owner.get(address, "h1")
        sequence = None if known is None else known.sequence - old
        wanted = Release(address=address, handle=handle, sequence=sequence)
        done = self._run(node, handle, lambda ipam: ipam.release_addresses([wanted]), crash)
        if done is None:
            if self.owner.get(address) == handle:
                self._give_up(address)
        elif done.released:
            assert known is None or not old
            assert handle in self.doubtful or known is not None
            self._give_up(address)

    @rule(node=NODES, crash=CRASHES)
    def claim_ahead(self, node: str, crash: tuple[int, bool] | None) -> None:
        self._run(node, None, lambda ipam: ipam.claim_ahead(), crash)

    @rule(node=NODES, crash=CRASHES)
    def give_back(self, node: str, crash: tuple[int, bool] | None) -> None:
        self._run(node, None, lambda ipam: ipam.release_empty(keep=0), crash)

    @rule(node=NODES, crash=CRASHES)
    def give_back_surplus(self, node: str, crash: tuple[int, bool] | None) -> None:
        self._run(node, None, lambda ipam: ipam.give_back(), crash)

    @rule(node=NODES, empty=st.booleans(), crash=CRASHES)
    def leave(self, node: str, empty: bool, crash: tuple[int, bool] | None) -> None:
        """The node gives all its blocks back."""

        def act(ipam: IPAM) -> None:
            for block in ipam.blocks():
                ipam.release_affinity(block, must_be_empty=empty)

        self._run(node, None, act, crash)

    @rule(seconds=st.integers(1, 2 * COOLDOWN_S))
    def wait(self, seconds: int) -> None:
        self.world.later(seconds)

    @rule(node=NODES)
    def restart(self, node: str) -> None:
        self.processes.pop(node, None)

    @rule(strict=st.booleans())
    def configure(self, strict: bool) -> None:
        self.world.configure(strict_affinity=strict, cooldown_s=COOLDOWN_S)

    @invariant()
    def nobody_lost_an_address(self) -> None:
        self.world.check()
        users = self.world.users()
        assert self.owner.items() <= users.items()
        for address, handle in users.items():
            assert address in self.owner or handle in self.doubtful

    def teardown(self) -> None:
        for handle in self.world.handles():
            self.world.node("a").release_handle(handle)
        assert self.world.handles() == {}
        self.world.later(2 * COOLDOWN_S)
        for node in ("a", "b", "c"):
            self.world.node(node).release_empty(keep=0)
        for block in self.world.blocks():
            # Nobody holds it since its last node left; whoever claims it can clear it up.
            assert block.node is None
            assert self.world.node("a").claim(block.cidr)
        self.world.node("a").release_empty(keep=0)
        assert self.world.blocks() == ()

    def _assign(self, node: str, request: AssignRequest, crash: tuple[int, bool] | None) -> None:
        now = self.world.clock.seconds
        try:
            got = self._run(node, request.handle, lambda ipam: ipam.assign(request), crash)
        except (AddressTaken, PoolExhausted):
            return
        if got is None:
            return
        assert got.address not in self.owner
        since, last = self.given_up.get(got.address, (-COOLDOWN_S, None))
        # Only the pod that had it gets it back before its rest is over, and only when it asks.
        returns = request.address is not None and last in {None, request.handle}
        assert returns or now - since >= COOLDOWN_S - 1
        assert request.address in (None, got.address)
        self.owned[got.address] = got
        self.owner[got.address] = request.handle

    def _run(
        self,
        node: str,
        handle: str | None,
        act: Callable[[IPAM], T],
        crash: tuple[int, bool] | None,
    ) -> T | None:
        """Let the node's process act; None when it crashed, and a new one takes its place."""
        process = self.processes.setdefault(node, self.world.node(node))
        if crash is not None:
            self.world.fake.fail_after(crash[0], answer_lost=crash[1])
        try:
            return act(process)
        except Crash:
            del self.processes[node]
            if handle is not None:
                self.doubtful.add(handle)
            return None
        except InUse:
            return None
        finally:
            self.world.fake.recover()

    def _give_up(self, address: IPAddress) -> None:
        self.owned.pop(address, None)
        self.given_up[address] = (self.world.clock.seconds, self.owner.pop(address, None))


class MachineWithoutBatch(Machine):
    batches = False


@pytest.mark.parametrize("machine", [Machine, MachineWithoutBatch])
def test_any_history(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES // 3,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
