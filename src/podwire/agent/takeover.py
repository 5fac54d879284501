"""Takeover: pods that Calico attached to this node become ours, and lose no packet by it.

Such a pod has all that a pod of ours has: endpoint, address, veth and route. Only the mark is
missing, the veth's alias. It gets that and nothing else is changed: neither its objects in the
datastore nor its routes, which say what ours would. From then on a DEL, a GC, a CHECK and our own
next start find it as one of ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from podwire.agent.attach import alias_of
from podwire.drivers.netlink.requests import set_link
from podwire.drivers.netlink.session import Session
from podwire.errors import BadInput
from podwire.model import codec, keys
from podwire.model.addressing import block_holding, contains, ordinal_of
from podwire.model.endpoint import KUBERNETES, PLAIN_CNI, AttachmentKey
from podwire.model.link import HOST_MAC

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.agent.world import CNIWorld
    from podwire.boundary import Store
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.link import Link

NO_NETWORK = ""
"""Network of a pod whose handle does not begin with one (before Calico 3); no GC names it."""

log = structlog.get_logger(__name__)


def attachment_of(endpoint: WorkloadEndpoint, handle: str | None) -> AttachmentKey | None:
    """The attachment behind an endpoint that Calico's plugin made; None for other orchestrators.

    The endpoint does not name its network, but its handle does: `<network>.<containerID>`.
    """
    if endpoint.orchestrator not in {KUBERNETES, PLAIN_CNI} or not endpoint.container_id:
        return None
    network, dot, container_id = (handle or "").rpartition(".")
    named = dot and container_id == endpoint.container_id
    return AttachmentKey(
        network=network if named else NO_NETWORK,
        container_id=endpoint.container_id,
        interface=endpoint.endpoint,
    )


def unmarked_link(endpoint: WorkloadEndpoint, links: Iterable[Link]) -> Link | None:
    """The veth that Calico made for the endpoint: its name and MAC, and nobody's alias."""
    for link in links:
        if link.name == endpoint.interface and link.kind == "veth":
            return link if link.mac == HOST_MAC and not link.alias else None
    return None


def foreign_key(world: CNIWorld, endpoint: WorkloadEndpoint) -> AttachmentKey | None:
    """The attachment of an endpoint that is not ours by its own words.

    Raises:
        DatastoreUnavailable: its handle cannot be looked up.
    """
    return attachment_of(endpoint, _handle_of(world.store, endpoint))


def mark(link: Link, key: AttachmentKey, title: str) -> Link:
    """Write our alias on a veth; it carries its pod's traffic on as before.

    Raises:
        KernelError, Forbidden: the kernel refused.
    """
    alias = alias_of(key, title)
    with Session.open() as host:
        host.run(set_link(link.index, alias=alias))
    log.info("pod taken over from Calico", pod=title, interface=link.name)
    return replace(link, alias=alias)


def _handle_of(store: Store, endpoint: WorkloadEndpoint) -> str | None:
    """The handle that has the endpoint's address; None when none is found or readable."""
    addresses = [interface.ip for interface in endpoint.addresses]
    for entry in store.list(keys.POOLS).entries:
        try:
            pool = codec.decode_pool(entry.key, entry.value)
            for address in addresses:
                if not contains(pool.cidr, address):
                    continue
                cidr = block_holding(address, pool.block_size)
                stored = store.get(keys.block_key(cidr))
                if stored is None:
                    continue
                block = codec.decode_block(stored.key, stored.value)
                taken = block.allocations.get(ordinal_of(cidr, address))
                if taken is not None and taken.handle is not None:
                    return taken.handle
        except BadInput as error:
            log.warning("not looked for a handle there", key=entry.key, reason=str(error))
    return None
