"""Whether what a person wrote may become an object of the datastore. Pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from podwire.model import codec, keys
from podwire.model.addressing import parse_network
from podwire.model.bgpvalidate import configuration_faults, filter_faults, peer_faults
from podwire.model.ipamconfig import IPAM_CONFIG_KINDS, build_ipam_config, ipam_config_faults
from podwire.model.kept import KEPT, POLICIES, kept_key, with_policy_types
from podwire.model.nearest import suggestion
from podwire.model.node import ClusterInformation, Routing
from podwire.model.pool import IPPool, Mode, Use
from podwire.model.shape import Fault, carry_over, without_nulls
from podwire.model.shapes import SHAPES
from podwire.model.wire import json_type, thaw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podwire.model.addressing import IPNetwork
    from podwire.model.resource import JSON, Stored, Wire

UNROUTABLE = {
    ip_network("127.0.0.0/8"): "the loopback network",
    ip_network("169.254.0.0/16"): "the link-local network",
    ip_network("224.0.0.0/3"): "the multicast and reserved networks",
    ip_network("fe80::/10"): "the link-local network",
    ip_network("ff00::/8"): "the multicast networks",
}
"""Networks no pod can have an address in (RFC 6890, RFC 5771, RFC 4291)."""
OWN_ANNOTATIONS = "podwire.io/"
"""Annotations our programs write; an apply that does not mention one leaves it."""
BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}


def check_document(document: JSON) -> list[Fault]:
    """Everything that is wrong with one document, seen by itself."""
    if not isinstance(document, dict):
        return [Fault((), f"the document must be a mapping, not {json_type(document)}")]
    kind = document.get("kind")
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        problem = "is missing" if kind is None else f"{kind!r} is unknown"
        fix = suggestion(str(kind or ""), SHAPES, f"write one of: {', '.join(SHAPES)}")
        return [Fault(("kind",), problem, fix)]
    faults = shape.faults(document, ())
    sound = _without(document, faults)
    if sound is None or shape.faults(sound, ()):
        return faults
    wrong = {fault.path[:2] for fault in faults}
    return faults + [each for each in _together(sound) if each.path[:2] not in wrong]


def _without(document: Wire, faults: Sequence[Fault]) -> JSON | None:
    """The document without its faulty fields, so that the others are looked at too."""
    if not faults:
        return document
    if any(fault.path[:1] != ("spec",) or len(fault.path) < 2 for fault in faults):
        return None
    wrong = {fault.path[1] for fault in faults}
    spec = {name: value for name, value in document["spec"].items() if name not in wrong}
    return {**document, "spec": spec}


def _together(document: Mapping[str, Any]) -> list[Fault]:
    """What does not go together in a document whose fields are right one by one."""
    match document["kind"]:
        case "IPPool":
            return _pool_faults(document["spec"])
        case "ClusterInformation":
            return _cluster_faults(document)
        case "BGPConfiguration":
            return configuration_faults(document)
        case "BGPPeer":
            return peer_faults(document)
        case "BGPFilter":
            return filter_faults(document)
        case kind if kind in IPAM_CONFIG_KINDS:
            return ipam_config_faults(document)
        case _:
            return []


def document_key(document: Wire, namespace: str = "default") -> str:
    """The datastore key of a document without faults; `namespace` where it names none."""
    metadata = document["metadata"]
    name: str = metadata["name"]
    match document["kind"]:
        case "IPPool":
            return keys.pool_key(name)
        case "Node":
            return keys.node_key(name)
        case "WorkloadEndpoint":
            return keys.endpoint_key(metadata.get("namespace") or namespace, name)
        case "IPReservation":
            return keys.reservation_key(name)
        case "BGPConfiguration":
            return keys.bgp_configuration_key(name)
        case "BGPPeer":
            return keys.bgp_peer_key(name)
        case "BGPFilter":
            return keys.bgp_filter_key(name)
        case kind if kind in IPAM_CONFIG_KINDS:
            return keys.IPAM_CONFIG_KEY
        case kind if kind in KEPT:
            return kept_key(KEPT[kind], metadata.get("namespace") or namespace, name)
        case _:
            return keys.cluster_key(name)


def build(document: Wire, stored: Wire | None, namespace: str = "default") -> Stored:
    """The value to write for a document without faults, over what is stored under its key.

    Fields that other versions or the agents wrote stay; defaults are filled in.

    Raises:
        BadInput: what is stored is broken in a field that stays.
    """
    key = document_key(document, namespace)
    # What is kept for others is kept whole.
    wanted = thaw(document) if document["kind"] in KEPT else without_nulls(thaw(document))
    if document["kind"] in IPAM_CONFIG_KINDS:
        return build_ipam_config(wanted["spec"], stored)
    spec = wanted.get("spec") or {}
    if spec.get("namespaceSelector") and not spec.get("allowedUses"):
        # The default would be Workload and Tunnel, and a tunnel is in no namespace.
        spec["allowedUses"] = [Use.WORKLOAD.value]
    if document["kind"] in POLICIES:
        wanted["spec"] = spec = with_policy_types(spec)
    if stored is not None:
        wanted = carry_over(SHAPES[document["kind"]], thaw(stored), wanted)
        _keep_own_annotations(stored, wanted["metadata"])
    value = codec.decode(key, wanted)
    return _with_defaults(value, stored) if isinstance(value, IPPool) else value


def _with_defaults(pool: IPPool, stored: Wire | None) -> IPPool:
    """The pool with every field, as Calico's own tools store it.

    What is stored without a field by somebody who meant the default stays so.
    """
    spec = dict(pool.wire["spec"])
    for name, item in codec.encode(replace(pool, wire={}))["spec"].items():
        if stored is None or name in stored["spec"]:
            spec.setdefault(name, item)
    return replace(pool, wire={**pool.wire, "spec": spec})


def _keep_own_annotations(stored: Wire, metadata: dict[str, JSON]) -> None:
    found = (stored.get("metadata") or {}).get("annotations") or {}
    own = {name: text for name, text in found.items() if name.startswith(OWN_ANNOTATIONS)}
    if own:
        metadata["annotations"] = {**own, **(metadata.get("annotations") or {})}


def check_change(before: Stored, after: Stored) -> list[Fault]:
    """What of a change to an existing object is not allowed."""
    faults = []
    if isinstance(before, IPPool) and isinstance(after, IPPool):
        for name, old, new in (
            ("cidr", before.cidr, after.cidr),
            ("blockSize", before.block_size, after.block_size),
        ):
            if old != new:
                problem = f"of IPPool {before.name} cannot be changed from {old} to {new}"
                faults.append(Fault(("spec", name), problem, "make a new pool with another name"))
    if isinstance(before, ClusterInformation) and isinstance(after, ClusterInformation):
        old_way, new_way = before.routing, after.routing
        if old_way is not new_way:
            done = "set" if before.undecided else f"changed from {old_way}"
            problem = f"cannot be {done} to {new_way} by applying"
            path = ("metadata", "annotations", codec.ROUTING_ANNOTATION)
            keep = "leave it out" if before.undecided else f"write {old_way}"
            fix = f"{keep}, and use: podwire bgp switch {new_way}"
            faults.append(Fault(path, problem, fix))
        if before.next_routing is not after.next_routing:
            path = ("metadata", "annotations", codec.NEXT_ROUTING_ANNOTATION)
            problem = "is written by `podwire bgp switch` alone"
            faults.append(Fault(path, problem, "leave it as it is"))
    return faults


def check_overlap(
    pool: IPPool, others: Iterable[IPPool], blocks: Sequence[IPNetwork] = ()
) -> list[Fault]:
    """What a new pool collides with: other pools, and blocks of another size left inside."""
    path = ("spec", "cidr")
    faults = [
        Fault(
            path,
            f"{pool.cidr} of IPPool {pool.name} overlaps {other.cidr} of IPPool {other.name}",
            "choose a CIDR that no other pool contains",
        )
        for other in others
        if other.name != pool.name and _overlap(pool.cidr, other.cidr)
    ]
    odd = [b for b in blocks if _overlap(pool.cidr, b) and b.prefixlen != pool.block_size]
    if odd:
        problem = f"is {pool.block_size}, but blocks of another size lie in it: {odd[0]}"
        fix = f"write {odd[0].prefixlen}, or release those blocks first"
        faults.append(Fault(("spec", "blockSize"), problem, fix))
    return faults


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _pool_faults(spec: Mapping[str, Any]) -> list[Fault]:
    cidr = parse_network(spec["cidr"])
    faults = _block_size_faults(cidr, spec)
    for network, title in UNROUTABLE.items():
        if _overlap(cidr, network):
            problem = f"{cidr} overlaps {title} {network}"
            faults.append(Fault(("spec", "cidr"), problem, "choose another CIDR"))
    ipip = spec.get("ipipMode") or Mode.NEVER
    vxlan = spec.get("vxlanMode") or Mode.NEVER
    if Mode.NEVER not in (ipip, vxlan):
        problem = f"is {vxlan} while ipipMode is {ipip}: a pool has one encapsulation"
        faults.append(Fault(("spec", "vxlanMode"), problem, "set one of the two to Never"))
    if ipip != Mode.NEVER and cidr.version == 6:
        problem = "must be Never for an IPv6 pool: IPIP carries IPv4 only"
        faults.append(Fault(("spec", "ipipMode"), problem, "use vxlanMode"))
    return faults + _use_faults(spec, encapsulated={ipip, vxlan} != {Mode.NEVER})


def _block_size_faults(cidr: IPNetwork, spec: Mapping[str, Any]) -> list[Fault]:
    path = ("spec", "blockSize")
    low, high = BLOCK_SIZES[cidr.version]
    size = spec.get("blockSize")
    if size is not None and not low <= size <= high:
        return [Fault(path, f"is {size}", f"choose {low} to {high} for IPv{cidr.version}")]
    effective = size or (26 if cidr.version == 4 else 122)
    if cidr.prefixlen > effective and not spec.get("disabled"):
        problem = f"/{effective} is larger than the pool itself, {cidr}"
        if size is None:
            problem += " (it is the default)"
        fix = f"write {max(cidr.prefixlen, low)} or more, or a larger cidr"
        return [Fault(path, problem, fix)]
    return []


def _use_faults(spec: Mapping[str, Any], *, encapsulated: bool) -> list[Fault]:
    path = ("spec", "allowedUses")
    uses = spec.get("allowedUses") or [Use.WORKLOAD, Use.TUNNEL]
    faults = []
    if Use.LOAD_BALANCER in uses:
        if len(set(uses)) > 1:
            faults.append(Fault(path, "LoadBalancer cannot be mixed with other uses"))
        if encapsulated:
            faults.append(Fault(path, "LoadBalancer excludes encapsulation"))
        if spec.get("disableBGPExport"):
            faults.append(Fault(path, "LoadBalancer excludes disableBGPExport"))
        if (spec.get("nodeSelector") or "all()") != "all()":
            faults.append(Fault(path, "LoadBalancer needs nodeSelector all()"))
    # With allowedUses left out Tunnel is only the default, which gives way to the selector.
    if Use.TUNNEL in (spec.get("allowedUses") or ()) and spec.get("namespaceSelector"):
        fix = "write allowedUses: [Workload]"
        faults.append(Fault(path, "Tunnel excludes namespaceSelector", fix))
    return faults


def _cluster_faults(document: Mapping[str, Any]) -> list[Fault]:
    metadata = document["metadata"]
    faults = []
    if metadata["name"] != "default":
        problem = "of the ClusterInformation must be default"
        faults.append(Fault(("metadata", "name"), problem, "write default"))
    routing = (metadata.get("annotations") or {}).get(codec.ROUTING_ANNOTATION)
    if routing is not None and routing not in set(Routing):
        path = ("metadata", "annotations", codec.ROUTING_ANNOTATION)
        fix = f"write one of: {', '.join(Routing)}"
        faults.append(Fault(path, f"{routing!r} is unknown", fix))
    return faults
