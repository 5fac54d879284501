"""Splitting a pool into smaller ones of equal size. Pure.

Blocks and addresses stay as they are: a block lies in the one new pool whose CIDR holds it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.errors import BadInput, InUse
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podwire.model.addressing import IPNetwork
    from podwire.model.pool import IPPool

LONGEST_NAME = 253
MOST_PARTS = 1024


def split_pool(pool: IPPool, parts: int) -> tuple[IPPool, ...]:
    """The pools that take the place of one, in address order, with all its settings.

    Raises:
        BadInput: it cannot be split into so many.
    """
    if parts < 2 or parts & (parts - 1) or parts > MOST_PARTS:
        near = max(2, min(MOST_PARTS, 1 << (max(parts, 1) - 1).bit_length()))
        raise BadInput(
            f"IPPool {pool.name} cannot be split into {parts}: the number must be a power of 2,"
            f" at most {MOST_PARTS}",
            fix=f"write {near}",
        )
    longer = parts.bit_length() - 1
    room = pool.block_size - pool.cidr.prefixlen
    if longer > room:
        most = f"at most {1 << room}" if room > 0 else "none: it holds a single block"
        raise BadInput(
            f"IPPool {pool.name} ({pool.cidr}) cannot be split into {parts}: each part would be"
            f" smaller than a block (/{pool.block_size})",
            fix=f"choose fewer parts; possible are {most}",
        )
    cidrs: Iterable[IPNetwork] = pool.cidr.subnets(prefixlen_diff=longer)
    return tuple(
        replace(pool, metadata=_metadata(pool, number), cidr=cidr)
        for number, cidr in enumerate(cidrs)
    )


def part_name(pool: str, number: int) -> str:
    """Name of a part, as calicoctl gives it."""
    tail = f"-{number}"
    return f"split-{pool}"[: LONGEST_NAME - len(tail)] + tail


def missing_parts(
    parts: tuple[IPPool, ...], stored: Mapping[str, IPPool | None]
) -> tuple[IPPool, ...]:
    """Those that an earlier, interrupted split has not made yet.

    Raises:
        InUse: a pool of such a name is another one.
    """
    missing = []
    for part in parts:
        if part.name not in stored:
            missing.append(part)
            continue
        there = stored[part.name]
        if there is None or (there.cidr, there.block_size) != (part.cidr, part.block_size):
            raise InUse(
                f"an IPPool {part.name} is there and is not {part.cidr}, the part of that name",
                fix="delete or rename it first",
            )
    return tuple(missing)


def _metadata(pool: IPPool, number: int) -> Metadata:
    """Labels and annotations of the whole; uid and time are given by whoever writes it."""
    whole = pool.metadata
    return Metadata(
        name=part_name(pool.name, number), labels=whole.labels, annotations=whole.annotations
    )
