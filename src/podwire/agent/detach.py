"""DEL: take away an attachment, in an order that lets nobody inherit anything.

Veth first (its routes and neighbour entries go with it), then the kernel's memory of connections,
then the address: it is free only when nothing carries it any more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from podwire.agent.endpoints import key_of
from podwire.agent.sandbox import find_host_link
from podwire.boundary import Verb, Write
from podwire.drivers.conntrack import delete_entries
from podwire.drivers.netlink.requests import delete_link
from podwire.drivers.netlink.session import Session
from podwire.errors import DatastoreUnavailable, NotThere, PodwireError, Stale
from podwire.model import codec, keys
from podwire.model.endpoint import (
    KUBERNETES,
    PLAIN_CNI,
    endpoint_name,
    host_interface_of_attachment,
    host_interface_of_pod,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.agent.world import CNIWorld
    from podwire.model.addressing import IPAddress
    from podwire.model.cni import Pod
    from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
    from podwire.model.resource import Wire

TRIES = 5
"""Of writes that somebody else's write made stale."""

log = structlog.get_logger(__name__)


def detach(world: CNIWorld, key: AttachmentKey, pod: Pod | None = None) -> None:
    """Make the attachment absent; absent is success.

    `pod` helps to find an endpoint that this agent does not know.

    Raises:
        DatastoreUnavailable: the kernel is clean, the datastore is away or frozen.
        KernelError, Forbidden: the kernel refused.
    """
    key = world.endpoints.resolve(key)
    local = world.endpoints.get(key)
    likely = host_name(key, pod) if local is None else local.endpoint.interface
    stored = codec.key_of(local.endpoint) if local else world.owed.get(key)
    stored = stored or stored_key(world, key, pod)
    world.owed[key] = stored
    world.endpoints.remove(key)
    delete_host_link(key, likely)
    known = () if local is None else tuple(a.ip for a in local.endpoint.addresses)
    forget_connections(known)
    world.refuse_when_frozen()
    released = release(world, key, stored)
    world.owed.pop(key, None)
    forget_connections(address for address in released if address not in known)


def host_name(key: AttachmentKey, pod: Pod | None) -> str:
    """The host interface an attachment most likely has."""
    if pod is None:
        return host_interface_of_attachment(key)
    return host_interface_of_pod(pod.namespace, pod.name)


def stored_key(world: CNIWorld, key: AttachmentKey, pod: Pod | None) -> str:
    """Where the endpoint of an unknown attachment would be in the datastore."""
    if pod is None:
        name = endpoint_name(world.node, PLAIN_CNI, key.container_id, key.interface)
        return keys.endpoint_key("default", name)
    name = endpoint_name(world.node, KUBERNETES, pod.name, key.interface)
    return keys.endpoint_key(pod.namespace, name)


def delete_host_link(key: AttachmentKey, likely: str) -> None:
    """Delete the host side that carries the attachment's alias; the pod's side goes with it."""
    with Session.open() as host:
        link = find_host_link(host, key.container_id, key.interface, likely)
        if link is not None:
            with suppress(NotThere):
                host.run(delete_link(link.index))


def forget_connections(addresses: Iterable[IPAddress]) -> None:
    """Delete conntrack entries; a kernel that refuses is no reason to keep a dead pod."""
    try:
        delete_entries(addresses)
    except (PodwireError, OSError) as error:
        log.warning("conntrack entries kept", reason=str(error))


def release(
    world: CNIWorld, key: AttachmentKey, stored: str, restore: Wire | None = None
) -> tuple[IPAddress, ...]:
    """Release the handle and delete the endpoint, or give it back its older value.

    The endpoint of a newer container of the same pod stays, and so does a handle that another
    interface of this container still uses.

    Raises:
        DatastoreUnavailable: nothing was written.
    """
    for number in range(TRIES):
        found = world.stored_endpoint(stored)
        writes = []
        handle = key.handle
        if found is not None and found[0].container_id == key.container_id:
            handle = handle_of(world, key, found[0])
            if restore is None:
                writes = [Write(verb=Verb.DELETE, key=stored, revision=found[2])]
            else:
                writes = [Write(verb=Verb.UPDATE, key=stored, value=restore, revision=found[2])]
        shared = any(
            (other.network, other.container_id) == (key.network, key.container_id)
            for other in world.endpoints.all()
            if other != key
        )
        if shared:
            return ()
        try:
            return world.ipam.release_handle(handle, writes)
        except Stale:
            if number == TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def handle_of(world: CNIWorld, key: AttachmentKey, endpoint: WorkloadEndpoint) -> str:
    """The handle under which the addresses of an endpoint that is going are released.

    Before Calico 3 it was the container's ID alone, or `<namespace>.<pod>`.

    Raises:
        DatastoreUnavailable: away.
    """
    if key_of(endpoint) is not None:
        return key.handle
    pod = f"{endpoint.metadata.namespace}.{endpoint.pod}"
    for handle in (key.handle, endpoint.container_id, pod if endpoint.pod else ""):
        if handle and world.store.get(keys.handle_key(handle)) is not None:
            return handle
    return key.handle


def withdraw(world: CNIWorld, key: AttachmentKey, stored: str, restore: Wire | None = None) -> None:
    """Give an address back after an ADD that failed; what cannot be done now goes to the spool."""
    try:
        release(world, key, stored, restore)
    except (DatastoreUnavailable, Stale) as error:
        world.owed[key] = stored
        log.warning("address not given back yet", container=key.container_id, reason=str(error))
        try:
            world.spool.keep(key)
        except OSError as refused:
            log.error("spool cannot be written", reason=str(refused))  # noqa: TRY400
