"""The rules of a BGPFilter ↔ Calico's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from podwire.errors import BadInput
from podwire.model.addressing import parse_network
from podwire.model.bgp import Community
from podwire.model.bgpfilter import (
    AddCommunity,
    BGPPeerType,
    FilterAction,
    FilterRule,
    MatchOperator,
    Operation,
    PrefixMatch,
    PrependASPath,
    SetPriority,
)
from podwire.model.resourcecodec import parse_as_number

if TYPE_CHECKING:
    from podwire.model.resource import JSON, Wire
    from podwire.model.wire import Fields

FROM_PEERS = "RemotePeers"


def parse_community(text: str) -> Community:
    """Read `aa:nn` (16 bits each) or `aa:nn:mm` (32 bits each).

    Raises:
        BadInput: it is neither.
    """
    parts = text.split(":")
    highest = 2**16 - 1 if len(parts) == 2 else 2**32 - 1
    good = len(parts) in {2, 3} and all(p.isdecimal() and int(p) <= highest for p in parts)
    if not good:
        raise BadInput(
            f"{text!r} is no community",
            fix="write two numbers up to 65535 (64512:100), or three up to 4294967295",
        )
    return Community(tuple(map(int, parts)))


def decode_rules(spec: Fields, name: str) -> tuple[FilterRule, ...]:
    """The rules in a field, in order."""
    return tuple(_rule(fields) for fields in spec.objects(name))


def encode_rule(rule: FilterRule) -> Wire:
    """One rule as JSON."""
    wire: dict[str, Any] = {"action": rule.action.value}
    if rule.prefix is not None:
        wire["cidr"] = str(rule.prefix.cidr)
        wire["matchOperator"] = rule.prefix.operator.value
        lengths = {"min": rule.prefix.shortest, "max": rule.prefix.longest}
        if any(length is not None for length in lengths.values()):
            wire["prefixLength"] = {n: v for n, v in lengths.items() if v is not None}
    if rule.from_peers:
        wire["source"] = FROM_PEERS
    if rule.interface is not None:
        wire["interface"] = rule.interface
    if rule.peer_type is not None:
        wire["peerType"] = rule.peer_type.value
    if rule.community is not None:
        wire["communities"] = {"values": [str(rule.community)]}
    if rule.as_path_prefix:
        wire["asPathPrefix"] = list(rule.as_path_prefix)
    if rule.priority is not None:
        wire["priority"] = rule.priority
    if rule.operations:
        wire["operations"] = [_operation_wire(each) for each in rule.operations]
    return wire


def _rule(fields: Fields) -> FilterRule:
    communities = fields.within("communities")
    values = communities.texts("values")
    if len(values) > 1:
        raise communities.bad("values", "must be one community")
    return FilterRule(
        action=fields.one_of("action", FilterAction, FilterAction.REJECT),
        prefix=_prefix(fields),
        from_peers=fields.text("source") == FROM_PEERS,
        interface=fields.maybe_text("interface"),
        peer_type=(
            fields.one_of("peerType", BGPPeerType, BGPPeerType.EXTERNAL)
            if fields.maybe_text("peerType")
            else None
        ),
        community=communities.parse("values[0]", values[0], parse_community) if values else None,
        as_path_prefix=_as_numbers(fields, "asPathPrefix"),
        priority=fields.integer("priority") or None,
        operations=tuple(_operation(each) for each in fields.objects("operations")),
    )


def _prefix(fields: Fields) -> PrefixMatch | None:
    cidr = fields.parsed("cidr", parse_network)
    if cidr is None:
        return None
    lengths = fields.within("prefixLength")
    return PrefixMatch(
        cidr=cidr,
        operator=fields.one_of("matchOperator", MatchOperator, MatchOperator.IN),
        shortest=lengths.integer("min") if lengths.wire.get("min") is not None else None,
        longest=lengths.integer("max") if lengths.wire.get("max") is not None else None,
    )


def _operation(fields: Fields) -> Operation:
    if fields.wire.get("addCommunity") is not None:
        inner = fields.within("addCommunity")
        return AddCommunity(inner.parse("value", inner.needed_text("value"), parse_community))
    if fields.wire.get("prependASPath") is not None:
        return PrependASPath(_as_numbers(fields.within("prependASPath"), "prefix"))
    if fields.wire.get("setPriority") is not None:
        return SetPriority(fields.within("setPriority").integer("value"))
    raise fields.bad("", "is none of addCommunity, prependASPath and setPriority")


def _operation_wire(operation: Operation) -> JSON:
    match operation:
        case AddCommunity(value):
            return {"addCommunity": {"value": str(value)}}
        case PrependASPath(numbers):
            return {"prependASPath": {"prefix": list(numbers)}}
        case SetPriority(value):
            return {"setPriority": {"value": value}}
        case unknown:
            assert_never(unknown)


def _as_numbers(fields: Fields, name: str) -> tuple[int, ...]:
    numbers = []
    for position, item in enumerate(fields.items(name)):
        number = parse_as_number(item)
        if number is None:
            raise fields.bad(f"{name}[{position}]", f"{item!r} is no AS number")
        numbers.append(number)
    return tuple(numbers)
