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
        if affinity is None:
            affinity = self._records.create(
                Affinity(node=self.node, block=cidr, state=AffinityState.PENDING)
            )
        elif affinity.value.state is AffinityState.PENDING_DELETION:
            affinity = self._move(affinity, AffinityState.PENDING)
        block = self._records.block(cidr)
        value = None if block is None else block.value
        match next_step(value, self.node):
            case Step.YIELD:
                self._records.delete(affinity)
                return None
            case Step.CREATE:
                now_ns = self._clock.now_ns()
                empty = new_block(cidr, self.node, now=self._clock.now(), now_ns=now_ns)
                block = self._records.create(empty)
            case Step.ADOPT:
                assert block is not None
                held = hold(block.value, self.node, now=self._clock.now())
                block = self._records.update(block, held)
            case Step.CONFIRM:
                pass
        if not usable(affinity.value):
            self._move(affinity, AffinityState.CONFIRMED)
        return block

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
