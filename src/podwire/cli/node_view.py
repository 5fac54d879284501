"""Everything the datastore says about nodes, gathered for people. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from podwire.desired.bgppeers import as_number_of, peering_of
from podwire.desired.bgpsettings import settings_of
from podwire.errors import BadInput
from podwire.ipam.allocation import live
from podwire.ipam.check import check
from podwire.model import codec, keys
from podwire.model.addressing import contains
from podwire.model.bgp import BGPConfiguration, BGPPeer
from podwire.model.bgpfilter import BGPFilter
from podwire.model.bgpvalidate import check_node_address
from podwire.model.block import Affinity, AffinityState, Block
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.nodestatus import NodeStatus, parse_status
from podwire.model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podwire.boundary import Entry
    from podwire.desired.bgp import BirdPeer

T = TypeVar("T")
UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node as the datastore knows it."""

    node: Node
    status: NodeStatus | None
    """What its agent last reported."""
    alive: bool
    """Whether the report that vanishes with its agent is there."""
    as_number: int
    routing: Routing
    blocks: tuple[Block, ...]
    """Those it holds, in address order."""
    pods: tuple[WorkloadEndpoint, ...]
    claims: tuple[Affinity, ...]

    @property
    def in_use(self) -> int:
        """Addresses in use in its blocks."""
        return sum(len(live(block)) for block in self.blocks)

    @property
    def size(self) -> int:
        """Addresses in its blocks."""
        return sum(block.size for block in self.blocks)

    def ready(self, now: datetime) -> str:
        """Whether its agent reports, and not that it is not ready; or that it never did."""
        if self.status is None:
            return UNKNOWN
        return "true" if self.reports(now) and self.status.ready is not False else "false"

    def reports(self, now: datetime) -> bool:
        """Whether its agent reports."""
        return self.status is not None and self.alive and not self.status.is_stale(now)

    def why_not_ready(self, now: datetime) -> tuple[str, ...]:
        """What its agent says of that, as long as it says anything."""
        if self.status is None or not self.reports(now) or self.status.ready is not False:
            return ()
        return self.status.reasons or ("its agent does not say why",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What was read, by kind, and what could not be read."""

    entries: Sequence[Entry]
    found: Sequence[object]
    statuses: Mapping[str, NodeStatus] = field(default_factory=dict)
    """The last report of each node's agent."""
    alive: frozenset[str] = frozenset()
    """Nodes whose report has not vanished."""
    unreadable: Sequence[str] = ()

    def all_of(self, kind: type[T]) -> list[T]:
        """All objects of a kind."""
        return [each for each in self.found if isinstance(each, kind)]

    @property
    def routing(self) -> Routing:
        """Who writes the routes between nodes."""
        return next((each.routing for each in self.all_of(ClusterInformation)), Routing.AGENT)

    def snapshot(self) -> Snapshot:
        """What BGP sessions follow from."""
        return Snapshot(
            nodes={each.name: each for each in self.all_of(Node)},
            bgp_configurations={each.name: each for each in self.all_of(BGPConfiguration)},
            bgp_peers={each.name: each for each in self.all_of(BGPPeer)},
            bgp_filters={each.name: each for each in self.all_of(BGPFilter)},
        )


def read_cluster(entries: Sequence[Entry]) -> Cluster:
    """Read everything below /calico/, as it was at one moment."""
    found: list[object] = []
    statuses: dict[str, NodeStatus] = {}
    alive: set[str] = set()
    unreadable = []
    for entry in entries:
        if entry.key.startswith(keys.NODE_STATUS):
            status = parse_status(entry.value)
            present = keys.parse_node_status_key(entry.key)
            name = present or keys.parse_last_status_key(entry.key)
            if name is not None and status is not None:
                earlier = statuses.get(name, status)
                statuses[name] = max(status, earlier, key=lambda each: each.time)
                alive |= {name} if present else set()
            continue
        try:
            found.append(codec.decode(entry.key, entry.value))
        except BadInput as error:
            if entry.key.startswith((keys.RESOURCES, keys.BLOCKS)):
                unreadable.append(error.message)
    return Cluster(
        entries=entries,
        found=found,
        statuses=statuses,
        alive=frozenset(alive),
        unreadable=unreadable,
    )


def view_nodes(cluster: Cluster) -> list[NodeView]:
    """Every node, by name."""
    blocks: defaultdict[str | None, list[Block]] = defaultdict(list)
    for block in cluster.all_of(Block):
        if not block.deleted:
            blocks[block.node].append(block)
    pods: defaultdict[str, list[WorkloadEndpoint]] = defaultdict(list)
    for endpoint in cluster.all_of(WorkloadEndpoint):
        pods[endpoint.node].append(endpoint)
    claims: defaultdict[str, list[Affinity]] = defaultdict(list)
    for claim in cluster.all_of(Affinity):
        if not claim.deleted:
            claims[claim.node].append(claim)
    configurations = cluster.snapshot().bgp_configurations
    return [
        NodeView(
            node=node,
            status=cluster.statuses.get(node.name),
            alive=node.name in cluster.alive,
            as_number=as_number_of(node, settings_of(node.name, configurations)),
            routing=cluster.routing,
            blocks=tuple(sorted(blocks[node.name], key=lambda b: (b.cidr.version, b.cidr))),
            pods=tuple(pods[node.name]),
            claims=tuple(claims[node.name]),
        )
        for node in sorted(cluster.all_of(Node), key=lambda each: each.name)
    ]


def sessions_of(view: NodeView, cluster: Cluster) -> tuple[Sequence[BirdPeer], Sequence[str]]:
    """The BGP sessions that are wanted of the node, and what it cannot serve of them."""
    if view.routing is not Routing.BIRD or view.node.address is None:
        return (), ()
    wanted = peering_of(view.node, cluster.snapshot())
    return wanted.peers, wanted.unserved


def amiss(view: NodeView, cluster: Cluster, now: datetime) -> list[str]:
    """What is wrong with the node, one sentence each; the gravest first."""
    found = list(_silence(view, cluster, now))
    if view.node.address is None:
        found.append("it has no address: no route leads there")
    found += [str(fault) for fault in check_node_address(view.node, cluster.all_of(Node))]
    found += [
        f"its claim on block {claim.block} is {claim.state}: it is not routed"
        for claim in view.claims
        if claim.state is not AffinityState.CONFIRMED
    ]
    found += sessions_of(view, cluster)[1]
    found += _allocation_problems(view, cluster.entries)
    return found


def _silence(view: NodeView, cluster: Cluster, now: datetime) -> Iterable[str]:
    yield from (f"its agent is not ready: {reason}" for reason in view.why_not_ready(now))
    if view.status is not None and not view.reports(now):
        yield f"its agent does not report: the last time was {duration(now - view.status.time)} ago"
    elif view.status is None and cluster.statuses:  # elsewhere agents do (SQLite has no leases)
        yield "its agent has never reported"


def _allocation_problems(view: NodeView, entries: Sequence[Entry]) -> Iterable[str]:
    cidrs = [block.cidr for block in view.blocks]
    subjects = {str(cidr) for cidr in cidrs} | {str(claim.block) for claim in view.claims}
    for problem in check(entries).problems:
        own = problem.subject in subjects or (
            problem.address is not None and any(contains(c, problem.address) for c in cidrs)
        )
        if own:
            yield problem.sentence


def as_json(view: NodeView, now: datetime) -> dict[str, Any]:
    """One line of the list, for programs."""
    node, status = view.node, view.status
    return {
        "name": node.name,
        "address": _text(node.address),
        "address6": _text(node.address6),
        "ipipTunnelAddress": _text(node.ipip_tunnel),
        "vxlanTunnelAddress": _text(node.vxlan_tunnel),
        "labels": dict(node.metadata.labels),
        "created": node.metadata.created,
        "ready": {"true": True, "false": False}.get(view.ready(now)),
        "reasons": list(view.why_not_ready(now)),
        "seen": None if status is None else status.time.isoformat(),
        "uptimeSeconds": None if status is None else status.uptime_s,
        "routing": view.routing.value,
        "asNumber": view.as_number,
        "blocks": [
            {"cidr": str(block.cidr), "inUse": len(live(block)), "total": block.size}
            for block in view.blocks
        ],
        "pods": len(view.pods),
        "inUse": view.in_use,
        "total": view.size,
    }


def details_json(view: NodeView, cluster: Cluster, now: datetime) -> dict[str, Any]:
    """Everything about one node, for programs."""
    return {
        **as_json(view, now),
        "pods": [
            {
                "namespace": pod.metadata.namespace,
                "name": pod.pod or pod.container_id,
                "addresses": [str(address.ip) for address in pod.addresses],
                "interface": pod.interface,
            }
            for pod in view.pods
        ],
        "sessions": [
            {"address": str(peer.address), "asNumber": peer.as_number, "type": peer.type.value,
             "name": peer.name}
            for peer in sessions_of(view, cluster)[0]
        ],
        "amiss": amiss(view, cluster, now),
    }  # fmt: skip


def duration(span: timedelta) -> str:
    """A time in its largest unit, as kubectl writes it: 5s, 12m, 3h, 9d."""
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def age(created: str | None, now: datetime) -> str:
    """How old something is, by the time it was made at."""
    try:
        return UNKNOWN if created is None else duration(now - datetime.fromisoformat(created))
    except (ValueError, TypeError):
        return UNKNOWN


def _text(value: object) -> str | None:
    return None if value is None else str(value)
