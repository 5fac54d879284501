"""Datastores behind `boundary.Store`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.store.cluster import ensure_cluster
from podwire.errors import BadInput

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.model.config import DatastoreConfig

__all__ = ["ensure_cluster", "open_store"]


def open_store(config: DatastoreConfig, *, create: bool = True) -> Store:
    """The datastore a configuration names; a file is opened by the first call.

    With `create=False` a missing file is an error instead of a new, empty datastore.

    Raises:
        BadInput: there is no such type of datastore.
    """
    match config.type:
        case "sqlite":
            from podwire.drivers.store.sqlite import SQLiteStore

            return SQLiteStore(config.path, create=create)
        case _:
            raise BadInput(f"datastore type {config.type!r} is unknown", fix="write `type: sqlite`")
