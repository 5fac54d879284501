"""Who a node has BGP sessions with: the mesh, and what BGPPeers ask for. Pure.

Of several reasons for a session with one address and port the most particular counts: a BGPPeer
that names the node, then one with a selector, then a global one, then the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podwire.desired.bgp import BirdPeer, PeerType
from podwire.desired.bgpsettings import settings_of
from podwire.model.bgpfilter import BGPPeerType
from podwire.model.selector import parse_selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.desired.bgpsettings import BGPSettings
    from podwire.model.addressing import IPAddress
    from podwire.model.bgp import BGPPeer
    from podwire.model.node import Node
    from podwire.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Peering:
    """The sessions of one node, and what is asked of it that it cannot serve."""

    peers: tuple[BirdPeer, ...] = ()
    """In the order of BIRD's names."""
    unserved: tuple[str, ...] = ()
    """One sentence each."""


def peering_of(here: Node, snapshot: Snapshot) -> Peering:
    """The sessions of node `here`, which has an IPv4 address."""
    settings = settings_of(here.name, snapshot.bgp_configurations)
    found: dict[str, BirdPeer] = {}
    unserved: list[str] = []
    for peer in _mesh(here, snapshot, settings):
        found[peer.protocol] = peer
    # The most particular come last and replace what the others said.
    for asked in sorted(snapshot.bgp_peers.values(), key=_rank):
        for peer in _asked(asked, here, snapshot, settings):
            if peer.address.version != 4:
                unserved.append(
                    f"BGPPeer {asked.name}: {peer.address} is an IPv6 address, and sessions over"
                    " IPv6 are not served yet"
                )
                continue
            found[peer.protocol] = peer
        if asked.local_workload_selector is not None:
            unserved.append(f"BGPPeer {asked.name}: peering with pods is not served")
    named = {name for peer in found.values() for name in peer.filters}
    unserved += [
        f"BGPFilter {name} does not exist: sessions that name it pass no routes"
        for name in sorted(named - snapshot.bgp_filters.keys())
    ]
    peers = sorted(found.values(), key=lambda peer: peer.protocol)
    return Peering(
        peers=tuple(_as_reflector(peer, here, snapshot) for peer in peers),
        unserved=tuple(unserved),
    )


def protocol_name(address: IPAddress, port: int, standard: int) -> str:
    """BIRD's name for the session: `peer_192_168_26_105`, with its port where that is special.

    The reason for a session is no part of its name: when a mesh gives way to route reflectors the
    sessions that stay are not touched.
    """
    name = f"peer_{str(address).replace('.', '_').replace(':', '_')}"
    return name if port == standard else f"{name}_port_{port}"


def as_number_of(node: Node, settings: BGPSettings) -> int:
    """The AS a node is in."""
    return node.as_number or settings.as_number


def _mesh(here: Node, snapshot: Snapshot, settings: BGPSettings) -> Iterator[BirdPeer]:
    """Every node with every other, route reflectors left out on both sides."""
    if not settings.mesh or here.route_reflector_cluster_id is not None:
        return
    for there in snapshot.nodes.values():
        if there.name == here.name or there.address is None:
            continue
        if there.route_reflector_cluster_id is not None:
            continue
        peer = _with_node(here, there, snapshot, settings)
        yield replace(
            peer,
            type=PeerType.MESH,
            name=there.name,
            password=settings.mesh_password,
            restart_s=settings.mesh_restart_s,
        )


def _asked(
    asked: BGPPeer, here: Node, snapshot: Snapshot, settings: BGPSettings
) -> Iterator[BirdPeer]:
    """What one BGPPeer means for this node."""
    named = asked.node is not None or asked.node_selector is not None
    kind = PeerType.NODE if named else PeerType.GLOBAL
    ours = _is_of(asked, here)
    there = list(_nodes_meant(asked, snapshot))
    if asked.address is not None and not there:
        if ours and asked.as_number is not None:
            yield _outside(asked, asked.address, asked.as_number, here, settings, kind)
        return
    partners: dict[str, Node] = {}
    if ours:
        partners |= {node.name: node for node in there}
    if asked.reverse and any(node.name == here.name for node in there):
        partners |= {node.name: node for node in snapshot.nodes.values() if _is_of(asked, node)}
    for node in partners.values():
        if node.name == here.name or node.address is None:
            continue
        peer = _with_node(here, node, snapshot, settings)
        peer = replace(peer, type=kind, name=asked.name, passive=peer.passive and asked.reverse)
        if asked.port is not None and node in there:
            name = protocol_name(peer.address, asked.port, peer.port)
            peer = replace(peer, protocol=name, port=asked.port)
        yield _with_options(peer, asked, settings)


def _nodes_meant(asked: BGPPeer, snapshot: Snapshot) -> Iterator[Node]:
    """The nodes of ours that are the other end."""
    selector = None if asked.peer_selector is None else parse_selector(asked.peer_selector)
    for node in snapshot.nodes.values():
        if selector is not None:
            if selector.matches(node.metadata.labels):
                yield node
        elif node.address is not None and node.address.ip == asked.address:
            yield node


def _with_node(here: Node, there: Node, snapshot: Snapshot, settings: BGPSettings) -> BirdPeer:
    """A session with another node, without what its reason adds."""
    assert here.address is not None
    assert there.address is not None
    port = settings_of(there.name, snapshot.bgp_configurations).listen_port
    return BirdPeer(
        protocol=protocol_name(there.address.ip, port, port),
        type=PeerType.MESH,
        name=there.name,
        node=there.name,
        cluster=there.route_reflector_cluster_id,
        address=there.address.ip,
        port=port,
        as_number=as_number_of(there, settings),
        local_as=as_number_of(here, settings),
        source=here.address.ip,
        # Calico's rule: the one whose peer's address is the greater text waits.
        passive=str(there.address.ip) > str(here.address.ip),
        hold_s=settings.hold_s,
        keepalive_s=settings.keepalive_s,
    )


def _outside(  # address and AS number are the peer's, known to be there
    asked: BGPPeer,
    address: IPAddress,
    as_number: int,
    here: Node,
    settings: BGPSettings,
    kind: PeerType,
) -> BirdPeer:
    """A session with a router that is no node of ours."""
    assert here.address is not None
    port = asked.port or 179
    peer = BirdPeer(
        protocol=protocol_name(address, port, 179),
        type=kind,
        name=asked.name,
        address=address,
        port=port,
        as_number=as_number,
        local_as=as_number_of(here, settings),
        source=here.address.ip,
        hold_s=settings.hold_s,
        keepalive_s=settings.keepalive_s,
    )
    return _with_options(peer, asked, settings)


def _with_options(peer: BirdPeer, asked: BGPPeer, settings: BGPSettings) -> BirdPeer:
    hold = asked.hold_s or 3 * (asked.keepalive_s or 0) or settings.hold_s
    shared = settings.keepalive_s if hold == settings.hold_s else max(1, hold // 3)
    return replace(
        peer,
        as_number=asked.as_number or peer.as_number,
        local_as=asked.local_as_number or peer.local_as,
        source=peer.source if asked.uses_node_ip else None,
        hold_s=hold,
        keepalive_s=asked.keepalive_s or shared,
        restart_s=asked.restart_s or peer.restart_s,
        next_hop_mode=asked.next_hop_mode,
        password=asked.password,
        allowed_local_as=asked.allowed_local_as,
        ttl_security=asked.ttl_security,
        reachable_by=asked.reachable_by,
        filters=asked.filters,
    )


def _as_reflector(peer: BirdPeer, here: Node, snapshot: Snapshot) -> BirdPeer:
    """The session as a route reflector has it: peers of our AS outside our cluster are clients."""
    cluster = here.route_reflector_cluster_id
    if cluster is None or peer.bgp_type is BGPPeerType.EXTERNAL:
        return peer
    there = None if peer.node is None else snapshot.nodes.get(peer.node)
    same = there is not None and there.route_reflector_cluster_id == cluster
    return replace(peer, client=not same)


def _is_of(asked: BGPPeer, node: Node) -> bool:
    """Whether the BGPPeer is one of the node's."""
    if asked.node is not None:
        return asked.node == node.name
    if asked.node_selector is None:
        return True
    return parse_selector(asked.node_selector).matches(node.metadata.labels)


def _rank(asked: BGPPeer) -> tuple[int, str]:
    if asked.node is not None:
        return 2, asked.name
    return (0 if asked.node_selector is None else 1), asked.name
