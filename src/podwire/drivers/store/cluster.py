"""The two objects every datastore starts with."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from podwire.errors import AlreadyExists, DatastoreUnavailable
from podwire.model import keys
from podwire.model.block import IPAMConfig
from podwire.model.codec import decode_cluster, encode
from podwire.model.node import ClusterInformation, Routing
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from podwire.boundary import Store


def ensure_cluster(store: Store, *, routing: Routing = Routing.AGENT) -> ClusterInformation:
    """Return the cluster's information; make it and the IPAM configuration where they are absent.

    `routing` counts only at creation. Any number of agents may call this at once.

    Raises:
        DatastoreUnavailable: the store is away, or its objects vanish while we look.
    """
    for _ in range(3):
        entry = store.get(keys.cluster_key())
        if entry is not None:
            return decode_cluster(entry.key, entry.value)
        # The configuration first: whoever finds the cluster ready finds it too. An absent one would
        # mean Calico's defaults, borrowing allowed; new datastores of ours start strict.
        with suppress(AlreadyExists):
            store.create(keys.IPAM_CONFIG_KEY, encode(IPAMConfig(strict_affinity=True)))
        with suppress(AlreadyExists):
            store.create(keys.cluster_key(), encode(_new_cluster(routing)))
    raise DatastoreUnavailable("datastore: the cluster's information vanishes as it is made")


def _new_cluster(routing: Routing) -> ClusterInformation:
    # No calicoVersion: a calicoctl refuses to work in a cluster of another version than its own.
    return ClusterInformation(
        metadata=Metadata(name="default").born(uuid.uuid4(), datetime.now(UTC)),
        guid=uuid.uuid4().hex,
        routing=routing,
    )
