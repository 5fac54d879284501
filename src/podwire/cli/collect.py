"""`podwire collect`: the network state of this host as one file, to be looked at elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podwire.cli.states import chosen_sources, node_options
from podwire.drivers.bundle import facts_here, pack_bundle, write_bundle
from podwire.model.kernelstate import NOT_READ, Missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podwire.model.kernelstate import KernelState

_MOST_GAPS = 20
"""Lines of what could not be read; the bundle holds them all."""


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    required=True,
    metavar="FILE",
    help="Write the bundle to this file (.tgz); - is standard output.",
)
@node_options
@click.pass_context
def collect(ctx: click.Context, *, path: Path) -> None:
    """Save links, addresses, routes, rules, rule sets … of every network namespace seen here.

    With --node it is other nodes' namespaces, told by plain commands there. Everything is only
    read. `podwire trace --from FILE SRC DST` looks into it, anywhere, without rights. What could
    not be read is said here and kept in the bundle.

    \b
      podwire collect -o node.tgz
    """  # noqa: D301  # click wants the character
    sources = chosen_sources(ctx)
    states = sources.read()
    click.echo(f"read {_counted(states)}", err=True)
    for line in gaps(states):
        click.echo(f"  not read: {line}", err=True)
    facts = facts_here(tuple(sources.nodes))
    if str(path) == "-":
        pack_bundle(sys.stdout.buffer, states, facts)
        return
    write_bundle(path, states, facts)
    click.echo(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)", err=True)


def _counted(states: Sequence[KernelState]) -> str:
    pods = sum(state.namespace.pod is not None for state in states)
    return f"{len(states)} network namespaces, {pods} of them pods"


def gaps(states: Sequence[KernelState]) -> list[str]:
    """What could not be read and why, those of one reason together."""
    found: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str], str] = {}
    for state in states:
        by_reason: dict[str, list[str]] = {}
        for field in fields(state):
            section = getattr(state, field.name)
            if isinstance(section, Missing) and section != NOT_READ:
                by_reason.setdefault(section.reason, []).append(field.name)
        for reason, names in by_reason.items():
            everything = len(names) > 10
            key = ("everything" if everything else ", ".join(names), reason)
            found[key] += 1
            places.setdefault(key, state.namespace.title)
    lines = [
        f"{what} of {places[what, reason]}{f' and {count - 1} more' if count > 1 else ''}: {reason}"
        for (what, reason), count in found.items()
    ]
    if len(lines) > _MOST_GAPS:
        lines[_MOST_GAPS:] = [f"… and {len(lines) - _MOST_GAPS} more, all in the bundle"]
    return lines
