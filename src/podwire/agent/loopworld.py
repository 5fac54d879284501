"""What the loop asks of the rest of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.bird import BirdWriter
    from podwire.agent.endpoints import LocalEndpoints
    from podwire.agent.hold import Hold
    from podwire.agent.observe import Inbox
    from podwire.agent.publish import Announcer, Publisher
    from podwire.agent.register import Registrar
    from podwire.agent.rulescopy import RulesCopy
    from podwire.boundary import Clock
    from podwire.desired.entries import Key
    from podwire.drivers.netlink.monitor import Monitor
    from podwire.drivers.netlink.session import Session
    from podwire.model.config import AgentConfig
    from podwire.model.endpoint import LinkOwner
    from podwire.reconcile.backoff import Failures


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWorld:
    """The loop's doors."""

    config: AgentConfig
    session: Session
    monitor: Monitor
    inbox: Inbox
    endpoints: LocalEndpoints
    hold: Hold
    clock: Clock
    registrar: Registrar
    publisher: Publisher
    announcer: Announcer
    failures: Failures[Key | str]
    follow: Callable[[str], None]
    """Begin to follow a prefix of the datastore that is found to be needed; once is enough."""
    rules: RulesCopy
    """IPAM's rules, as far as the loop has heard of them."""
    bird: BirdWriter
    adopted: Callable[[], bool]
    """Whether the endpoints of an earlier run are known again; until then nothing is deleted."""
    wait_for_calls: Callable[[float], object]
    """Wait until no ADD or DEL is being carried out, at most so many seconds."""
    has_address: Callable[[LinkOwner], bool]
    """Whether IPAM knows addresses of a veth's container; asks the datastore, so no turn does."""
    settling: Callable[[], bool]
    """Whether the datastore was restored a moment ago, and nodes still tell it of their pods."""
