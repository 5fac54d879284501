"""One try to assign an address: from own blocks, from a block newly claimed, or borrowed.

A try either ends with an address, raises a rejection, or raises `Conflict`/`AlreadyExists` because
somebody else was quicker; `service` then tries again. A try made from memory returns None where
the datastore would have to be asked first.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.errors import AddressTaken, Conflict, InUse, NoPool, Stale
from podwire.ipam.affinity import adoptable, free_blocks, walk_position
from podwire.ipam.allocation import allocate, end_rest, first_free, free, ordinals_of
from podwire.ipam.exhaustion import Limit, exhausted
from podwire.ipam.ledger import Edit
from podwire.ipam.pools import Asker, select_pools, selects_node
from podwire.ipam.request import Assigned, AssignRequest
from podwire.model import keys
from podwire.model.addressing import address_at, block_holding, contains, ordinal_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podwire.ipam.desk import Desk
    from podwire.ipam.memory import View
    from podwire.ipam.records import Record
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation, Block, Handle
    from podwire.model.pool import IPPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of one request."""

    desk: Desk
    request: AssignRequest
    view: View
    handle: Record[Handle] | None
    """As read, or None when it is not there, or not read because it is most likely new."""

    def run(self) -> Assigned | None:
        """The address; None when memory has none and the datastore was not asked yet.

        Raises:
            NoPool, PoolExhausted, AddressTaken: as `IPAM.assign`.
            Conflict, AlreadyExists: somebody else was quicker.
        """
        request = self.request
        if request.address is not None:
            return self._exactly(request.address)
        asker = self._asker()
        pools = select_pools(self.view.rules, asker)
        if request.reuse and (found := self._same_again(pools)) is not None:
            return found
        # Pools that were asked for are tried one after the other; among the others a block that
        # the node already holds comes before any that it would have to claim.
        limit = Limit.NO_BLOCK
        for group in [[pool] for pool in pools] if request.pools is not None else [pools]:
            found = self._from_own(group)
            if found is None and not self.view.fresh:
                return None
            if found is None:
                self._give_back_unselected()
                found, limit = self._from_new(group)
            if found is None and not self.view.rules.config.strict_affinity:
                found = self._borrow(group)
            if found is not None:
                return found
        blocks = [record.value for record in self.desk.records.blocks(prefix=keys.BLOCKS4)]
        raise exhausted(self.view.rules, asker, pools, blocks, limit)

    def _asker(self) -> Asker:
        return Asker(
            node=self.desk.node,
            use=self.request.use,
            namespace=self.request.attributes.get("namespace"),
            pools=self.request.pools,
        )

    def _from_own(self, pools: Sequence[IPPool]) -> Assigned | None:
        for cidr in own_blocks(self.view, pools):
            found = self._from_block(self.view.own[cidr])
            if found is not None:
                return found
        return None

    def _from_new(self, pools: Sequence[IPPool]) -> tuple[Assigned | None, Limit]:
        rules = self.view.rules
        if not rules.config.auto_allocate_blocks:
            return None, Limit.NO_CLAIMS
        count = len(self.view.own)
        for record in claimable(self.desk, self.view, pools, count):
            self.desk.memory.put(record)
            count += 1
            found = self._from_block(record, claimed=True)
            if found is not None:
                return found, Limit.NO_BLOCK
        return None, Limit.BLOCK_LIMIT if count >= rules.block_limit else Limit.NO_BLOCK

    def _borrow(self, pools: Sequence[IPPool]) -> Assigned | None:
        """An address of another node's block; visited from the node's own place in the pool."""
        blocks = [
            record
            for record in self.desk.records.blocks(prefix=keys.BLOCKS4)
            if record.value.node != self.desk.node and record.value.foreign_affinity is None
        ]
        for pool in pools:
            inside = [record for record in blocks if contains(pool.cidr, record.value.cidr)]
            inside.sort(key=lambda record: walk_position(pool, self.desk.node, record.value.cidr))
            for record in inside:
                found = self._from_block(record)
                if found is not None:
                    return found
        return None

    def _from_block(self, record: Record[Block], *, claimed: bool = False) -> Assigned | None:
        block = self._rested(record)
        ordinal = first_free(block, self._skip)
        return None if ordinal is None else self._take(record, block, ordinal, claimed=claimed)

    def _skip(self, address: IPAddress) -> bool:
        return self.view.rules.is_reserved(address) or self.request.avoid(address)

    def _exactly(self, address: IPAddress) -> Assigned | None:
        rules, node = self.view.rules, self.desk.node
        pool = rules.pool_of(address)
        if pool is None:
            raise NoPool(
                f"{address} is not in an enabled IPPool",
                fix=f"ask for one of {', '.join(str(p.cidr) for p in rules.pools)}"
                if rules.pools
                else "create an IPPool with podwire apply -f FILE",
            )
        asked = self.request.pools if self.request.pools is not None else (pool.name,)
        allowed = select_pools(rules, Asker(node=node, use=self.request.use, pools=asked))
        if pool not in allowed:
            raise NoPool(
                f"{address} is in IPPool {pool.name}, not in one of {', '.join(asked)}",
                fix="ask for an address of these pools, or for its pool too",
            )
        cidr = block_holding(address, pool.block_size)
        record = self.view.own.get(cidr) or self.desk.records.block(cidr)
        claimed = False
        if record is None or (record.value.node != node and adoptable(record.value, node)):
            record = self.desk.claims.claim(cidr)
            if record is None:
                raise Conflict(f"block {cidr} was claimed by another node")
            self.desk.memory.put(record)
            claimed = True
        block, ordinal = self._rested(record), ordinal_of(cidr, address)
        holder = block.node or block.foreign_affinity
        if holder != node and (rules.config.strict_affinity or block.foreign_affinity):
            raise AddressTaken(
                f"{address} lies in block {cidr} of {holder or 'nobody'}, and node {node} may not"
                " borrow it because strictAffinity is set",
                fix="ask for an address of a free block, or run the pod on that node",
            )
        return self._reuse_or_take(record, block, ordinal, claimed=claimed)

    def _reuse_or_take(
        self, record: Record[Block], block: Block, ordinal: int, *, claimed: bool
    ) -> Assigned:
        address = address_at(block.cidr, ordinal)
        taken = block.allocations.get(ordinal)
        if taken is not None and taken.released_at is not None:
            if not is_same_pod(taken.attributes, self.request.attributes):
                raise AddressTaken(
                    f"{address} was released at {taken.released_at} by {owner_of(taken)} and rests"
                    f" for {self.view.rules.config.cooldown_s} s",
                    fix="ask again later, or for another address",
                )
            # It rests so that nothing meant for the old pod reaches a new one; this is the old one.
            block, taken = free(block, [ordinal]), None
        if taken is None:
            if self.request.avoid(address):
                raise AddressTaken(
                    f"{address} is free, but a route or link of node {self.desk.node} carries it",
                    fix="delete what carries it, or ask for another address",
                )
            return self._take(record, block, ordinal, claimed=claimed)
        if not self.request.reuse or taken.handle != self.request.handle:
            raise AddressTaken(
                f"{address} is in use by {owner_of(taken)}",
                fix="ask for another address, or delete its owner first",
            )
        return self._assigned_before(block, ordinal)

    def _same_again(self, pools: Sequence[IPPool]) -> Assigned | None:
        """The address the handle has in one of the pools, if it has one."""
        for cidr in () if self.handle is None else self.handle.value.blocks:
            if not any(contains(pool.cidr, cidr) for pool in pools):
                continue
            record = self.desk.records.block(cidr)
            ordinals = () if record is None else ordinals_of(record.value, self.request.handle)
            if record is not None and ordinals:
                return self._assigned_before(record.value, ordinals[0])
        return None

    def _assigned_before(self, block: Block, ordinal: int) -> Assigned:
        address = address_at(block.cidr, ordinal)
        if self.request.also is not None:
            self.desk.ledger.carry_out(self.request.also(address))
        return Assigned(
            address=address,
            block=block.cidr,
            sequence=block.allocations[ordinal].sequence,
            borrowed=block.node != self.desk.node,
        )

    def _take(
        self, record: Record[Block], block: Block, ordinal: int, *, claimed: bool
    ) -> Assigned:
        request, address = self.request, address_at(block.cidr, ordinal)
        new = allocate(block, ordinal, request.handle, request.attributes)
        also = () if request.also is None else request.also(address)
        try:
            written = self.desk.ledger.enter(request.handle, self.handle, Edit(record, new), also)
        except Stale:
            self.desk.memory.reread(block.cidr)
            raise
        self.desk.memory.put(written)
        return Assigned(
            address=address,
            block=block.cidr,
            sequence=new.allocations[ordinal].sequence,
            claimed=claimed,
            borrowed=block.node != self.desk.node,
        )

    def _rested(self, record: Record[Block]) -> Block:
        cooldown_s = self.view.rules.config.cooldown_s
        return end_rest(record.value, now=self.desk.clock.now(), cooldown_s=cooldown_s)

    def _give_back_unselected(self) -> None:
        """Return empty blocks of pools that no longer select this node, for others to use."""
        rules = self.view.rules
        for cidr, record in self.view.own.items():
            pool = rules.pool_of(cidr)
            if pool is None or record.value.allocations or selects_node(pool, rules.node_labels):
                continue
            with suppress(InUse, Stale):
                self.desk.claims.release(
                    cidr, must_be_empty=True, cooldown_s=rules.config.cooldown_s
                )


def is_same_pod(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the attributes of two allocations name one pod."""
    return bool(one.get("pod")) and all(
        one.get(name) == other.get(name) for name in ("namespace", "pod")
    )


def owner_of(allocation: Allocation) -> str:
    """Whose an address is, for a person: its pod and node, or the handle where there is no pod."""
    told = allocation.attributes
    pod = "/".join(told[name] for name in ("namespace", "pod") if name in told)
    if not pod:
        return f"handle {allocation.handle}"
    return f"{pod} on node {told['node']}" if told.get("node") else pod


def own_blocks(view: View, pools: Sequence[IPPool]) -> tuple[IPNetwork, ...]:
    """The node's blocks inside these pools: in the order of the pools, then of addresses."""
    return tuple(cidr for pool in pools for cidr in sorted(view.own) if contains(pool.cidr, cidr))


def claimable(
    desk: Desk, view: View, pools: Sequence[IPPool], held: int
) -> Iterator[Record[Block]]:
    """Claim block after block, as far as pools and the node's limit allow; the taker stops it."""
    rules = view.rules
    if held >= rules.block_limit:
        return
    taken = {affinity.value.block for affinity in desk.records.affinities()}
    for pool in pools:
        for cidr in free_blocks(pool, desk.node, taken):
            if rules.is_reserved(cidr):
                continue
            record = desk.claims.claim(cidr)
            if record is None:
                continue
            yield record
            held += 1
            if held >= rules.block_limit:
                return
