"""`podwire ipam`: how full the pools are, and who has an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.ipam_configure import configure, properties
from podwire.cli.ipam_repair import check_command, release
from podwire.cli.ipam_split import split
from podwire.cli.tables import columns, output
from podwire.errors import BadInput
from podwire.ipam.allocation import live
from podwire.ipam.records import Records
from podwire.ipam.usage import read_address, read_usage
from podwire.model.addressing import address_at, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podwire.ipam.usage import AddressUsage, BlockUsage, Count, PoolUsage, Usage
    from podwire.model.resource import JSON

HEADER = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE")
BORROWED_HEADER = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
WIDE_HEADER = (*HEADER, "IPS RESTING", "IPS BORROWED", "NAME")


@click.group()
def ipam() -> None:
    """Address pools, blocks and allocations: show, check, mend, configure, split.

    \b
      podwire ipam show --show-blocks
      podwire ipam check
    """  # noqa: D301  # click wants the character


for command in (check_command, release, configure, split):
    ipam.add_command(command)


@ipam.command()
@click.option("--show-blocks", is_flag=True, help="Each pool's blocks too.")
@click.option("--show-borrowed", is_flag=True, help="Only addresses used by other nodes.")
@click.option("--show-configuration", is_flag=True, help="Only how addresses are allocated.")
@click.option("--ip", metavar="ADDRESS", help="Only who has this address.")
@click.option(
    "-o",
    "--output",
    "format",
    type=click.Choice(["wide", "json", "yaml"]),
    help="wide: also what rests or is borrowed, and names. json and yaml: everything.",
)
@datastore_option
@click.pass_context
def show(ctx: click.Context, /, show_blocks: bool, format: str | None, **only: Any) -> None:
    """Show how full the pools are.

    An address rests from its release until the cooldown (IPAMConfig) is over; it is neither in use
    nor free. A borrowed one is used on a node that does not hold its block.

    \b
      podwire ipam show --show-blocks
      podwire ipam show --ip 10.244.38.174
    """  # noqa: D301  # click wants the character
    asked = [f"--{name.replace('_', '-')}" for name, value in only.items() if value]
    if len(asked) > 1:
        raise BadInput(f"{' and '.join(asked)} exclude each other", fix="ask one after the other")
    records = Records(open_datastore(ctx))
    if only["ip"] is not None:
        _show_address(read_address(records, parse_address(only["ip"], "--ip")), format)
        return
    if only["show_borrowed"]:
        _show_table(BORROWED_HEADER, _borrowed(records), format)
        return
    if only["show_configuration"]:
        config = records.rules("", {}).config
        _show_table(("PROPERTY", "VALUE"), properties(config), format)
        return
    usage = read_usage(records)
    for why in usage.unreadable:
        click.echo(f"warning: not counted: {why}", err=True)
    if format in ("json", "yaml"):
        click.echo(output(_usage_json(usage), format), nl=False)
    elif not usage.pools:
        click.echo("no IPPool exists; create one with: podwire apply -f FILE", err=True)
    else:
        wide = format == "wide"
        rows = [row if wide else row[: len(HEADER)] for row in _rows(usage, show_blocks)]
        click.echo(columns(WIDE_HEADER if wide else HEADER, rows), nl=False)


def _show_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], format: str | None
) -> None:
    if format in ("json", "yaml"):
        names = [name.lower().replace(" ", "-") for name in header]
        shown = [dict(zip(names, map(str, row), strict=True)) for row in rows]
        click.echo(output(shown, format), nl=False)
    else:
        click.echo(columns(header, rows), nl=False)


def _borrowed(records: Records) -> Iterator[tuple[object, ...]]:
    for record in records.blocks():
        block = record.value
        for ordinal, taken in sorted(live(block).items()):
            owner = taken.attributes
            user = owner.get("node")
            if user is None or user == block.node:
                continue
            pod = f"{owner.get('namespace', 'default')}/{owner['pod']}" if "pod" in owner else None
            address = address_at(block.cidr, ordinal)
            holder = block.node or block.foreign_affinity
            kind = owner.get("type") or "pod"
            yield address, user, block.cidr, holder, kind, pod or taken.handle


def _show_address(found: AddressUsage, format: str | None) -> None:
    if format in ("json", "yaml"):
        click.echo(output(_address_json(found), format), nl=False)
        return
    taken = found.allocation
    if taken is None:
        click.echo(f"{found.address} is not assigned")
        return
    if taken.released_at is None:
        click.echo(f"IP {found.address} is in use")
    else:
        click.echo(f"IP {found.address} rests: it was released at {taken.released_at}")
    click.echo(f"Handle ID: {taken.handle or '<none>'}")
    click.echo("Attributes:" if taken.attributes else "No attributes defined")
    for name, value in sorted(taken.attributes.items()):
        click.echo(f"  {name}: {value}")
    if found.block is not None:
        click.echo(f"Block: {found.block.cidr} of {found.block.holder or 'nobody'}")


def _rows(usage: Usage, show_blocks: bool) -> Iterator[tuple[object, ...]]:
    for pool in usage.pools:
        if pool.pool is not None:
            borrowed = sum(block.borrowed for block in pool.blocks)
            yield ("IP Pool", pool.pool.cidr, *_cells(pool.count, borrowed), pool.pool.name)
        # A block in no pool would never be seen otherwise.
        if show_blocks or pool.pool is None:
            for block in pool.blocks:
                grouping = "Block" if pool.pool is not None else "Block (no pool)"
                yield (grouping, block.cidr, *_cells(block.count, block.borrowed), block.holder)


def _cells(count: Count, borrowed: int) -> tuple[object, ...]:
    return (
        count.total,
        _share(count.in_use, count.total),
        _share(count.reserved, count.total),
        _share(count.free, count.total),
        count.resting,
        borrowed,
    )


def _share(part: int, total: int) -> str:
    return f"{part} ({round(100 * part / total)}%)"


def _usage_json(usage: Usage) -> JSON:
    return {"pools": [_pool_json(pool) for pool in usage.pools]}


def _pool_json(pool: PoolUsage) -> JSON:
    return {
        "name": None if pool.pool is None else pool.pool.name,
        "cidr": None if pool.pool is None else str(pool.pool.cidr),
        **_count_json(pool.count),
        "blocks": [_block_json(block) for block in pool.blocks],
    }


def _block_json(block: BlockUsage) -> JSON:
    return {
        "cidr": str(block.cidr),
        "node": block.holder,
        **_count_json(block.count),
        "borrowed": block.borrowed,
    }


def _count_json(count: Count) -> dict[str, int]:
    return {
        "total": count.total,
        "inUse": count.in_use,
        "resting": count.resting,
        "reserved": count.reserved,
        "free": count.free,
    }


def _address_json(found: AddressUsage) -> JSON:
    taken = found.allocation
    return {
        "ip": str(found.address),
        "inUse": taken is not None and taken.released_at is None,
        "handle": None if taken is None else taken.handle,
        "attributes": {} if taken is None else dict(taken.attributes),
        "sequence": None if taken is None else taken.sequence,
        "releasedAt": None if taken is None else taken.released_at,
        "block": None if found.block is None else str(found.block.cidr),
        "node": None if found.block is None else found.block.holder,
    }
