"""The two names of a policy in tier default: until Calico 3.31 it is stored as `default.NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.model.kept import POLICIES

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.cli.kind import Kind

PREFIX = "default."


def stored_name(store: Store, kind: Kind, namespace: str, name: str) -> str:
    """The name under which something is stored that people, and calicoctl, call `name`.

    Both stand beside each other in clusters that were upgraded; the exact name comes first.
    """
    if kind.name not in POLICIES or "." in name:
        return name
    if store.get(kind.key(namespace, name)) is not None:
        return name
    prefixed = f"{PREFIX}{name}"
    return name if store.get(kind.key(namespace, prefixed)) is None else prefixed
