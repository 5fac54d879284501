"""Exposition: what the agent counts, as families of metrics. Pure; one function a subject.

Imported by the first scrape only: it brings the metrics library. Whoever adds a metric adds a row
to docs/reference/metrics.md; a test compares the two. Labels are words of ours or names of IPPools:
a metric never has a series for each pod, address or node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from podwire.agent.timing import Durations, Labels

NAT_OUTGOING = "natOutgoing"
"""The one counter that counts no drops."""
OUTCOMES = ("written", "repaired", "deleted", "refused")


def gauge(name: str, text: str, value: float) -> Metric:
    """A number that goes up and down."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """One such number for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """A number that only grows."""
    return CounterMetricFamily(name, text, value=value)


def histogram(name: str, text: str, counted: Durations) -> Metric:
    """How long things took."""
    return HistogramMetricFamily(name, text, buckets=counted.buckets, sum_value=counted.sum_s)


def histograms(
    name: str, text: str, labels: tuple[str, ...], counted: Mapping[Labels, Durations]
) -> Metric:
    """How long things took, by labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, durations in counted.items():
        family.add_metric(values, durations.buckets, durations.sum_s)
    return family


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFigures:
    """The node as a whole."""

    version: str
    node: str
    routing: str
    datastore: str
    ready: bool
    held: bool
    concerns: int
    failing: int
    endpoints: int
    nodes: int


def node_metrics(seen: NodeFigures) -> Iterator[Metric]:
    """Who runs here, and whether all is well."""
    yield InfoMetricFamily("podwire_build", "The agent's version.", {"version": seen.version})
    told = {"node": seen.node, "routing": seen.routing, "datastore": seen.datastore}
    text = "This node: its name, who writes routes to other nodes (agent or bird), the datastore."
    yield InfoMetricFamily("podwire_node", text, told)
    text = "1 when pods can be attached here; else 0, and `podwire agent status` says why not."
    yield gauge("podwire_node_ready", text, seen.ready)
    text = "1 while `podwire agent hold` has stopped all changes by the agent."
    yield gauge("podwire_hold_active", text, seen.held)
    text = "Single things that are wrong; `podwire agent status` spells them out."
    yield gauge("podwire_concerns", text, seen.concerns)
    text = "Kernel objects whose last write was refused; each is tried again every 10 s or sooner."
    yield gauge("podwire_failing_objects", text, seen.failing)
    text = "Pod interfaces attached on this node."
    yield gauge("podwire_endpoints", text, seen.endpoints)
    text = "Nodes in the cluster, this one included, as far as the copy of the datastore knows."
    yield gauge("podwire_cluster_nodes", text, seen.nodes)


def cni_metrics(durations: Mapping[Labels, Durations], in_flight: int) -> Iterator[Metric]:
    """The plugin's calls."""
    text = (
        "Time from the plugin's whole request to the answer delivered, by verb and CNI code;"
        " code 0 is success. An ADD in a fresh block includes up to 1 s for other nodes to follow."
    )
    yield histograms("podwire_cni_request_duration_seconds", text, ("verb", "code"), durations)
    text = "Calls of the plugin being carried out now; 16 at most, more wait in line."
    yield gauge("podwire_cni_requests_in_flight", text, in_flight)


def loop_metrics(turns: Durations, repairs: Durations, overruns: int) -> Iterator[Metric]:
    """How the loop goes."""
    text = (
        "Time of one turn of the loop (look, decide, act, tell). Bulk work is cut into turns of a"
        " few milliseconds, so that it never delays an ADD."
    )
    yield histogram("podwire_loop_turn_duration_seconds", text, turns)
    text = (
        "Reconcile time: from the turn that found the kernel different from what should be, until"
        " nothing was left to do."
    )
    yield histogram("podwire_reconcile_duration_seconds", text, repairs)
    text = (
        "Times the kernel announced changes faster than they were read; everything is then listed"
        " anew, and nothing is missed."
    )
    yield counter("podwire_netlink_overruns_total", text, overruns)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigures:
    """The kernel's tables; `links` are the tunnel devices and the host sides of pods."""

    outcomes: Mapping[tuple[str, str], int]
    """By table and outcome."""
    desired: Mapping[str, int]
    pending: Mapping[str, int]
    conflicts: Mapping[str, int]
    unannounced: int
    retaken: int
    routes: Mapping[str, int]
    """By owner."""


def kernel_metrics(seen: KernelFigures) -> Iterator[Metric]:
    """What the agent keeps in the kernel."""
    texts = {
        "written": "Objects written into the kernel, by table.",
        "repaired": "Drift: objects that had been right, changed or went without the agent, and"
        " were written again. A growing number means that somebody else works on them.",
        "deleted": "Objects of the agent's deleted from the kernel, by table.",
        "refused": "Writes and deletes the kernel refused, by table; each is tried again.",
    }
    names = {"repaired": "podwire_drift_repaired_total"}
    tables = sorted({*seen.desired, *(table for table, _ in seen.outcomes)})
    for outcome in OUTCOMES:
        name = names.get(outcome, f"podwire_kernel_objects_{outcome}_total")
        family = CounterMetricFamily(name, texts[outcome], labels=["table"])
        for table in tables:
            family.add_metric([table], seen.outcomes.get((table, outcome), 0))
        yield family
    text = "Differences an audit found that no event of the kernel had told of; sysctls mostly."
    yield counter("podwire_audit_differences_total", text, seen.unannounced)
    text = "Routes of the agent's that somebody replaced by hand without naming an owner."
    yield counter("podwire_routes_retaken_total", text, seen.retaken)
    text = "Entries the agent wants in each of the kernel's tables."
    yield gauges("podwire_kernel_entries_desired", text, "table", seen.desired)
    text = "Entries that are not yet as they should be; stays above 0 while the agent is held."
    yield gauges("podwire_kernel_entries_pending", text, "table", seen.pending)
    text = "Entries that somebody else holds where the agent wants its own: never overwritten."
    yield gauges("podwire_kernel_conflicts", text, "table", seen.conflicts)
    text = (
        "Routes of the main table: podwire (proto 80), bird, and foreign ones inside the IPPools,"
        " of which there should be none."
    )
    yield gauges("podwire_routes", text, "owner", seen.routes)


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMFigures:
    """Addresses of this node, and pools of the cluster; by IPPool."""

    blocks: Mapping[str, int] = field(default_factory=dict)
    addresses: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By IPPool and state."""
    borrowed: int = 0
    lent: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    claimed: Mapping[str, int] = field(default_factory=dict)


def ipam_metrics(seen: IPAMFigures) -> Iterator[Metric]:
    """Who has which addresses."""
    text = "Blocks this node holds, by IPPool."
    yield gauges("podwire_ipam_blocks", text, "ippool", seen.blocks)
    text = (
        "Addresses of this node's blocks by state: in_use, free, resting (released a moment ago,"
        " and not handed out yet), reserved (by an IPReservation)."
    )
    family = GaugeMetricFamily("podwire_ipam_addresses", text, labels=["ippool", "state"])
    for labels, count in sorted(seen.addresses.items()):
        family.add_metric(labels, count)
    yield family
    text = "Addresses of pods here that lie in other nodes' blocks; each is a route of its own."
    yield gauge("podwire_ipam_addresses_borrowed", text, seen.borrowed)
    text = "Addresses of this node's blocks in use on other nodes, when last seen."
    yield gauge("podwire_ipam_addresses_lent", text, seen.lent)
    text = "Addresses of an IPPool in all. The same on every node: aggregate with max."
    yield gauges("podwire_ipam_ippool_size", text, "ippool", seen.sizes)
    text = (
        "Addresses of an IPPool inside blocks that nodes hold. Near the size, a node that needs"
        " another block gets none. The same on every node: aggregate with max."
    )
    yield gauges("podwire_ipam_ippool_claimed", text, "ippool", seen.claimed)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatastoreFigures:
    """How the agent fares with its datastore."""

    up: bool
    lag_s: float
    losses: int
    relists: int
    restores: int
    unreadable: int
    durations: Mapping[Labels, Durations]


def datastore_metrics(seen: DatastoreFigures) -> Iterator[Metric]:
    """Whether the datastore answers, and how old the copy of it may be."""
    text = "1 while the datastore answers and all its changes are followed."
    yield gauge("podwire_datastore_up", text, seen.up)
    text = (
        "How old the agent's copy of the datastore may be: time since the datastore last answered"
        " or told of a change. The agent asks at least once each resyncPeriod (10 s)."
    )
    yield gauge("podwire_datastore_lag_seconds", text, seen.lag_s)
    text = "Times a watch was lost because the datastore went away; each is taken up again."
    yield counter("podwire_datastore_watch_losses_total", text, seen.losses)
    text = "Times changes had been forgotten (compaction), and everything was listed again."
    yield counter("podwire_datastore_relists_total", text, seen.relists)
    text = "Times the datastore was found to be restored from a backup, and told of its pods again."
    yield counter("podwire_datastore_restores_total", text, seen.restores)
    text = "Objects in the datastore the agent cannot read; it goes on with what it knew of them."
    yield gauge("podwire_datastore_unreadable_objects", text, seen.unreadable)
    text = (
        "Time of one call of the datastore, by operation and outcome: ok; conflict, when another"
        " writer was quicker and the agent reads again; failed, when it was away, full or too slow."
    )
    name = "podwire_datastore_request_duration_seconds"
    yield histograms(name, text, ("operation", "outcome"), seen.durations)


def spool_metrics(length: int, oldest_s: float) -> Iterator[Metric]:
    """DELs that could not be carried out yet."""
    text = "DELs that wait because agent or datastore were away; 0 in good times."
    yield gauge("podwire_spool_length", text, length)
    text = "Age of the oldest DEL that waits; 0 when none does."
    yield gauge("podwire_spool_oldest_seconds", text, oldest_s)


def publish_metrics(writes: int, waits: int, timeouts: int) -> Iterator[Metric]:
    """What nodes tell each other of the blocks they can reach."""
    text = "Times this node told the others which blocks it reaches."
    yield counter("podwire_publications_total", text, writes)
    text = "ADDs into a fresh block that waited for other nodes to know the way."
    yield counter("podwire_publication_waits_total", text, waits)
    text = "Such waits that ended, after 1 s, before every node had answered."
    yield counter("podwire_publication_wait_timeouts_total", text, timeouts)


def firewall_metrics(packets: Mapping[str, int], writes: int, elements: int) -> Iterator[Metric]:
    """What nftables dropped and translated; the kernel counts on while the agent is away."""
    text = (
        "Packets dropped, by reason: spoofedSource and spoofedARP (a pod used an address that is"
        " not its own), podIntoTunnel, strangerIntoIPIP and strangerIntoVXLAN (no node sent it)."
    )
    family = CounterMetricFamily("podwire_firewall_dropped_packets_total", text, labels=["reason"])
    for reason, count in sorted(packets.items()):
        if reason != NAT_OUTGOING:
            family.add_metric([reason], count)
    yield family
    text = "Connections of pods to the world that were given the node's address."
    yield counter("podwire_nat_outgoing_connections_total", text, packets.get(NAT_OUTGOING, 0))
    text = "Tables of nftables written as a whole: at first, and when others changed them."
    yield counter("podwire_firewall_tables_written_total", text, writes)
    text = "Elements of nftables' sets added or removed, for pods and nodes that come and go."
    yield counter("podwire_firewall_element_changes_total", text, elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakFigures:
    """What the sweep found."""

    scans: int
    suspected: int
    released: int
    handles: int
    nodes: int


def leak_metrics(seen: LeakFigures) -> Iterator[Metric]:
    """Addresses whose pod is gone, and what deleted nodes left."""
    text = "Looks for leaks, one each leakScanPeriod (60 s)."
    yield counter("podwire_leak_scans_total", text, seen.scans)
    text = "Handles of this node in doubt now; given back after leakGracePeriod (15 min)."
    yield gauge("podwire_leaks_suspected", text, seen.suspected)
    text = "Addresses of this node given back because their pod was gone without a DEL."
    yield counter("podwire_leaked_addresses_released_total", text, seen.released)
    text = "Handles without addresses deleted, whoever left them."
    yield counter("podwire_empty_handles_deleted_total", text, seen.handles)
    text = "Deleted nodes whose blocks and handles this agent cleared away."
    yield counter("podwire_deleted_nodes_cleared_total", text, seen.nodes)


def bgp_metrics(up: bool, states: Mapping[str, int]) -> Iterator[Metric]:
    """BIRD, on nodes where it has something to do."""
    text = "1 while this node's BIRD answers and has read its configuration."
    yield gauge("podwire_bird_up", text, up)
    text = "BGP sessions of this node by state; all should be Established."
    yield gauges("podwire_bgp_sessions", text, "state", states)
