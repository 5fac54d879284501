"""IPAM of one node: the compare-and-swap loop around pure decisions.

Every public method may be called from any thread. With `turn` (a lock) the calls of one process
take turns instead of racing for the node's block, which is what an agent wants; several processes
are always safe.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from podwire.errors import DatastoreUnavailable, InUse, NoPool, Rejected, Stale
from podwire.ipam.affinity import usable
from podwire.ipam.allocation import end_rest
from podwire.ipam.assignment import Try, claimable, own_blocks
from podwire.ipam.claims import Claims
from podwire.ipam.desk import Desk
from podwire.ipam.ledger import AlsoRefused, Ledger
from podwire.ipam.memory import Memory
from podwire.ipam.pools import Asker, select_pools
from podwire.ipam.records import Records
from podwire.ipam.regain import regain
from podwire.ipam.release import by_block, holder_of, release_by_handle, release_from
from podwire.ipam.request import Assigned, AssignRequest, Release, Released
from podwire.ipam.room import refuse_without_room
from podwire.ipam.surplus import GivenBack, enough, surplus
from podwire.ipam.usage import Usage, compute_usage, read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podwire.boundary import Clock, Dice, Store, Write
    from podwire.ipam.memory import View
    from podwire.ipam.pools import Rules
    from podwire.ipam.records import Record
    from podwire.ipam.regain import Regained
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation, Block
    from podwire.model.pool import IPPool

__all__ = ["IPAM", "AssignRequest", "Assigned", "Release", "Released"]

T = TypeVar("T")

TRIES = 100
"""Tries of one request before it gives up; each lost one means that somebody else went ahead."""
FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05
WITHDRAWAL_S = 0.2
"""How long a block is announced to be given back before anybody may claim it: till then other nodes
have taken their routes to it away, and none can lead the next holder's packets to us."""


class IPAM:
    """Addresses for one node.

    Args:
        store: where pools, blocks, affinities and handles lie.
        node: the node addresses are for.
        clock: cooldown, sequence numbers and pauses.
        dice: spreads the pauses of those who raced.
        node_labels: what node selectors see; None reads them from the Node object.
        turn: entered around every request, a `threading.Lock`; must not be reentered by `also` or
            `avoid` of a request.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        clock: Clock,
        dice: Dice,
        *,
        node_labels: Mapping[str, str] | None = None,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        records = Records(store)
        claims = Claims(records, node, clock)
        self._dice = dice
        self._turn = nullcontext() if turn is None else turn
        self._desk = Desk(
            records=records,
            claims=claims,
            ledger=Ledger(records),
            memory=Memory(records, claims, clock, node_labels),
            clock=clock,
        )

    def follow(self, rules: Callable[[], Rules | None]) -> None:
        """From now on take the rules from a copy that a watch keeps up.

        It says None while it may be old, and then they are read. As it lags, they are read anyway
        before a request fails.
        """
        self._desk.memory.copied = rules

    def assign(self, request: AssignRequest) -> Assigned:
        """Allocate one address.

        Raises:
            NoPool: no enabled pool serves the node and use, or the address asked for.
            PoolExhausted: the pools are full; says how full, who holds the blocks, what to do.
            AddressTaken: the address asked for is in use, rests, or is another node's.
            Stale: one of the request's `also` was refused; nothing was allocated.
            DatastoreUnavailable: away, or too many writers at once.
        """
        again = False
        with self._turn:
            for number in range(TRIES):
                try:
                    found = self._try(request, first=number == 0, again=again)
                except AlsoRefused as refused:
                    raise refused.cause from None
                except Stale:
                    self._pause(number)
                    again = False
                else:
                    if found is not None:
                        return found
                    again = True
        raise self._contended(f"address for {request.handle}")

    def release_handle(
        self,
        handle: str,
        also: Sequence[Write] = (),
        seen: Mapping[IPAddress, int] | None = None,
    ) -> tuple[IPAddress, ...]:
        """Release all addresses of the handle and delete it; an unknown handle is success.

        `also` is written with it: in the same batch, or before where the store has none. With
        `seen` (address → sequence number) nothing is released unless these are its addresses.

        Raises:
            Stale: one of `also` was refused; nothing was released.
        """
        what, desk = f"handle {handle}", self._desk
        with self._turn:
            if not desk.ledger.can_batch:
                # Once and first: an endpoint must never outlive its address.
                self._again(what, lambda: desk.ledger.carry_out(also))
                also = ()
            return self._again(what, lambda: release_by_handle(desk, handle, also, seen))

    def release_addresses(self, releases: Sequence[Release]) -> Released:
        """Release single addresses, each only if it still is what the caller thinks."""
        with self._turn:
            groups, absent = by_block(self._desk, releases)
            parts = [
                self._again(f"block {cidr}", partial(release_from, self._desk, cidr, group))
                for cidr, group in groups
            ]
        return Released(
            released=tuple(address for part in parts for address in part.released),
            absent=(*absent, *(address for part in parts for address in part.absent)),
            foreign=tuple(address for part in parts for address in part.foreign),
        )

    def holder(self, address: IPAddress) -> Allocation | None:
        """Who has the address, as the datastore has it now; None when nobody, or when it rests."""
        with self._turn:
            return holder_of(self._desk, address)

    def regain(self, request: AssignRequest, is_gone: Callable[[Allocation], bool]) -> Regained:
        """Enter the address asked for, which a pod of this node carries, as that pod's again.

        `is_gone` says of an allocation whether its owner cannot be there any more.

        Raises:
            NoPool: no IPPool has the address.
            AddressTaken: it has become somebody else's.
        """
        address = request.address
        assert address is not None, "only an address that is known can be regained"
        with self._turn:
            return self._again(
                f"address {address}", lambda: regain(self._desk, request, address, is_gone)
            )

    def forget(self) -> None:
        """Trust nothing that is remembered: the datastore was restored from a backup."""
        self._desk.memory.forget()

    def refuse_without_room(self, pools: Sequence[str] | None = None) -> None:
        """Raise what `assign` would if a pod came now; assigns and claims nothing.

        Raises:
            NoPool, PoolExhausted: there is no address to give.
        """
        with self._turn:
            view = self._again("the node's blocks", lambda: self._desk.memory.look(again=True))
            refuse_without_room(self._desk, view, pools)

    def claim_ahead(self) -> IPNetwork | None:
        """Claim the next block when the node's free addresses run low; None when there is no need.

        With no block at all it claims the first. No pool, no free block and a reached limit are no
        errors here: the request that needs an address tells them.
        """
        with self._turn:
            return self._again("the next block", self._claim_ahead)

    def claim(self, block: IPNetwork) -> bool:
        """Claim this very block; False when another node holds it.

        Raises:
            NoPool: it is no block of an enabled pool.
        """
        with self._turn:
            pool = self._desk.memory.rules(again=True).pool_of(block)
            if pool is None or pool.block_size != block.prefixlen:
                raise NoPool(
                    f"{block} is not a block of an enabled IPPool",
                    fix="name a block of an IPPool, of its block size",
                )
            record = self._again(f"block {block}", lambda: self._desk.claims.claim(block))
            self._desk.memory.forget()
        return record is not None

    def blocks(self) -> tuple[IPNetwork, ...]:
        """The node's confirmed blocks, as the datastore has them."""
        node = self._desk.node
        return tuple(
            sorted(a.value.block for a in self._desk.records.affinities(node) if usable(a.value))
        )

    def release_affinity(self, block: IPNetwork, must_be_empty: bool = True) -> None:
        """Give a block back; one that is not the node's is success.

        Raises:
            InUse: `must_be_empty`, and addresses are in use or rest.
        """
        with self._turn:
            try:
                self._again(f"block {block}", lambda: self._give_back(block, must_be_empty))
            finally:
                self._desk.memory.forget()

    def release_empty(self, keep: int = 1) -> tuple[IPNetwork, ...]:
        """Give the node's empty blocks back, all but `keep` of them."""
        with self._turn:
            view = self._again("all blocks", lambda: self._desk.memory.look(again=True))
            empty = [c for c, record in sorted(view.own.items()) if self._is_empty(record, view)]
            spare = tuple(empty[keep:])
            for cidr in spare:
                self._again(f"block {cidr}", partial(self._give_back, cidr, True))
            self._desk.memory.forget()
        return spare

    def give_back(self) -> GivenBack:
        """Give back the empty blocks the node can do without; the opposite of `claim_ahead`.

        Takes a moment when there are any, in which other requests go on.
        """
        with self._turn:
            view, found = self._again("surplus blocks", self._retire)
        gone: list[IPNetwork] = []
        if found:
            self._desk.clock.sleep(WITHDRAWAL_S)
            with self._turn:
                gone += [c for c in found if self._again(f"block {c}", partial(self._finish, c))]
                self._desk.memory.forget()
        rests = any(
            allocation.released_at is not None
            for record in view.own.values()
            for allocation in self._rested(record, view).allocations.values()
        )
        again_in_s = view.rules.config.cooldown_s if rests and len(view.own) > 1 else None
        return GivenBack(blocks=tuple(gone), again_in_s=again_in_s)

    def own_usage(self) -> Usage:
        """How full this node's own blocks were when last seen; asks nobody."""
        view = self._desk.memory.last_seen
        blocks = [self._rested(record, view) for record in view.own.values()]
        return compute_usage(view.rules.pools, view.rules.reserved, blocks)

    def usage(self) -> Usage:
        """How full all pools and blocks are."""
        return read_usage(self._desk.records)

    def _try(self, request: AssignRequest, *, first: bool, again: bool) -> Assigned | None:
        """One try; None when the datastore has to be asked (`again`) before the answer is no."""
        desk = self._desk
        view = desk.memory.look(again=again)
        # At first the handle is taken to be new: it mostly is, and the write tells.
        known = not first or request.reuse
        handle = desk.records.handle(request.handle) if known else None
        try:
            return Try(desk=desk, request=request, view=view, handle=handle).run()
        except Rejected:
            if view.fresh:
                raise
            return None

    def _enough(self, view: View) -> bool:
        pools = self._pools(view)
        own = [self._rested(view.own[cidr], view) for cidr in own_blocks(view, pools)]
        return enough(own, view.rules)

    def _pools(self, view: View) -> tuple[IPPool, ...]:
        """The pools this node takes pod addresses from; none is no error here."""
        try:
            return select_pools(view.rules, Asker(node=self._desk.node))
        except NoPool:
            return ()

    def _surplus(self, view: View) -> list[IPNetwork]:
        own = [self._rested(record, view) for record in view.own.values()]
        return surplus(own, self._pools(view), view.rules)

    def _retire(self) -> tuple[View, list[IPNetwork]]:
        """Announce which blocks are given back."""
        view = self._desk.memory.look(again=False)
        if not self._surplus(view):
            return view, []
        view = self._desk.memory.look(again=True)
        found = self._surplus(view)
        for cidr in found:
            self._desk.claims.retire(cidr)
        if found:
            self._desk.memory.forget()
        return view, found

    def _finish(self, cidr: IPNetwork) -> bool:
        """Give an announced block back; False when it was put to use meanwhile."""
        cooldown_s = self._desk.memory.rules().config.cooldown_s
        try:
            return self._desk.claims.finish(cidr, cooldown_s=cooldown_s)
        except InUse:
            return False

    def _claim_ahead(self) -> IPNetwork | None:
        if self._enough(self._desk.memory.look(again=False)):
            return None
        view = self._desk.memory.look(again=True)
        if self._enough(view) or not view.rules.config.auto_allocate_blocks:
            return None
        for record in claimable(self._desk, view, self._pools(view), len(view.own)):
            self._desk.memory.put(record)
            return record.value.cidr
        return None

    def _give_back(self, cidr: IPNetwork, must_be_empty: bool) -> None:
        cooldown_s = self._desk.memory.rules().config.cooldown_s
        self._desk.claims.release(cidr, must_be_empty=must_be_empty, cooldown_s=cooldown_s)

    def _is_empty(self, record: Record[Block], view: View) -> bool:
        return not self._rested(record, view).allocations

    def _rested(self, record: Record[Block], view: View) -> Block:
        cooldown_s = view.rules.config.cooldown_s
        return end_rest(record.value, now=self._desk.clock.now(), cooldown_s=cooldown_s)

    def _again(self, what: str, act: Callable[[], T]) -> T:
        """Do it again as long as somebody else is quicker."""
        for number in range(TRIES):
            try:
                return act()
            except AlsoRefused as refused:
                raise refused.cause from None
            except Stale:
                self._desk.memory.forget()
                self._pause(number)
        raise self._contended(what)

    def _pause(self, number: int) -> None:
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(number, 10))
        self._desk.clock.sleep(self._dice.uniform(0, longest))

    def _contended(self, what: str) -> DatastoreUnavailable:
        return DatastoreUnavailable(
            f"{what}: the datastore refused {TRIES} writes of node {self._desk.node},"
            " because others wrote the same objects",
            fix="try again when fewer pods are started or deleted at once",
        )
