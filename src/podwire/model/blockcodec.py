"""Blocks ↔ Calico's JSON: allocations point into a shared list of attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from podwire.errors import BadInput
from podwire.model import keys
from podwire.model.addressing import parse_network
from podwire.model.block import Allocation, Block
from podwire.model.wire import Fields, lay, settle, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.model.resource import JSON, Wire

HOST = "host:"


def decode_block(key: str, wire: Wire) -> Block:
    """Read a block.

    Raises:
        BadInput: a field is wrong, or an allocation points to no attribute.
    """
    if keys.parse_block_key(key) is None:
        raise BadInput(f"{key}: no block is stored under such a key")
    fields = Fields(wire, key)
    cidr = fields.parse("cidr", fields.needed_text("cidr"), parse_network)
    # `hostAffinity` is the oldest spelling; it is read and never written.
    affinity = fields.maybe_text("affinity")
    if affinity is None and (host := fields.maybe_text("hostAffinity")):
        affinity = f"{HOST}{host}"
    ours = affinity is not None and affinity.startswith(HOST)
    return Block(
        wire=wire,
        cidr=cidr,
        node=affinity.removeprefix(HOST) if affinity is not None and ours else None,
        foreign_affinity=None if ours else affinity,
        allocations=_allocations(fields, cidr.num_addresses),
        unallocated=_ordinals(fields, cidr.num_addresses),
        sequence=fields.integer("sequenceNumber"),
        claimed=fields.maybe_text("affinity_claim_time"),
        deleted=fields.boolean("deleted"),
    )


def encode_block(block: Block) -> Wire:
    """The JSON object of a block; equal owners share one attribute, as Calico keeps them."""
    # Not a deep copy: what is inside is replaced below or stays; nobody changes a wire in place.
    wire: dict[str, JSON] = dict(block.wire)
    wire["cidr"] = str(block.cidr)
    affinity = block.foreign_affinity if block.node is None else f"{HOST}{block.node}"
    stored = bool(block.wire)
    if affinity or wire.get("affinity") or not stored:
        wire["affinity"] = affinity  # null where nobody holds it, as Calico has it
    wire.pop("hostAffinity", None)
    lay(wire, "affinity_claim_time", block.claimed)
    indexes, attributes = _shared(block)
    allocations = [indexes.get(ordinal) for ordinal in range(block.size)]
    settle(wire, "allocations", allocations, absent=[None] * block.size, stored=stored)
    settle(wire, "unallocated", list(block.unallocated), absent=[], stored=stored)
    settle(wire, "attributes", attributes, absent=[], stored=stored)
    before = wire.get("sequenceNumberForAllocation") or {}
    sequences = {
        str(ordinal): allocation.sequence
        for ordinal, allocation in sorted(block.allocations.items())
        if allocation.sequence or str(ordinal) in before
    }
    settle(wire, "sequenceNumber", block.sequence, absent=0, stored=stored)
    settle(wire, "sequenceNumberForAllocation", sequences, absent={}, stored=stored)
    settle(wire, "deleted", block.deleted, absent=False, stored=stored)
    return wire


def _allocations(fields: Fields, size: int) -> Mapping[int, Allocation]:
    attributes = [
        _attribute(fields, position, item)
        for position, item in enumerate(fields.items("attributes"))
    ]
    sequences = fields.within("sequenceNumberForAllocation")
    indexes = fields.items("allocations")
    if len(indexes) > size:
        raise fields.bad("allocations", f"has {len(indexes)} entries for {size} addresses")
    allocations: dict[int, Allocation] = {}
    for ordinal, index in enumerate(indexes):
        if index is None:
            continue
        name = f"allocations[{ordinal}]"
        if not isinstance(index, int) or isinstance(index, bool):
            raise fields.bad(name, "must be an index or null")
        if not 0 <= index < len(attributes):
            raise fields.bad(name, f"points to attribute {index} of {len(attributes)}")
        handle, owner, released_at, alternate = attributes[index]
        allocations[ordinal] = Allocation(
            handle=handle,
            attributes=owner,
            sequence=sequences.integer(str(ordinal)),
            released_at=released_at,
            alternate=alternate,
        )
    return allocations


def _attribute(
    fields: Fields, position: int, item: JSON
) -> tuple[str | None, Mapping[str, str], str | None, Mapping[str, str] | None]:
    name = f"attributes[{position}]"
    if not isinstance(item, dict):
        raise fields.bad(name, "must be an object")
    attribute = Fields(item, fields.key, f"{name}.")
    alternate = attribute.text_map("alternateOwnerAttrs")
    return (
        attribute.maybe_text("handle_id"),
        attribute.text_map("secondary"),
        attribute.maybe_text("releasedAt"),
        alternate or None,
    )


def _ordinals(fields: Fields, size: int) -> tuple[int, ...]:
    ordinals = fields.items("unallocated")
    for position, ordinal in enumerate(ordinals):
        good = isinstance(ordinal, int) and not isinstance(ordinal, bool) and 0 <= ordinal < size
        if not good:
            raise fields.bad(f"unallocated[{position}]", f"must be an ordinal below {size}")
    return tuple(ordinals)


def _shared(block: Block) -> tuple[dict[int, int], list[JSON]]:
    """Index of each ordinal's attribute, and the attributes.

    Attributes keep the order in which they stood, new ones follow, unused ones go and the indexes
    close up: a reader may therefore never remember an index.
    """
    before: Sequence[JSON] = block.wire.get("attributes") or ()
    indexes: Sequence[JSON] = block.wire.get("allocations") or ()
    found: dict[bytes, int] = {}
    table: list[JSON] = list(before)
    stood = [found.setdefault(_identity(item), place) for place, item in enumerate(before)]
    placed: dict[int, int] = {}
    for ordinal, allocation in sorted(block.allocations.items()):
        index = indexes[ordinal] if ordinal < len(indexes) else None
        if index is not None and _is_as_before(allocation, before[index]):
            placed[ordinal] = stood[index]
            continue
        attribute = _attribute_of(allocation, {} if index is None else before[index])
        position = found.setdefault(_identity(attribute), len(table))
        if position == len(table):
            table.append(attribute)
        placed[ordinal] = position
    used = sorted(set(placed.values()))
    renumbered = {position: index for index, position in enumerate(used)}
    return (
        {ordinal: renumbered[position] for ordinal, position in placed.items()},
        [table[position] for position in used],
    )


def _is_as_before(allocation: Allocation, before: Wire) -> bool:
    """Whether what stood there says the same: true of all but the one written."""
    get = before.get
    return (
        (get("handle_id") or None) == allocation.handle
        and (get("secondary") or {}) == allocation.attributes
        and _is_laid(before, "releasedAt", allocation.released_at)
        and _is_laid(before, "alternateOwnerAttrs", allocation.alternate)
    )


def _is_laid(before: Wire, name: str, value: JSON) -> bool:
    return bool((before.get(name) or None) == value)


def _attribute_of(allocation: Allocation, before: Wire) -> dict[str, JSON]:
    """The attribute of an allocation; unknown fields stay while the owner is the same."""
    owner = dict(allocation.attributes)
    same = (before.get("handle_id") or None) == allocation.handle and (
        before.get("secondary") or {}
    ) == owner
    attribute: dict[str, JSON] = thaw(before) if same else {}
    attribute["handle_id"] = allocation.handle
    attribute["secondary"] = owner
    alternate = allocation.alternate
    lay(attribute, "alternateOwnerAttrs", None if alternate is None else dict(alternate))
    lay(attribute, "releasedAt", allocation.released_at)
    return attribute


def _identity(attribute: JSON) -> bytes:
    return msgspec.json.encode(attribute, order="deterministic")
