"""What the shell may complete: kinds, and names out of the datastore.

It has to be quick, and silent whatever happens: nobody wants an error for pressing a key.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from podwire.cli.context import open_datastore
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

PATIENCE_S = 1.0
"""How long a key may seem dead."""


def complete_kind(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Kinds by their one long name; by alias where no name begins so."""
    from podwire.cli.kinds import KINDS, kind_words

    word = incomplete.lower()
    names = [name for kind in KINDS if (name := kind.name.lower()).startswith(word)]
    return names or [alias for alias in kind_words() if alias.startswith(word)]


def complete_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Resources of the kind that was written."""
    from podwire.cli.kinds import find_kind

    def find() -> list[str]:
        kind = find_kind(str(ctx.params.get("kind")))
        namespace = str(ctx.params.get("namespace") or "default")
        narrow = kind.namespaced and not ctx.params.get("everywhere")
        prefix = f"{kind.key(namespace, 'x').rpartition('/')[0]}/" if narrow else kind.prefix
        entries = open_datastore(ctx).list(prefix).entries
        return [
            kind.wire(entry)["metadata"]["name"]
            for entry in entries
            if kind.owns is None or kind.owns(entry.key)
        ]

    given = ctx.params.get("names") or ()
    return [name for name in _beginning(incomplete, find) if name not in given]


def complete_namespace(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Namespaces that have pods."""
    from podwire.model import keys

    def find() -> list[str]:
        entries = open_datastore(ctx).list(keys.ENDPOINTS).entries
        return [found[0] for e in entries if (found := keys.parse_endpoint_key(e.key))]

    return _beginning(incomplete, find)


def complete_node(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Nodes of the cluster."""
    from podwire.model import keys

    def find() -> list[str]:
        entries = open_datastore(ctx).list(keys.NODES).entries
        return [name for e in entries if (name := keys.parse_node_key(e.key))]

    return _beginning(incomplete, find)


def complete_pool(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """IPPools by name."""
    from podwire.model import keys

    def find() -> list[str]:
        entries = open_datastore(ctx).list(keys.POOLS).entries
        return [name for e in entries if (name := keys.parse_pool_key(e.key))]

    return _beginning(incomplete, find)


def complete_lab(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Labs that run here."""

    def find() -> list[str]:
        from podwire.lab.registry import list_labs

        return [name for name, _ in list_labs()]

    return _beginning(incomplete, find)


def complete_fault(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Faults of the lab."""

    def find() -> list[str]:
        from podwire.lab.fault_catalogue import FAULTS

        return [fault.name for fault in FAULTS]

    return _beginning(incomplete, find)


def _beginning(incomplete: str, find: Callable[[], Iterable[str]]) -> list[str]:
    """What is found in time and begins as was written."""
    found: set[str] = set()

    def look() -> None:
        with suppress(PodwireError, OSError):
            found.update(find())

    # A datastore that is away would keep the shell waiting; the thread dies with the process.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return [] if thread.is_alive() else sorted(n for n in found if n.startswith(incomplete))
