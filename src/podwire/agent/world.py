"""What attaching and detaching pods needs of the rest of the agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.errors import AgentUnavailable, DatastoreUnavailable
from podwire.model import codec, keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.endpoints import LocalEndpoints
    from podwire.agent.spool import Spool
    from podwire.boundary import Clock, Store
    from podwire.ipam.service import IPAM
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
    from podwire.model.resource import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class CNIWorld:
    """The doors of the CNI use cases; every callable may be called from any thread."""

    node: str
    store: Store
    ipam: IPAM
    endpoints: LocalEndpoints
    spool: Spool
    clock: Clock
    mtu: Callable[[], int]
    """MTU of a new pod's veth, in bytes."""
    wait_applied: Callable[[IPNetwork | IPAddress], object]
    """Wait, for a bounded time, until other nodes know the way to a block or borrowed address."""
    forget_applied: Callable[[IPNetwork], object] = lambda _: None
    """A block is no longer ours: if it becomes ours again, it is news to the others."""
    boot: str = ""
    """The number of this boot of the machine."""
    admit: Callable[[WorkloadEndpoint], None] = lambda _: None
    """Tell the rules against spoofing whose addresses these are, before the pod can send."""
    may_spoof: Callable[[], bool] = lambda: False
    """Whether pods may send from prefixes that are allowed to them besides their addresses."""
    settling: Callable[[], bool] = lambda: False
    """Whether the datastore was restored a moment ago, and nodes still tell it of their pods."""
    held: Callable[[], bool]
    """Whether all writes of this agent are stopped."""
    refuse_standing_back: Callable[[], None] = lambda: None
    """Raise while the agent may not serve the node."""
    doubt_store: Callable[[], object] = lambda: None
    """The datastore failed a call: find out whether it takes writes, and say so in the status."""
    owed: dict[AttachmentKey, str] = field(default_factory=dict)
    """Where the endpoints are in the datastore whose release was refused: the spool does not say,
    and the registry knows no longer. After a restart they are found as half-made ones."""

    def refuse_when_held(self) -> None:
        """Raise when the agent may change nothing now.

        Raises:
            AgentUnavailable: it is held, or may not serve the node.
        """
        self.refuse_standing_back()
        if self.held():
            raise AgentUnavailable(
                f"the agent of node {self.node} is held: it changes nothing",
                fix="release it: podwire agent release",
            )

    def refuse_when_frozen(self) -> None:
        """Raise when the cluster takes no changes now.

        Raises:
            DatastoreUnavailable: away, not set up, frozen by ClusterInformation, or restored a
                moment ago.
        """
        if self.settling():
            raise DatastoreUnavailable(
                "the datastore was restored from a backup a moment ago: until all nodes have told"
                " it of their pods, what looks free may be in use",
                fix="try again in a few seconds",
            )
        self.refuse_when_locked()

    def refuse_when_locked(self) -> None:
        """Raise when the cluster takes no changes at all.

        Raises:
            DatastoreUnavailable: away, not set up, or frozen by ClusterInformation.
        """
        key = keys.cluster_key()
        entry = self.store.get(key)
        if entry is None:
            raise DatastoreUnavailable(
                "the datastore has no ClusterInformation", fix="start an agent: it creates it"
            )
        if not codec.decode_cluster(key, entry.value).ready:
            raise DatastoreUnavailable(
                "ClusterInformation default has datastoreReady: false",
                fix="set it to true when the maintenance is over",
            )

    def stored_endpoint(self, key: str) -> tuple[WorkloadEndpoint, Wire, str] | None:
        """An endpoint as the datastore has it now: value, JSON and revision; None when absent."""
        entry = self.store.get(key)
        if entry is None:
            return None
        return codec.decode_endpoint(key, entry.value), entry.value, entry.revision
