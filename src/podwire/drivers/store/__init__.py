"""Datastores behind `boundary.Store`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.drivers.store.cluster import ensure_cluster
from podwire.errors import BadInput

if TYPE_CHECKING:
    from podwire.boundary import Store
    from podwire.model.config import DatastoreConfig, EtcdConfig

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
        case "etcd" if config.etcd is not None:
            return _etcd(config.etcd)
        case "etcd":
            raise BadInput("datastore etcd has no endpoints", fix="name them: `endpoints: [URL]`")
        case _:
            fix = "write `type: sqlite` or `type: etcd`"
            raise BadInput(f"datastore type {config.type!r} is unknown", fix=fix)


def _etcd(config: EtcdConfig) -> Store:
    """Import it only now: gRPC takes 0.1 s and 30 MB."""
    try:
        from podwire.drivers.store.etcd.store import EtcdStore
    except ImportError as error:
        raise BadInput(
            f"datastore etcd needs the Python package {error.name}",
            fix="pip install 'podwire[etcd]'",
        ) from None
    return EtcdStore(config)
