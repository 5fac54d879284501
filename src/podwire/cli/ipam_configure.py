"""`podwire ipam configure`: how addresses are allocated in the whole cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from podwire.cli.context import datastore_option, open_datastore
from podwire.cli.options import gathered
from podwire.errors import BadInput, Conflict, Stale
from podwire.ipam.records import CALICO_DEFAULTS
from podwire.model import codec, keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.boundary import Entry, Store
    from podwire.model.block import IPAMConfig

LONGEST_COOLDOWN_S = 1200
"""Calico's limit."""
TRIES = 5
PERSISTENCE = "kubeVirtVMAddressPersistence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to change; None: leave it."""

    strictaffinity: bool | None
    max_blocks_per_host: int | None
    ip_cooldown_seconds: int | None
    kubevirt_ip_persistence: str | None


@click.command()
@gathered(
    Wish,
    "wish",
    click.option("--strictaffinity", type=bool, help="Nodes use only addresses of their blocks."),
    click.option("--max-blocks-per-host", type=click.IntRange(0, 1_000_000), help="0: 20."),
    click.option(
        "--ip-cooldown-seconds",
        type=click.IntRange(0, LONGEST_COOLDOWN_S),
        help="How long a released address rests.",
    ),
    click.option(
        "--kubevirt-ip-persistence",
        type=click.Choice(["Enabled", "Disabled"], case_sensitive=False),
        help="Kept for Calico; Podwire does not act on it.",
    ),
)
@datastore_option
@click.pass_context
def configure(ctx: click.Context, wish: Wish) -> None:
    """Change how addresses are allocated in the whole cluster; without options show it.

    \b
      podwire ipam configure --strictaffinity=true --max-blocks-per-host=8
      podwire ipam configure --ip-cooldown-seconds=60
    """  # noqa: D301  # click wants the character
    store = open_datastore(ctx)
    changed, config = _change(store, wish)
    if changed:
        click.echo("Successfully changed the IPAM configuration", err=True)
    for name, value in properties(config):
        click.echo(f"{name:<20} {value}")


def _change(store: Store, wish: Wish) -> tuple[bool, IPAMConfig]:
    for _ in range(TRIES):
        entry = store.get(keys.IPAM_CONFIG_KEY)
        before = CALICO_DEFAULTS if entry is None else _decoded(entry)
        after = _configured(before, wish)
        if after == before and after.wire == before.wire:
            return False, before
        try:
            if entry is None:
                store.create(keys.IPAM_CONFIG_KEY, codec.encode(after))
            else:
                store.update(keys.IPAM_CONFIG_KEY, codec.encode(after), entry.revision)
        except Stale:
            continue
        return True, after
    raise Conflict("others keep changing the IPAM configuration", fix="try again")


def _decoded(entry: Entry) -> IPAMConfig:
    return codec.decode_ipam_config(entry.key, entry.value)


def properties(config: IPAMConfig) -> Iterator[tuple[str, object]]:
    """Names and values, as calicoctl shows them."""
    yield "StrictAffinity", str(config.strict_affinity).lower()
    yield "AutoAllocateBlocks", str(config.auto_allocate_blocks).lower()
    yield "MaxBlocksPerHost", config.max_blocks_per_host
    yield "IPCooldownSeconds", config.cooldown_s
    if PERSISTENCE in config.wire:
        yield "KubeVirtVMAddressPersistence", config.wire[PERSISTENCE]


def _configured(before: IPAMConfig, wish: Wish) -> IPAMConfig:
    asked = {
        "strict_affinity": wish.strictaffinity,
        "max_blocks_per_host": wish.max_blocks_per_host,
        "cooldown_s": wish.ip_cooldown_seconds,
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    after = replace(before, **changes)  # type: ignore[arg-type]  # each option has its field's type
    if wish.kubevirt_ip_persistence is not None:
        after = replace(after, wire={**after.wire, PERSISTENCE: wish.kubevirt_ip_persistence})
    if after.max_blocks_per_host and not after.strict_affinity:
        raise BadInput(
            "a block limit needs strict affinity: without it, addresses are borrowed beyond it",
            fix="add --strictaffinity=true, or --max-blocks-per-host=0",
        )
    if not after.strict_affinity and not after.auto_allocate_blocks:
        raise BadInput(
            "without strict affinity blocks have to be claimed automatically",
            fix="add --strictaffinity=true",
        )
    return after
