"""The claim protocol of one node, step by step in the datastore.

The steps and why they may be repeated: `affinity`. Every method may raise `Conflict` or
`AlreadyExists` when somebody else moved at the same time; then nothing is lost: begin again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.errors import InUse
from podwire.ipam.affinity import Step, next_step, usable
from podwire.ipam.allocation import end_rest, hold, new_block
from podwire.model.block import Affinity, AffinityState, Block

if TYPE_CHECKING:
    from podwire.boundary import Clock
    from podwire.ipam.records import Record, Records
    from podwire.model.addressing import IPNetwork


class Claims:
    """What one node claims, gives back and holds."""

    def __init__(self, records: Records, node: str, clock: Clock) -> None:
        self.node = node
        self._records = records
        self._clock = clock

    def held(self, *, cooldown_s: float) -> dict[IPNetwork, Record[Block]]:
        """The node's confirmed blocks; claims found half-done are finished on the way."""
        found = {}
        for affinity in self._records.affinities(self.node):
            block = self._hold(affinity, cooldown_s)
            if block is not None:
                found[affinity.value.block] = block
        return found

    def claim(self, cidr: IPNetwork) -> Record[Block] | None:
        """Make the block the node's; None when somebody else holds it."""
        affinity = self._records.affinity(self.node, cidr)
        block = self._records.block(cidr)
        step = next_step(None if block is None else block.value, self.node)
        if step is Step.YIELD:
            if affinity is not None:
                self._records.delete(affinity)
            return None
        affinity = self._announce(affinity, cidr, step)
        if step is Step.CREATE:
            now, now_ns = self._clock.now(), self._clock.now_ns()
            block = self._records.create(new_block(cidr, self.node, now=now, now_ns=now_ns))
        assert block is not None
        if step is Step.ADOPT:
            held = hold(block.value, self.node, now=self._clock.now())
            block = self._records.update(block, held)
        if not usable(affinity.value):
            self._move(affinity, AffinityState.CONFIRMED)
        return block

    def retire(self, cidr: IPNetwork) -> None:
        """Say that the block will be given back: from now on nobody routes it any more."""
        affinity = self._records.affinity(self.node, cidr)
        if affinity is not None and usable(affinity.value):
            self._move(affinity, AffinityState.PENDING_DELETION)

    def finish(self, cidr: IPNetwork, *, cooldown_s: float) -> bool:
        """Give a retired block back; False when it has become the node's again.

        Raises:
            InUse: addresses were taken meanwhile; the claim is confirmed again.
        """
        affinity = self._records.affinity(self.node, cidr)
        if affinity is None or affinity.value.state is not AffinityState.PENDING_DELETION:
            return affinity is None
        self.release(cidr, must_be_empty=True, cooldown_s=cooldown_s)
        return True

    def release(self, cidr: IPNetwork, *, must_be_empty: bool, cooldown_s: float) -> None:
        """Give the block back; a block that was never claimed is success.

        A block with addresses in use keeps them, without a holder, unless `must_be_empty`. Resting
        addresses count as in use: another node would hand them out without knowing of their rest.

        Raises:
            InUse: `must_be_empty`, and it is not; the claim is confirmed as before.
        """
        affinity = self._records.affinity(self.node, cidr)
        if affinity is not None and affinity.value.state is not AffinityState.PENDING_DELETION:
            affinity = self._move(affinity, AffinityState.PENDING_DELETION)
        block = self._records.block(cidr)
        if block is not None and block.value.node == self.node:
            rested = end_rest(block.value, now=self._clock.now(), cooldown_s=cooldown_s)
            if not rested.allocations:
                self._records.delete(block)
            elif must_be_empty:
                if affinity is not None:
                    self._move(affinity, AffinityState.CONFIRMED)
                raise InUse(
                    f"block {cidr} of node {self.node} has {len(rested.allocations)} addresses"
                    " in use or resting",
                    fix="release them first, or move its pods to another node",
                )
            else:
                self._records.update(block, hold(rested, None, now=self._clock.now()))
        if affinity is not None:
            self._records.delete(affinity)

    def _announce(
        self, affinity: Record[Affinity] | None, cidr: IPNetwork, step: Step
    ) -> Record[Affinity]:
        """The affinity as it must stand before the block is written: pending.

        An affinity that was read as confirmed is written too when the block is not ours: somebody
        of this node may be giving it back right now, and one of the two must notice.
        """
        if affinity is None:
            pending = Affinity(node=self.node, block=cidr, state=AffinityState.PENDING)
            return self._records.create(pending)
        state = affinity.value.state
        if state is AffinityState.PENDING or (usable(affinity.value) and step is Step.CONFIRM):
            return affinity
        return self._move(affinity, AffinityState.PENDING)

    def _hold(self, affinity: Record[Affinity], cooldown_s: float) -> Record[Block] | None:
        cidr = affinity.value.block
        if usable(affinity.value):
            block = self._records.block(cidr)
            if block is not None and block.value.node == self.node:
                return block
        if affinity.value.state is AffinityState.PENDING_DELETION:
            try:
                self.release(cidr, must_be_empty=True, cooldown_s=cooldown_s)
            except InUse:
                # Addresses were taken before the giving back came to its end; or it was meant for
                # a node that is gone, and here we are. The pods need their block.
                return self._records.block(cidr)
            return None
        return self.claim(cidr)

    def _move(self, affinity: Record[Affinity], state: AffinityState) -> Record[Affinity]:
        return self._records.update(affinity, replace(affinity.value, state=state))
