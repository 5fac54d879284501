"""Leftovers: see to what deleted nodes left and to handles without addresses, among all agents.

There is no controller; each agent knows all Nodes and affinities anyway, and so whether there is
something to do, without a read. Who does it follows from the names alone (ipam/leftovers.py:
Rota): the first in line after the grace period, the next if it is still there two looks later.
Handles take a look at all of them, which one agent does every four grace periods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from podwire.errors import AlreadyExists, InUse, PodwireError
from podwire.ipam.leftovers import Farewell, Rota, drop_handle, objectors, survey
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podwire.agent.mirror import Mirror
    from podwire.agent.world import CNIWorld
    from podwire.boundary import Dice
    from podwire.model.addressing import IPNetwork
    from podwire.model.config import AgentConfig

SURVEY_EVERY = 4
"""Grace periods from one look at all handles to the next."""
REST_S = 0.005
"""After each block of such a look: ADDs come first."""
TURN_LOOKS = 2
"""Looks until the next in line steps in."""

log = structlog.get_logger(__name__)


class Leftovers:
    """What this agent sees and does of it. One thread looks; the attributes may be read from any.

    Attributes:
        lost: nodes without a Node object that still have blocks or addresses, and since when.
        objected: of these, those whose agent runs and has pods, and how many.
        nodes_cleared: nodes after which this agent cleared up.
        handles_collected: handles without addresses that this agent deleted.
    """

    def __init__(
        self,
        world: CNIWorld,
        mirror: Mirror,
        config: AgentConfig,
        dice: Dice,
        registered: Callable[[], bool],
    ) -> None:
        self._world = world
        self._mirror = mirror
        self._dice = dice
        self._registered = registered
        self._grace_s = config.leak_grace_period_s
        self._turn_s = TURN_LOOKS * config.leak_scan_period_s
        self._epoch: int | None = None
        self._users: Mapping[str, frozenset[IPNetwork]] = {}
        self._empty: Mapping[str, str] = {}
        self._surveyed = 0.0
        self._spoke = True  # an earlier run may have
        self.lost: Mapping[str, float] = {}
        self.objected: Mapping[str, int] = {}
        self.nodes_cleared = 0
        self.handles_collected = 0

    def look(self) -> None:
        """Look once, and do what it is this agent's turn to do.

        Raises:
            PodwireError: the datastore is away or refuses; the next look goes on.
        """
        if not self._mirror.in_sync:
            return
        self._object()
        nodes = set(self._mirror.node_names())
        if self._world.node not in nodes:
            return  # gone ourselves: this is the others' affair
        self._look_at_handles(nodes)
        self._look_at_nodes(nodes)

    # --- our own deletion -----------------------------------------------------------------------

    def _object(self) -> None:
        """While our Node is deleted and pods are attached, say so: nobody may take their addresses.

        Said once it is no longer true, it is taken back.
        """
        world, key = self._world, keys.objection_key(self._world.node)
        pods = len(world.endpoints.all())
        gone = self._registered() and world.store.get(keys.node_key(world.node)) is None
        if gone and pods:
            try:
                world.store.create(key, {"pods": pods})
                log.warning("Node was deleted while pods are attached", pods=pods)
            except AlreadyExists:
                pass
            self._spoke = True
        elif self._spoke:
            world.store.delete(key)
            self._spoke = False

    # --- nodes ----------------------------------------------------------------------------------

    def _look_at_nodes(self, nodes: set[str]) -> None:
        now = self._world.clock.monotonic()
        lost = (self._mirror.claimants() | self._users.keys()) - nodes
        self.lost = {node: self.lost.get(node, now) for node in lost}
        self.objected = {node: pods for node, pods in self.objected.items() if node in lost}
        due = {node: now - since - self._grace_s for node, since in self.lost.items()}
        due = {node: late_s for node, late_s in due.items() if late_s >= 0}
        rota = Rota(nodes if due else ())
        for node, late_s in due.items():
            if late_s >= rota.turn(self._world.node, node) * self._turn_s:
                try:
                    self._clear(node)
                except InUse as error:  # it has come back, which the copy will show
                    log.info("not cleared up", node=node, reason=str(error))
                except PodwireError as error:  # one node harms no other
                    log.warning("not cleared up", node=node, reason=str(error))

    def _clear(self, node: str) -> None:
        world = self._world
        objection = world.store.get(keys.objection_key(node))
        if objection is not None:
            self.objected = {**self.objected, node: objectors(objection)}
            return
        blocks = (*self._mirror.lent_to(node), *self._users.get(node, ()))
        cleared = Farewell(world.store, node, world.clock, self._dice).clear(blocks)
        self._users = {name: found for name, found in self._users.items() if name != node}
        if cleared:
            self.nodes_cleared += 1
            log.info(
                "cleared up after a deleted node",
                node=node,
                blocks=cleared.blocks,
                addresses=cleared.addresses,
                endpoints=cleared.endpoints,
            )

    # --- handles --------------------------------------------------------------------------------

    def _look_at_handles(self, nodes: set[str]) -> None:
        world, now = self._world, self._world.clock.monotonic()
        if self._empty and now - self._surveyed >= self._grace_s:
            empty, self._empty = self._empty, {}
            for handle, revision in empty.items():
                self.handles_collected += drop_handle(world.store, world.ipam, handle, revision)
        # By the wall clock, so that all agree: a wrong one costs a look, or leaves one out.
        epoch = int(world.clock.now().timestamp() // (SURVEY_EVERY * self._grace_s))
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if Rota(nodes).turn(world.node, f"handles {epoch}") == 0:
            found = survey(world.store, rest=lambda: world.clock.sleep(REST_S))
            self._users, self._empty, self._surveyed = found.users, found.empty, now
