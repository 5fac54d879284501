"""Values ↔ Calico's JSON.

`encode` lays what we know over the JSON a value came from (`Stored.wire`), at every level, so that
fields of other versions and other programs survive. Blocks have their own module (`blockcodec`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from podwire.errors import BadInput
from podwire.model import keys
from podwire.model.addressing import parse_address, parse_interface, parse_network
from podwire.model.bgp import BGPConfiguration, BGPPeer
from podwire.model.bgpcodec import (
    bgp_key,
    decode_bgp_configuration,
    decode_bgp_filter,
    decode_bgp_peer,
    encode_bgp,
)
from podwire.model.bgpfilter import BGPFilter
from podwire.model.block import Affinity, AffinityState, Block, Handle, IPAMConfig
from podwire.model.blockcodec import decode_block, encode_block
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.kept import KeptResource, decode_kept, encode_kept, kept_key
from podwire.model.link import LARGEST_MTU, SMALLEST_MTU
from podwire.model.node import ClusterInformation, Node, Routing
from podwire.model.pool import (
    DEFAULT_USES,
    IPPool,
    IPReservation,
    Mode,
    Use,
    default_block_size,
)
from podwire.model.resourcecodec import (
    API_VERSION,
    as_number,
    decode_metadata,
    encode_resource,
    named,
    wrong_key,
)
from podwire.model.wire import Fields, child, lay, settle, thaw

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.model.addressing import IPNetwork
    from podwire.model.resource import JSON, Stored, Wire

    Decoder = Callable[[str, Wire], Stored]

__all__ = [
    "API_VERSION",
    "decode",
    "decode_affinity",
    "decode_bgp_configuration",
    "decode_bgp_filter",
    "decode_bgp_peer",
    "decode_block",
    "decode_cluster",
    "decode_endpoint",
    "decode_handle",
    "decode_ipam_config",
    "decode_node",
    "decode_pool",
    "decode_reservation",
    "encode",
    "key_of",
]

CALICO_NODE_IP = "CalicoNodeIP"
ROUTING_ANNOTATION = "podwire.io/routing"
NEXT_ROUTING_ANNOTATION = "podwire.io/next-routing"
UNDERLAY_MTU_ANNOTATION = "podwire.io/underlay-mtu"

T = TypeVar("T")


def decode(key: str, wire: Wire) -> Stored:
    """Read any object we model; its kind follows from the key.

    Raises:
        BadInput: the key is of no such kind, or a field is wrong (named by key and path).
    """
    for prefix, decoder in _DECODERS:
        if key.startswith(prefix):
            return decoder(key, wire)
    raise BadInput(f"{key}: no kind of ours is stored under such a key")


def encode(value: Stored) -> Wire:
    """The JSON object to store; unknown fields of `value.wire` are kept."""
    match value:
        case Block():
            return encode_block(value)
        case IPPool():
            return _encode_pool(value)
        case Node():
            return _encode_node(value)
        case WorkloadEndpoint():
            return _encode_endpoint(value)
        case Affinity():
            wire = _record(value)
            confirmed, stored = AffinityState.CONFIRMED.value, bool(value.wire)
            settle(wire, "state", value.state.value, absent=confirmed, stored=stored)
            return wire
        case Handle():
            wire = _record(value)
            blocks = {str(cidr): count for cidr, count in value.blocks.items()}
            settle(wire, "block", blocks, absent={}, stored=bool(value.wire))
            return wire
        case IPAMConfig():
            return _encode_ipam_config(value)
        case IPReservation():
            return _encode_reservation(value)
        case ClusterInformation():
            return _encode_cluster(value)
        case BGPConfiguration() | BGPPeer() | BGPFilter():
            return encode_bgp(value)
        case KeptResource():
            return encode_kept(value)
        case _:
            raise TypeError(f"{type(value).__name__} is never stored")


def key_of(value: Stored) -> str:
    """The datastore key a value lives under."""
    match value:
        case Block():
            return keys.block_key(value.cidr)
        case IPPool():
            return keys.pool_key(value.name)
        case Node():
            return keys.node_key(value.name)
        case WorkloadEndpoint():
            return keys.endpoint_key(value.metadata.namespace or "default", value.metadata.name)
        case Affinity():
            return keys.affinity_key(value.node, value.block)
        case Handle():
            return keys.handle_key(value.id)
        case IPAMConfig():
            return keys.IPAM_CONFIG_KEY
        case IPReservation():
            return keys.reservation_key(value.metadata.name)
        case ClusterInformation():
            return keys.cluster_key(value.metadata.name)
        case BGPConfiguration() | BGPPeer() | BGPFilter():
            return bgp_key(value)
        case KeptResource(kind=kind, metadata=metadata):
            return kept_key(kind, metadata.namespace or "default", metadata.name)
        case _:
            raise TypeError(f"{type(value).__name__} is never stored")


def decode_pool(key: str, wire: Wire) -> IPPool:
    """Read an IPPool."""
    name = named(key, keys.parse_pool_key(key), "IPPool")
    spec = Fields(wire, key).within("spec")
    cidr = spec.parse("cidr", spec.needed_text("cidr"), parse_network)
    # An empty list means the default, as in Calico.
    uses = tuple(_use(spec, n, word) for n, word in enumerate(spec.texts("allowedUses")))
    return IPPool(
        wire=wire,
        metadata=decode_metadata(key, wire, name),
        cidr=cidr,
        block_size=spec.integer("blockSize") or default_block_size(cidr),
        ipip_mode=spec.one_of("ipipMode", Mode, Mode.NEVER),
        vxlan_mode=spec.one_of("vxlanMode", Mode, Mode.NEVER),
        nat_outgoing=spec.boolean("natOutgoing"),
        disabled=spec.boolean("disabled"),
        disable_bgp_export=spec.boolean("disableBGPExport"),
        node_selector=spec.text("nodeSelector") or "all()",
        namespace_selector=spec.maybe_text("namespaceSelector"),
        allowed_uses=uses or DEFAULT_USES,
        automatic=spec.text("assignmentMode") != "Manual",
    )


def decode_reservation(key: str, wire: Wire) -> IPReservation:
    """Read an IPReservation."""
    name = named(key, keys.parse_reservation_key(key), "IPReservation")
    spec = Fields(wire, key).within("spec")
    metadata = decode_metadata(key, wire, name)
    return IPReservation(wire=wire, metadata=metadata, reserved=_reserved(spec))


def _reserved(spec: Fields) -> tuple[IPNetwork, ...]:
    # Bits behind a prefix are Calico's to allow: what we cannot read would protect no address.
    return tuple(
        spec.parse(f"reservedCIDRs[{n}]", text, parse_interface).network
        for n, text in enumerate(spec.texts("reservedCIDRs"))
    )


def decode_node(key: str, wire: Wire) -> Node:
    """Read a Node."""
    name = named(key, keys.parse_node_key(key), "Node")
    spec = Fields(wire, key).within("spec")
    bgp = spec.within("bgp")
    return Node(
        wire=wire,
        metadata=decode_metadata(key, wire, name),
        address=bgp.parsed("ipv4Address", parse_interface),
        address6=bgp.parsed("ipv6Address", parse_interface),
        ipip_tunnel=bgp.parsed("ipv4IPIPTunnelAddr", parse_address),
        vxlan_tunnel=spec.parsed("ipv4VXLANTunnelAddr", parse_address),
        vxlan_mac=spec.maybe_text("vxlanTunnelMACAddr"),
        underlay_mtu=_underlay_mtu(key, wire),
        as_number=as_number(bgp, "asNumber"),
        route_reflector_cluster_id=bgp.maybe_text("routeReflectorClusterID"),
    )


def _underlay_mtu(key: str, wire: Wire) -> int | None:
    """What is no MTU is as good as nothing: a slip in an annotation must not cut a node off."""
    text = Fields(wire, key).within("metadata").text_map("annotations").get(UNDERLAY_MTU_ANNOTATION)
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if SMALLEST_MTU <= int(text) <= LARGEST_MTU else None


def decode_endpoint(key: str, wire: Wire) -> WorkloadEndpoint:
    """Read a WorkloadEndpoint."""
    named = keys.parse_endpoint_key(key)
    if named is None:
        raise wrong_key(key, "WorkloadEndpoint")
    spec = Fields(wire, key).within("spec")
    addresses = tuple(
        spec.parse(f"ipNetworks[{n}]", text, parse_interface)
        for n, text in enumerate(spec.texts("ipNetworks"))
    )
    return WorkloadEndpoint(
        wire=wire,
        metadata=decode_metadata(key, wire, named[1], named[0]),
        orchestrator=spec.text("orchestrator"),
        node=spec.text("node"),
        container_id=spec.text("containerID"),
        pod=spec.text("pod"),
        endpoint=spec.text("endpoint"),
        interface=spec.text("interfaceName"),
        mac=spec.text("mac"),
        addresses=addresses,
        profiles=spec.texts("profiles"),
        allowed_source_prefixes=tuple(
            spec.parse(f"allowSpoofedSourcePrefixes[{n}]", text, parse_interface).network
            for n, text in enumerate(spec.texts("allowSpoofedSourcePrefixes"))
        ),
    )


def decode_cluster(key: str, wire: Wire) -> ClusterInformation:
    """Read the ClusterInformation; without `datastoreReady` it is not ready, as in Calico."""
    name = named(key, keys.parse_cluster_key(key), "ClusterInformation")
    spec = Fields(wire, key).within("spec")
    metadata = decode_metadata(key, wire, name)
    annotations = Fields(wire, key).within("metadata").within("annotations")
    version = spec.maybe_text("calicoVersion")
    return ClusterInformation(
        wire=wire,
        metadata=metadata,
        guid=spec.text("clusterGUID"),
        ready=spec.boolean("datastoreReady"),
        cluster_type=spec.text("clusterType"),
        version=version,
        routing=annotations.one_of(ROUTING_ANNOTATION, Routing, Routing.AGENT),
        next_routing=(
            annotations.one_of(NEXT_ROUTING_ANNOTATION, Routing, Routing.AGENT)
            if annotations.maybe_text(NEXT_ROUTING_ANNOTATION)
            else None
        ),
        undecided=bool(version) and not annotations.maybe_text(ROUTING_ANNOTATION),
    )


def decode_affinity(key: str, wire: Wire) -> Affinity:
    """Read an affinity; an empty state is confirmed (very old data)."""
    parsed = keys.parse_affinity_key(key)
    if parsed is None:
        raise wrong_key(key, "block affinity")
    fields = Fields(wire, key)
    return Affinity(
        wire=wire,
        node=parsed[0],
        block=parsed[1],
        state=fields.one_of("state", AffinityState, AffinityState.CONFIRMED),
        deleted=fields.boolean("deleted"),
    )


def decode_handle(key: str, wire: Wire) -> Handle:
    """Read a handle."""
    fields = Fields(wire, key)
    counts = fields.within("block")
    blocks = {counts.parse(text, text, parse_network): counts.integer(text) for text in counts.wire}
    return Handle(
        wire=wire,
        id=named(key, keys.parse_handle_key(key), "handle"),
        blocks=blocks,
        deleted=fields.boolean("deleted"),
    )


def decode_ipam_config(key: str, wire: Wire) -> IPAMConfig:
    """Read the IPAM configuration: what is missing in an existing object is False or 0."""
    fields = Fields(wire, key)
    return IPAMConfig(
        wire=wire,
        strict_affinity=fields.boolean("strict_affinity"),
        auto_allocate_blocks=fields.boolean("auto_allocate_blocks"),
        max_blocks_per_host=fields.integer("maxBlocksPerHost"),
        cooldown_s=fields.integer("ipCooldownSeconds"),
    )


def _encode_pool(pool: IPPool) -> Wire:
    wire = encode_resource(pool, "IPPool", pool.metadata)
    spec = child(wire, "spec")
    spec["cidr"] = str(pool.cidr)
    for name, value, absent in (
        ("vxlanMode", pool.vxlan_mode.value, Mode.NEVER.value),
        ("ipipMode", pool.ipip_mode.value, Mode.NEVER.value),
        ("blockSize", pool.block_size, default_block_size(pool.cidr)),
        ("nodeSelector", pool.node_selector, "all()"),
        ("allowedUses", [use.value for use in pool.allowed_uses], list(DEFAULT_USES)),
        ("assignmentMode", "Automatic" if pool.automatic else "Manual", "Automatic"),
    ):
        settle(spec, name, value, absent=absent, stored=bool(pool.wire))
    lay(spec, "natOutgoing", pool.nat_outgoing, absent=False)
    lay(spec, "disabled", pool.disabled, absent=False)
    lay(spec, "disableBGPExport", pool.disable_bgp_export, absent=False)
    lay(spec, "namespaceSelector", pool.namespace_selector)
    return wire


def _encode_reservation(value: IPReservation) -> Wire:
    wire = encode_resource(value, "IPReservation", value.metadata)
    spec, stored = child(wire, "spec"), bool(value.wire)
    # Kept in the notation it was written in.
    if not stored or _reserved(Fields(spec, "")) != value.reserved:
        reserved = [str(cidr) for cidr in value.reserved]
        settle(spec, "reservedCIDRs", reserved, absent=[], stored=stored)
    return wire


def _encode_node(node: Node) -> Wire:
    wire = encode_resource(node, "Node", node.metadata)
    spec = child(wire, "spec")
    bgp = dict(spec.get("bgp") or {})
    _lay_addresses(spec, bgp, node)
    lay(bgp, "ipv4Address", _text(node.address))
    lay(bgp, "ipv6Address", _text(node.address6))
    lay(bgp, "ipv4IPIPTunnelAddr", _text(node.ipip_tunnel))
    if (
        as_number(Fields(bgp, ""), "asNumber") != node.as_number
    ):  # keep the notation it was written in
        lay(bgp, "asNumber", node.as_number)
    lay(bgp, "routeReflectorClusterID", node.route_reflector_cluster_id)
    if bgp or "bgp" in spec:
        spec["bgp"] = bgp
    lay(spec, "ipv4VXLANTunnelAddr", _text(node.vxlan_tunnel))
    lay(spec, "vxlanTunnelMACAddr", node.vxlan_mac)
    if _underlay_mtu("", wire) != node.underlay_mtu:
        metadata = child(wire, "metadata")
        lay(child(metadata, "annotations"), UNDERLAY_MTU_ANNOTATION, _text(node.underlay_mtu))
        if not metadata["annotations"]:
            del metadata["annotations"]
    return wire


def _lay_addresses(spec: dict[str, JSON], bgp: Wire, node: Node) -> None:
    """Keep the list of addresses, which Calico reads besides, in step with those of BGP."""
    before = [text for name in ("ipv4Address", "ipv6Address") if (text := bgp.get(name))]
    now = [str(address) for address in (node.address, node.address6) if address is not None]
    if now == before:
        return
    others = [
        item
        for item in spec.get("addresses") or ()
        if item.get("type") != CALICO_NODE_IP or item.get("address") not in before
    ]
    ours = [{"address": text, "type": CALICO_NODE_IP} for text in now]
    lay(spec, "addresses", [*ours, *others], absent=[])


def _encode_endpoint(endpoint: WorkloadEndpoint) -> Wire:
    wire = encode_resource(endpoint, "WorkloadEndpoint", endpoint.metadata)
    spec = child(wire, "spec")
    for name, text in (
        ("orchestrator", endpoint.orchestrator),
        ("node", endpoint.node),
        ("containerID", endpoint.container_id),
        ("pod", endpoint.pod),
        ("endpoint", endpoint.endpoint),
    ):
        lay(spec, name, text, absent="")
    addresses = [str(address) for address in endpoint.addresses]
    settle(spec, "ipNetworks", addresses, absent=[], stored=bool(endpoint.wire))
    lay(spec, "profiles", list(endpoint.profiles), absent=[])
    lay(spec, "interfaceName", endpoint.interface, absent="")
    lay(spec, "mac", endpoint.mac, absent="")
    prefixes = [str(prefix) for prefix in endpoint.allowed_source_prefixes]
    lay(spec, "allowSpoofedSourcePrefixes", prefixes, absent=[])
    return wire


def _encode_cluster(cluster: ClusterInformation) -> Wire:
    wire = encode_resource(cluster, "ClusterInformation", cluster.metadata)
    annotations = child(child(wire, "metadata"), "annotations")
    told = cluster.version is not None and not cluster.undecided
    default = None if told else Routing.AGENT.value
    lay(annotations, ROUTING_ANNOTATION, cluster.routing.value, absent=default)
    lay(annotations, NEXT_ROUTING_ANNOTATION, _text(cluster.next_routing))
    if not annotations:
        del wire["metadata"]["annotations"]
    spec = child(wire, "spec")
    lay(spec, "clusterGUID", cluster.guid, absent="")
    lay(spec, "clusterType", cluster.cluster_type, absent="")
    lay(spec, "calicoVersion", cluster.version)
    settle(spec, "datastoreReady", cluster.ready, absent=False, stored=bool(cluster.wire))
    return wire


def _encode_ipam_config(config: IPAMConfig) -> Wire:
    wire: dict[str, JSON] = thaw(config.wire)
    lay(wire, "strict_affinity", config.strict_affinity, absent=False)
    lay(wire, "auto_allocate_blocks", config.auto_allocate_blocks, absent=False)
    lay(wire, "maxBlocksPerHost", config.max_blocks_per_host, absent=0)
    lay(wire, "ipCooldownSeconds", config.cooldown_s, absent=0)
    return wire


def _record(value: Affinity | Handle) -> dict[str, JSON]:
    wire: dict[str, JSON] = thaw(value.wire)
    settle(wire, "deleted", value.deleted, absent=False, stored=bool(value.wire))
    return wire


def _use(spec: Fields, position: int, word: str) -> Use:
    try:
        return Use(word)
    except ValueError:
        raise spec.bad(
            f"allowedUses[{position}]", f"{word!r} is none of {', '.join(Use)}"
        ) from None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_DECODERS: tuple[tuple[str, Decoder], ...] = (
    (keys.POOLS, decode_pool),
    (keys.NODES, decode_node),
    (keys.ENDPOINTS, decode_endpoint),
    (keys.RESERVATIONS, decode_reservation),
    (keys.CLUSTER, decode_cluster),
    (keys.BGP_CONFIGURATIONS, decode_bgp_configuration),
    (keys.BGP_PEERS, decode_bgp_peer),
    (keys.BGP_FILTERS, decode_bgp_filter),
    (keys.BLOCKS, decode_block),
    (keys.AFFINITIES, decode_affinity),
    (keys.HANDLES, decode_handle),
    (keys.IPAM_CONFIG_KEY, decode_ipam_config),
    (keys.RESOURCES, decode_kept),
)
