"""Nodename: of all agents that were started with one node's name, one serves the node.

A copied machine or a mistyped name makes two. The second stands back: it writes nothing, neither
in the kernel nor in the datastore, and goes on when the first has gone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from podwire.agent.observe import Waiting
from podwire.agent.report import Reporter
from podwire.drivers.nodelock import NodeLock
from podwire.errors import AgentUnavailable, InUse, PodwireError
from podwire.model import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.hold import Hold
    from podwire.agent.observe import Inbox
    from podwire.boundary import Clock, Store
    from podwire.model.config import AgentConfig
    from podwire.reconcile.backoff import Draw

log = structlog.get_logger(__name__)


class NodeName:
    """Whether this agent serves the node. Stands back until that is known.

    Attributes:
        refused: why it may not, as far as is known.
        address: the node's address, once it is known.
        on_return: called when it serves the node again after somebody else did.
    """

    def __init__(
        self, store: Store, config: AgentConfig, clock: Clock, hold: Hold, inbox: Inbox, draw: Draw
    ) -> None:
        self._store = store
        self._hold = hold
        self._inbox = inbox
        self._config = config
        self._lock = NodeLock(config.datastore.path, config.node)
        self.reporter = Reporter(store, config.node, clock, hold, draw)
        self.reporter.address = self._address
        self.reporter.on_verdict = self.judge
        self.address: Callable[[], str | None] = lambda: None
        self.on_return: Callable[[], None] = lambda: None
        self.refused: InUse | None = None
        hold.stand_back(AgentUnavailable("the agent is starting"))

    def close(self) -> None:
        """Leave it to others; what lies in the datastore is the reporter's."""
        self._lock.close()

    def take(self) -> None:
        """Serve the node, unless another agent does; a held one finds that out when released.

        Raises:
            InUse: another one does, or it may be known by the name it had with older versions.
            DatastoreUnavailable: away.
        """
        self._refuse_new_name()
        if not self._store.can_expire:
            self._lock.take(self._who())
        elif self._hold.is_asked():
            return
        else:
            self.reporter.report()
        self.judge(None)

    def _refuse_new_name(self) -> None:
        """A node that got another name without anybody's doing would take its pods for strays."""
        name, former = self._config.node, self._config.former_name
        if former is None or self._store.get(keys.node_key(name)) is not None:
            return
        if self._store.get(keys.node_key(former)) is not None:
            raise InUse(
                f"this host calls itself {name}, and the datastore has Node {former}, as older"
                f" versions called it, and no Node {name}",
                fix=f"write nodeName: {former} into the agent's configuration if that is this node,"
                f" else nodeName: {name}",
            )

    def tell(self) -> None:
        """The node's address is known by now: whoever comes second is to name it."""
        if not self._store.can_expire:  # else the report says so, now that the node is ready
            with suppress(PodwireError):
                self._lock.take(self._who())

    def judge(self, why_not: InUse | None) -> None:
        """This agent may serve the node, or may not: then it changes nothing."""
        before, self.refused = self.refused, why_not
        self._hold.stand_back(why_not)
        if str(before) == str(why_not):
            return
        if why_not is not None:
            log.warning("standing back", reason=str(why_not))
        self._inbox.put(Waiting(None if why_not is None else str(why_not)))
        if why_not is None:
            self.on_return()

    def _address(self) -> str | None:
        return self.address()

    def _who(self) -> str:
        return f"{replace(self.reporter.own, address=self.address())}, process {os.getpid()}"
