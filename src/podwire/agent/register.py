"""Register: make this node known, and see to it that it holds a block and its tunnel addresses.

All of it is store work, which may be slow or fail; it runs in a thread of its own so that the loop
never waits. Each step looks first and writes only what differs: a restart writes nothing.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.errors import AlreadyExists, BadInput, Conflict, PodwireError, Stale
from podwire.ipam.allocation import live
from podwire.ipam.pools import selects_node
from podwire.ipam.request import AssignRequest
from podwire.model import keys
from podwire.model.addressing import block_holding, contains, ordinal_of
from podwire.model.blockcodec import decode_block
from podwire.model.codec import decode_node, decode_pool, encode
from podwire.model.node import IPIP_TUNNEL_HANDLE, VXLAN_TUNNEL_HANDLE, Node
from podwire.model.pool import Encapsulation, Use
from podwire.model.resource import Metadata
from podwire.reconcile.backoff import delay_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podwire.agent.hold import Hold
    from podwire.agent.publish import Publisher
    from podwire.boundary import Clock, Store
    from podwire.ipam.service import IPAM
    from podwire.model.addressing import IPAddress, IPInterface
    from podwire.model.pool import IPPool
    from podwire.reconcile.backoff import Draw

QUIET_S = 0.2
"""After a nudge the registrar waits that long, so that a burst of ADDs costs one look."""


@dataclass(frozen=True, slots=True)
class TunnelKind:
    """One kind of tunnel address: where it is written and how its allocation is marked."""

    encapsulation: Encapsulation
    handle: str
    type: str
    field: str


TUNNELS = (
    TunnelKind(Encapsulation.IPIP, IPIP_TUNNEL_HANDLE, "ipipTunnelAddress", "ipip_tunnel"),
    TunnelKind(Encapsulation.VXLAN, VXLAN_TUNNEL_HANDLE, "vxlanTunnelAddress", "vxlan_tunnel"),
)


class Registrar:
    """Keeps this node's own objects in the datastore as they should be. Thread-safe.

    Attributes:
        problems: what does not succeed, by step; shown in status.
        writes: objects written to the datastore.
    """

    def __init__(
        self, *, node: str, store: Store, ipam: IPAM, hold: Hold, clock: Clock, draw: Draw
    ) -> None:
        self._node = node
        self._store = store
        self._ipam = ipam
        self._hold = hold
        self._clock = clock
        self._draw = draw
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._address: IPInterface | None = None
        self._mtu: int | None = None
        self._moved = False
        """Whether address or MTU are news: other nodes lose packets until they hear of it."""
        self._registered = False
        self._told = False
        self._doubtful = False
        self._anew = False
        self._whole = True
        """Whether all of it is to be looked at, not only whether a block is needed."""
        self.problems: dict[str, PodwireError] = {}
        self.writes = 0
        self.on_change: Callable[[], None] = lambda: None
        self.may_take: Callable[[], bool] = lambda: True
        """Whether blocks and addresses that look free are free."""
        self.refuse_other: Callable[[], None] = lambda: None
        """Raises while another agent serves this node."""

    @property
    def address(self) -> IPInterface | None:
        """The node's address as the loop told it last."""
        return self._address

    @property
    def registered(self) -> bool:
        """Whether Node object, block and tunnel addresses were in order once."""
        return self._registered

    @property
    def ready(self) -> bool:
        """Whether they are in order now, and the other nodes had their chance to hear of it."""
        return self._registered and self._told and not self.problems

    def is_refused(self) -> bool:
        """Whether the datastore takes no writes, as far as is known."""
        return "datastore" in self.problems

    def start(self, publisher: Publisher) -> None:
        """Begin to work, in a thread."""
        threading.Thread(target=self._run, args=(publisher,), name="register", daemon=True).start()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()
        self._wanted.set()

    def look(self, address: IPInterface | None = None, mtu: int | None = None) -> None:
        """Something changed that may concern our objects; address and MTU are told when known."""
        if address is not None and address != self._address:
            self._address, self._moved = address, True
        if mtu is not None and mtu != self._mtu:
            self._mtu, self._moved = mtu, True
        self._whole = True
        self._wanted.set()

    def look_for_block(self) -> None:
        """Pods came: the node may need its next block."""
        self._wanted.set()

    def doubt(self) -> None:
        """The datastore failed somebody: the node is not ready until a write would succeed."""
        self._doubtful = True
        self.look()

    def begin_anew(self) -> None:
        """The datastore was restored: a Node object that is missing was not deleted by anybody."""
        self._anew = True
        self.look()

    # --- the thread -----------------------------------------------------------------------------

    def _run(self, publisher: Publisher) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if self._registered and not self._moved:
                self._stopped.wait(QUIET_S)
            self._moved = False
            if self._stopped.is_set() or self._hold.active():
                continue
            whole, self._whole = self._whole, False
            if self.turn(whole=whole):
                failures = 0
                if self._registered and not self._told:
                    self._tell(publisher)
            else:
                failures += 1
                self._stopped.wait(delay_s(failures, self._draw))
                self._whole = True
                self._wanted.set()
            self.on_change()

    def turn(self, *, whole: bool = True) -> bool:
        """Look at everything once, or at the blocks, and repair it; whether all is in order."""
        if self._anew:
            self._anew = self._registered = self._told = False
        if self._doubtful:
            if not self._step("datastore", self._store.check_writable):
                return False
            self._doubtful = False
        if self._address is None:
            return not self.problems
        if not whole and self._registered and not self.problems and self.may_take():
            return self._step("block", self.ensure_block)
        done = self._step("node", self.ensure_node)
        if done and self.may_take():
            # A block first: a tunnel address wants to lie in a block of its own node.
            self._step("block", self.ensure_block)
            self._step("tunnel", self.ensure_tunnels)
        if not self.problems:
            self._registered = True
        return not self.problems

    def _step(self, name: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except PodwireError as error:
            news = str(self.problems.get(name)) != str(error)
            self.problems[name] = error
            if news:
                self.on_change()
            return False
        self.problems.pop(name, None)
        return True

    def _tell(self, publisher: Publisher) -> None:
        """Give the other nodes a moment to hear of our blocks before the first pod needs them."""
        try:
            for block in self._ipam.blocks():
                publisher.wait_applied(block)
        except PodwireError:
            return
        self._told = True

    # --- steps ----------------------------------------------------------------------------------

    def ensure_node(self) -> None:
        """The Node object carries our address and MTU; other people's fields stay as they are.

        Raises:
            BadInput: another node has this address, or our object was deleted while we ran.
            InUse: another agent serves this node.
        """
        assert self._address is not None
        key = keys.node_key(self._node)
        entry = self._store.get(key)
        if entry is None and self._registered:
            raise BadInput(
                f"Node {self._node} was deleted while its agent ran",
                fix="end the agent, or start it again to register the node anew",
            )
        known = None if entry is None else decode_node(entry.key, entry.value)
        mtu = self._mtu if known is None else self._mtu or known.underlay_mtu
        moved = known is None or known.address != self._address
        # Registered with this address: whoever takes it now is refused by its own agent.
        if moved or not self._registered:
            self._refuse_rival()
        if known is None:
            self._create(key)
        elif moved or known.underlay_mtu != mtu:
            # Somebody else may have written it: two that correct each other would never end.
            self.refuse_other()
            self._update(lambda node: replace(node, address=self._address, underlay_mtu=mtu))
            self._settle_race(known.address if moved else None)

    def _refuse_rival(self) -> None:
        assert self._address is not None
        rival = self._rival(self._address.ip)
        if rival is not None:
            raise taken(self._node, rival, self._address.ip)

    def _settle_race(self, before: IPInterface | None) -> None:
        """Two nodes took one address at the same moment, and neither had seen the other."""
        if before is None:
            return
        try:
            self._refuse_rival()
        except BadInput:
            self._update(lambda node: replace(node, address=before))
            raise

    def _create(self, key: str) -> None:
        assert self._address is not None
        metadata = Metadata(name=self._node).born(uuid.uuid4(), self._clock.now())
        node = Node(metadata=metadata, address=self._address, underlay_mtu=self._mtu)
        try:
            entry = self._store.create(key, encode(node))
        except AlreadyExists:
            return self.ensure_node()
        self.writes += 1
        self._told = False
        rival = self._rival(self._address.ip)
        if rival is None:
            return None
        # Two nodes with one address registered at the same moment: neither had seen the other.
        self._store.delete(key, entry.revision)
        raise taken(self._node, rival, self._address.ip)

    def _rival(self, address: IPAddress) -> str | None:
        for node in self._nodes():
            if node.name != self._node and node.address and node.address.ip == address:
                return node.name
        return None

    def _nodes(self) -> Iterable[Node]:
        for entry in self._store.list(keys.NODES).entries:
            try:
                yield decode_node(entry.key, entry.value)
            except BadInput:
                continue  # a broken object of another node is not our trouble

    def ensure_block(self) -> None:
        """The node holds a block, and the next one before the last is full."""
        if self._ipam.claim_ahead() is not None:
            self.writes += 1
            self._told = False

    def ensure_tunnels(self) -> None:
        """The node has one address for each kind of tunnel that is in use, and only for those.

        Raises:
            PoolExhausted: no address is left for it.
        """
        pools = self._pools()
        for kind in TUNNELS:
            node = self._own()
            usable = [pool for pool in pools if serves_tunnel(pool, kind, node)]
            current: IPAddress | None = getattr(node, kind.field)
            if not usable:
                # Out of service means no new addresses; the pods that have one go on talking.
                if current is not None and not self._carries_pods(kind, pools):
                    self._ipam.release_handle(kind.handle.format(node=self._node))
                    self._set(kind, None)
            elif current is None or not self._is_ours(current, kind, usable):
                self._set(kind, self._assign(kind, usable))

    def _carries_pods(self, kind: TunnelKind, pools: Sequence[IPPool]) -> bool:
        """Whether pods on any node still have addresses that are reached through such tunnels."""
        tunnelled = [pool.cidr for pool in pools if pool.encapsulation is kind.encapsulation]
        for entry in self._store.list(keys.BLOCKS4).entries if tunnelled else ():
            try:
                block = decode_block(entry.key, entry.value)
            except BadInput:
                continue
            if any(contains(cidr, block.cidr) for cidr in tunnelled) and any(
                "pod" in allocation.attributes for allocation in live(block).values()
            ):
                return True
        return False

    def _assign(self, kind: TunnelKind, pools: Sequence[IPPool]) -> IPAddress:
        handle = kind.handle.format(node=self._node)
        request = AssignRequest(
            handle=handle,
            attributes={"node": self._node, "type": kind.type},
            pools=[pool.name for pool in pools],
            use=Use.TUNNEL,
            reuse=True,
        )
        assigned = self._ipam.assign(request)
        if not any(contains(pool.cidr, assigned.address) for pool in pools):
            # What the handle had is of a pool that serves tunnels no longer.
            self._ipam.release_handle(handle)
            assigned = self._ipam.assign(request)
        self.writes += 1
        return assigned.address

    def _is_ours(self, address: IPAddress, kind: TunnelKind, pools: Sequence[IPPool]) -> bool:
        """Whether IPAM says that the address is this node's, for this use, in one of the pools."""
        pool = next((pool for pool in pools if contains(pool.cidr, address)), None)
        if pool is None:
            return False
        cidr = block_holding(address, pool.block_size)
        entry = self._store.get(keys.block_key(cidr))
        if entry is None:
            return False
        block = decode_block(entry.key, entry.value)
        found = block.allocations.get(ordinal_of(cidr, address))
        if found is None:
            return False
        return (found.attributes.get("node"), found.attributes.get("type")) == (
            self._node,
            kind.type,
        )

    def _set(self, kind: TunnelKind, address: IPAddress | None) -> None:
        def with_address(node: Node) -> Node:
            match kind.encapsulation:
                case Encapsulation.IPIP:
                    return replace(node, ipip_tunnel=address)
                case _:
                    return replace(node, vxlan_tunnel=address)

        self._update(with_address)

    def _pools(self) -> list[IPPool]:
        found: list[IPPool] = []
        for entry in self._store.list(keys.POOLS).entries:
            try:
                found.append(decode_pool(entry.key, entry.value))
            except BadInput:
                continue  # reported by the loop, which reads the same objects
        return found

    def _own(self) -> Node:
        entry = self._store.get(keys.node_key(self._node))
        if entry is None:
            raise Stale(f"Node {self._node} went away")
        return decode_node(entry.key, entry.value)

    def _update(self, change: Callable[[Node], Node]) -> None:
        while True:
            entry = self._store.get(keys.node_key(self._node))
            if entry is None:
                raise Stale(f"Node {self._node} went away")
            before = decode_node(entry.key, entry.value)
            after = change(before)
            if after == before:
                return
            try:
                self._store.update(entry.key, encode(after), entry.revision)
            except Conflict:
                continue
            self.writes += 1
            return


def serves_tunnel(pool: IPPool, kind: TunnelKind, node: Node) -> bool:
    """Whether the node takes a tunnel address of this kind from the pool."""
    return (
        not pool.disabled
        and pool.encapsulation is kind.encapsulation
        and Use.TUNNEL in pool.allowed_uses
        and pool.cidr.version == 4
        and selects_node(pool, node.metadata.labels)
    )


def taken(node: str, rival: str, address: IPAddress) -> BadInput:
    """Two nodes with one address: the second is refused, or both would lose half their packets."""
    return BadInput(
        f"Node {node}: Node {rival} already has the address {address}",
        fix=f"give this node its own address, or delete Node {rival} if it is gone",
    )
