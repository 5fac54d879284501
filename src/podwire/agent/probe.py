"""STATUS: whether an ADD would work now, found out by trying all it needs and leaving nothing.

Runtimes ask again and again; what costs something is tried at most once in `GOOD_FOR_S`. Only a
success is remembered, and an ADD makes it forgotten: it may have taken the last address.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podwire.agent.sandbox import try_veth
from podwire.drivers import namespaces
from podwire.errors import NotFound
from podwire.model import keys

if TYPE_CHECKING:
    from podwire.agent.world import CNIWorld
    from podwire.model.cni import Demand

GOOD_FOR_S = 1.0


class Probe:
    """Tries what an ADD needs, one caller at a time."""

    def __init__(self, world: CNIWorld) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._good: dict[Demand, float] = {}
        """Until when what a network asks for is known to work."""

    def forget(self) -> None:
        """Something was taken: what was found is worth nothing any more."""
        self._good = {}

    def run(self, demand: Demand) -> None:
        """Raise unless an ADD of a network would work now.

        Raises:
            AgentUnavailable: held.
            DatastoreUnavailable: away, read-only, locked, full or frozen.
            NoPool, PoolExhausted: there is no address to assign.
            NotFound: this node is not registered.
            KernelError, Forbidden: no veth can be made.
            BadInput: the spool takes no file.
        """
        world = self._world
        world.refuse_when_held()
        world.refuse_when_frozen()
        if world.store.get(keys.node_key(world.node)) is None:
            raise NotFound(
                f"node {world.node} is not registered", fix="wait, or see the agent's log"
            )
        with self._lock:
            good = self._good
            if world.clock.monotonic() < good.get(demand, 0):
                return
            world.ipam.refuse_without_room(demand.pools)
            world.store.check_writable()
            world.spool.check_writable()
            namespaces.call_in_new(try_veth, demand.mtu or world.mtu())
            # Into the mapping from before: an ADD that came meanwhile has left it behind.
            good[demand] = world.clock.monotonic() + GOOD_FOR_S
