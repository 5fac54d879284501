"""Which nodes become route reflectors, and what is written to make them so. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.model.bgp import BGPConfiguration, BGPPeer
from podwire.model.resource import Metadata
from podwire.model.selector import parse_selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.node import Node
    from podwire.model.resource import Stored

CANDIDATES = "has(podwire.io/route-reflector)"
"""Who may be elected, where nobody says otherwise."""
ELECTED_LABEL = "podwire.io/elected-route-reflector"
BY_HAND = "by-hand"
"""Value of the label where the node was a reflector before it was elected."""
PEER_NAME = "podwire-route-reflectors"
OF_ALL = "default"
ZONE_LABELS = ("topology.kubernetes.io/zone", "zone", "rack")
"""What may fail together; the first of these that a node carries counts."""
USUAL_COUNT = 3
LARGEST_MESH = 100
"""Nodes beyond which a mesh costs more than it is worth: Calico's figure."""


def elect(
    nodes: Iterable[Node], selector: str = CANDIDATES, count: int = USUAL_COUNT
) -> list[Node]:
    """Choose `count` reflectors among the nodes with an address that the selector matches.

    Who is one already stays one: an election that is repeated changes nothing. Beyond that they
    are spread over zones, then taken in the order of their names.

    Raises:
        BadInput: fewer nodes than that may be chosen, or the selector cannot be read.
    """
    test = parse_selector(selector)
    free = sorted(
        (n for n in nodes if n.address is not None and test.matches(n.metadata.labels)),
        key=lambda node: node.name,
    )
    if len(free) < count:
        raise BadInput(
            f"{selector} matches {len(free)} nodes with an address, and {count} are to be chosen",
            fix="label more nodes, choose another --selector, or a smaller --count",
        )
    chosen: list[Node] = []
    zones: Counter[str] = Counter()
    while len(chosen) < count:
        best = min(
            free, key=lambda n: (n.route_reflector_cluster_id is None, zones[_zone(n)], n.name)
        )
        free.remove(best)
        chosen.append(best)
        zones[_zone(best)] += 1
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is written to get there; in this order where it cannot be written at once."""

    write: tuple[Stored, ...] = ()
    delete: tuple[Stored, ...] = ()


def to_reflectors(
    chosen: Iterable[Node],
    nodes: Iterable[Node],
    configurations: Mapping[str, BGPConfiguration],
    peers: Mapping[str, BGPPeer],
) -> Change:
    """From a mesh, or from other elected reflectors, to these.

    Each has its own address as cluster ID: every client has a session with every reflector, and a
    reflector takes the others' routes too, so two broken sessions do not part two nodes.
    """
    names = {node.name for node in chosen}
    write: list[Stored] = []
    peer, wanted = peers.get(PEER_NAME), _peering(configurations, peers)
    if wanted != peer:
        write.append(wanted)
    for node in nodes:
        changed = _as_reflector(node) if node.name in names else _as_client(node)
        if changed != node:
            write.append(changed)
    return Change(write=(*write, *_without_mesh(configurations)))


def to_mesh(
    nodes: Iterable[Node],
    configurations: Mapping[str, BGPConfiguration],
    peers: Mapping[str, BGPPeer],
) -> Change:
    """Back to the mesh; reflectors that somebody else made stay what they are."""
    clients = [changed for node in nodes if (changed := _as_client(node)) != node]
    peer = peers.get(PEER_NAME)
    found = configurations.get(OF_ALL, _nothing_said())
    mesh = replace(found, mesh=True)
    if peer is not None:
        mesh = replace(mesh, mesh_password=peer.password, mesh_restart_s=peer.restart_s)
    return Change(
        write=(*(() if found.mesh is not False else (mesh,)), *clients),
        delete=() if peer is None else (peer,),
    )


def _peering(
    configurations: Mapping[str, BGPConfiguration], peers: Mapping[str, BGPPeer]
) -> BGPPeer:
    """Every node with every reflector; what was said of the mesh's sessions holds for these."""
    start = BGPPeer(metadata=Metadata(name=PEER_NAME))
    wanted = replace(peers.get(PEER_NAME, start), peer_selector=f"has({ELECTED_LABEL})")
    found = configurations.get(OF_ALL, _nothing_said())
    if found.mesh is False:
        return wanted
    return replace(wanted, password=found.mesh_password, restart_s=found.mesh_restart_s)


def _as_reflector(node: Node) -> Node:
    assert node.address is not None
    how = "true" if node.route_reflector_cluster_id is None else BY_HAND
    labels = {ELECTED_LABEL: how, **node.metadata.labels}
    return replace(
        node,
        metadata=replace(node.metadata, labels=labels),
        route_reflector_cluster_id=node.route_reflector_cluster_id or str(node.address.ip),
    )


def _as_client(node: Node) -> Node:
    """The node as it was before it was elected; one that was not is left alone."""
    if ELECTED_LABEL not in node.metadata.labels:
        return node
    by_hand = node.metadata.labels[ELECTED_LABEL] == BY_HAND
    labels = {k: v for k, v in node.metadata.labels.items() if k != ELECTED_LABEL}
    return replace(
        node,
        metadata=replace(node.metadata, labels=labels),
        route_reflector_cluster_id=node.route_reflector_cluster_id if by_hand else None,
    )


def _without_mesh(
    configurations: Mapping[str, BGPConfiguration],
) -> tuple[BGPConfiguration, ...]:
    found = configurations.get(OF_ALL, _nothing_said())
    if found.mesh is False:
        return ()
    # What is the mesh's alone would be refused without one; the peering has it now.
    return (replace(found, mesh=False, mesh_password=None, mesh_restart_s=None),)


def _nothing_said() -> BGPConfiguration:
    return BGPConfiguration(metadata=Metadata(name=OF_ALL))


def _zone(node: Node) -> str:
    labels = node.metadata.labels
    return next((labels[name] for name in ZONE_LABELS if name in labels), "")


def advice(node_count: int, *, mesh: bool) -> str | None:
    """What to do about a mesh that has grown large; None while it has not."""
    if not mesh or node_count <= LARGEST_MESH:
        return None
    return (
        f"{node_count} nodes in a mesh are {node_count * (node_count - 1) // 2} sessions: label"
        " some nodes podwire.io/route-reflector and run `podwire bgp reflectors auto`"
    )
