"""BGPConfiguration, BGPPeer and BGPFilter ↔ Calico's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, assert_never

from podwire.errors import BadInput
from podwire.model import keys
from podwire.model.addressing import parse_address, parse_network
from podwire.model.bgp import (
    BGPConfiguration,
    BGPPeer,
    BindMode,
    LogSeverity,
    NamedCommunity,
    NextHopMode,
    PrefixAdvertisement,
    SecretKey,
)
from podwire.model.bgpfilter import BGPFilter
from podwire.model.bgprulecodec import decode_rules, encode_rule, parse_community
from podwire.model.resourcecodec import (
    as_number,
    decode_metadata,
    encode_resource,
    named,
    parse_duration,
)
from podwire.model.wire import Fields, child, lay

if TYPE_CHECKING:
    from enum import StrEnum

    from podwire.model.addressing import IPAddress
    from podwire.model.resource import JSON, Wire

E = TypeVar("E", bound="StrEnum")

HOLD_ANNOTATION = "podwire.io/hold-time"
KEEPALIVE_ANNOTATION = "podwire.io/keepalive-time"


def parse_peer_address(text: str) -> tuple[IPAddress, int | None]:
    """Read `10.0.0.1`, `10.0.0.1:1790`, `fd00::1` or `[fd00::1]:1790`.

    Raises:
        BadInput: it is no address, or the port is none.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            raise BadInput(
                f"peer {text!r} is not an address with a port", fix="write [fd00::1]:179"
            )
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    address = parse_address(host, "peer")
    if port and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise BadInput(f"peer {text!r} has no port of 1 to 65535", fix=f"write {address}:179")
    return address, int(port) if port else None


def decode_bgp_configuration(key: str, wire: Wire) -> BGPConfiguration:
    """Read a BGPConfiguration."""
    name = named(key, keys.parse_bgp_configuration_key(key), "BGPConfiguration")
    spec = Fields(wire, key).within("spec")
    notes = Fields(wire, key).within("metadata").within("annotations")
    return BGPConfiguration(
        wire=wire,
        metadata=decode_metadata(key, wire, name),
        log_severity=_maybe(spec, "logSeverityScreen", LogSeverity),
        mesh=_maybe_boolean(spec, "nodeToNodeMeshEnabled"),
        as_number=as_number(spec, "asNumber"),
        listen_port=spec.integer("listenPort") or None,
        bind_mode=_maybe(spec, "bindMode", BindMode),
        communities=tuple(
            NamedCommunity(
                name=item.text("name"),
                value=item.parse("value", item.needed_text("value"), parse_community),
            )
            for item in spec.objects("communities")
        ),
        prefix_advertisements=tuple(
            PrefixAdvertisement(
                cidr=item.parse("cidr", item.needed_text("cidr"), parse_network),
                communities=item.texts("communities"),
            )
            for item in spec.objects("prefixAdvertisements")
        ),
        mesh_password=_secret(spec, "nodeMeshPassword"),
        mesh_restart_s=spec.parsed("nodeMeshMaxRestartTime", parse_duration),
        ignored_interfaces=spec.texts("ignoredInterfaces"),
        hold_s=notes.parsed(HOLD_ANNOTATION, parse_duration),
        keepalive_s=notes.parsed(KEEPALIVE_ANNOTATION, parse_duration),
    )


def decode_bgp_peer(key: str, wire: Wire) -> BGPPeer:
    """Read a BGPPeer."""
    name = named(key, keys.parse_bgp_peer_key(key), "BGPPeer")
    spec = Fields(wire, key).within("spec")
    notes = Fields(wire, key).within("metadata").within("annotations")
    address, port = spec.parsed("peerIP", parse_peer_address) or (None, None)
    mode = spec.one_of("nextHopMode", NextHopMode, NextHopMode.AUTO)
    if not spec.text("nextHopMode") and spec.boolean("keepOriginalNextHop"):
        mode = NextHopMode.KEEP  # the older way to say it
    return BGPPeer(
        wire=wire,
        metadata=decode_metadata(key, wire, name),
        node=spec.maybe_text("node"),
        node_selector=spec.maybe_text("nodeSelector"),
        address=address,
        port=port,
        # Go writes 0 where none was given.
        as_number=as_number(spec, "asNumber") or None,
        peer_selector=spec.maybe_text("peerSelector"),
        local_workload_selector=spec.maybe_text("localWorkloadSelector"),
        local_as_number=as_number(spec, "localASNumber") or None,
        next_hop_mode=mode,
        password=_secret(spec, "password"),
        uses_node_ip=spec.text("sourceAddress") != "None",
        restart_s=spec.parsed("maxRestartTime", parse_duration),
        keepalive_s=spec.parsed("keepaliveTime", parse_duration),
        hold_s=notes.parsed(HOLD_ANNOTATION, parse_duration),
        allowed_local_as=_maybe_integer(spec, "numAllowedLocalASNumbers"),
        ttl_security=_maybe_integer(spec, "ttlSecurity"),
        reachable_by=spec.parsed("reachableBy", parse_address),
        filters=spec.texts("filters"),
        reverse=spec.text("reversePeering") != "Manual",
    )


def decode_bgp_filter(key: str, wire: Wire) -> BGPFilter:
    """Read a BGPFilter."""
    name = named(key, keys.parse_bgp_filter_key(key), "BGPFilter")
    spec = Fields(wire, key).within("spec")
    return BGPFilter(
        wire=wire,
        metadata=decode_metadata(key, wire, name),
        import4=decode_rules(spec, "importV4"),
        export4=decode_rules(spec, "exportV4"),
        import6=decode_rules(spec, "importV6"),
        export6=decode_rules(spec, "exportV6"),
    )


def encode_bgp(value: BGPConfiguration | BGPPeer | BGPFilter) -> Wire:
    """The JSON object to store; what stays as it was keeps its notation."""
    match value:
        case BGPConfiguration():
            return _encode_configuration(value)
        case BGPPeer():
            return _encode_peer(value)
        case BGPFilter():
            return _encode_filter(value)
        case unknown:
            assert_never(unknown)


def bgp_key(value: BGPConfiguration | BGPPeer | BGPFilter) -> str:
    """The datastore key a value lives under."""
    match value:
        case BGPConfiguration():
            return keys.bgp_configuration_key(value.name)
        case BGPPeer():
            return keys.bgp_peer_key(value.name)
        case BGPFilter():
            return keys.bgp_filter_key(value.name)
        case unknown:
            assert_never(unknown)


def _encode_configuration(value: BGPConfiguration) -> Wire:
    wire = encode_resource(value, "BGPConfiguration", value.metadata)
    before = decode_bgp_configuration(bgp_key(value), wire)
    communities = [{"name": each.name, "value": str(each.value)} for each in value.communities]
    told = [
        {"cidr": str(each.cidr), "communities": list(each.communities)}
        for each in value.prefix_advertisements
    ]
    _lay_changed(
        child(wire, "spec"),
        ("logSeverityScreen", before.log_severity, value.log_severity, _text(value.log_severity)),
        ("nodeToNodeMeshEnabled", before.mesh, value.mesh, value.mesh),
        ("asNumber", before.as_number, value.as_number, value.as_number),
        ("listenPort", before.listen_port, value.listen_port, value.listen_port),
        ("bindMode", before.bind_mode, value.bind_mode, _text(value.bind_mode)),
        ("communities", before.communities, value.communities, communities),
        ("prefixAdvertisements", before.prefix_advertisements, value.prefix_advertisements, told),
        (
            *("nodeMeshPassword", before.mesh_password, value.mesh_password),
            _secret_wire(value.mesh_password),
        ),
        (
            *("nodeMeshMaxRestartTime", before.mesh_restart_s, value.mesh_restart_s),
            _time(value.mesh_restart_s),
        ),
        (
            *("ignoredInterfaces", before.ignored_interfaces, value.ignored_interfaces),
            list(value.ignored_interfaces),
        ),
    )
    _lay_note(wire, HOLD_ANNOTATION, before.hold_s, value.hold_s)
    _lay_note(wire, KEEPALIVE_ANNOTATION, before.keepalive_s, value.keepalive_s)
    return wire


def _encode_peer(value: BGPPeer) -> Wire:
    wire = encode_resource(value, "BGPPeer", value.metadata)
    old = decode_bgp_peer(bgp_key(value), wire)
    source = "UseNodeIP" if value.uses_node_ip else "None"
    reverse = "Auto" if value.reverse else "Manual"
    allowed = value.allowed_local_as
    _lay_changed(
        child(wire, "spec"),
        ("node", old.node, value.node, value.node),
        ("nodeSelector", old.node_selector, value.node_selector, value.node_selector),
        ("peerIP", old.peer_ip, value.peer_ip, value.peer_ip),
        ("asNumber", old.as_number, value.as_number, value.as_number),
        ("peerSelector", old.peer_selector, value.peer_selector, value.peer_selector),
        (
            *("localWorkloadSelector", old.local_workload_selector),
            *(value.local_workload_selector, value.local_workload_selector),
        ),
        ("localASNumber", old.local_as_number, value.local_as_number, value.local_as_number),
        ("nextHopMode", old.next_hop_mode, value.next_hop_mode, value.next_hop_mode.value),
        ("password", old.password, value.password, _secret_wire(value.password)),
        ("sourceAddress", old.uses_node_ip, value.uses_node_ip, source),
        ("maxRestartTime", old.restart_s, value.restart_s, _time(value.restart_s)),
        ("keepaliveTime", old.keepalive_s, value.keepalive_s, _time(value.keepalive_s)),
        ("numAllowedLocalASNumbers", old.allowed_local_as, allowed, allowed),
        ("ttlSecurity", old.ttl_security, value.ttl_security, value.ttl_security),
        ("reachableBy", old.reachable_by, value.reachable_by, _text(value.reachable_by)),
        ("filters", old.filters, value.filters, list(value.filters)),
        ("reversePeering", old.reverse, value.reverse, reverse),
    )
    _lay_note(wire, HOLD_ANNOTATION, old.hold_s, value.hold_s)
    return wire


def _encode_filter(value: BGPFilter) -> Wire:
    wire = encode_resource(value, "BGPFilter", value.metadata)
    old = decode_bgp_filter(bgp_key(value), wire)
    _lay_changed(
        child(wire, "spec"),
        ("importV4", old.import4, value.import4, list(map(encode_rule, value.import4))),
        ("exportV4", old.export4, value.export4, list(map(encode_rule, value.export4))),
        ("importV6", old.import6, value.import6, list(map(encode_rule, value.import6))),
        ("exportV6", old.export6, value.export6, list(map(encode_rule, value.export6))),
    )
    return wire


def _lay_changed(spec: dict[str, JSON], *fields: tuple[str, object, object, JSON]) -> None:
    """Write fields whose value is another one than before: the rest keeps its notation."""
    for name, before, now, written in fields:
        if before != now:
            lay(spec, name, None if written == [] else written)


def _maybe(fields: Fields, name: str, kind: type[E]) -> E | None:
    if fields.maybe_text(name) is None:
        return None
    return fields.one_of(name, kind, next(iter(kind)))


def _maybe_boolean(fields: Fields, name: str) -> bool | None:
    return None if fields.wire.get(name) is None else fields.boolean(name)


def _maybe_integer(fields: Fields, name: str) -> int | None:
    return None if fields.wire.get(name) is None else fields.integer(name)


def _secret(fields: Fields, name: str) -> SecretKey | None:
    reference = fields.within(name).within("secretKeyRef")
    if not reference.wire:
        return None
    return SecretKey(name=reference.needed_text("name"), key=reference.needed_text("key"))


def _secret_wire(secret: SecretKey | None) -> JSON:
    return None if secret is None else {"secretKeyRef": {"name": secret.name, "key": secret.key}}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else f"{seconds}s"


def _lay_note(wire: dict[str, JSON], name: str, before: int | None, now: int | None) -> None:
    if before == now:
        return
    metadata = child(wire, "metadata")
    lay(child(metadata, "annotations"), name, _time(now))
    if not metadata["annotations"]:
        del metadata["annotations"]
