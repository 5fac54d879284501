"""After a start: which of this node's endpoints does the kernel really carry?

An endpoint is kept when its namespace, its veth and its address are there; one that Calico made is
then taken over (takeover.py). What a crash left half-made is taken back together: block, handle
and endpoint. The runtime has seen no result for it and sends DEL, which then finds nothing to do.
Only on the node itself: elsewhere nothing of it can be found, and all of it would look half-made.
What is not taken back here is left to the search for leaks with its grace period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from podwire.agent import takeover
from podwire.agent.check import orphan, orphaned_handles
from podwire.agent.detach import delete_host_link, detach, forget_connections, release
from podwire.agent.endpoints import LocalEndpoint, key_of
from podwire.agent.home import is_at_home, node_address
from podwire.agent.sandbox import Pod, delete_link_if_there
from podwire.agent.survivors import survivors
from podwire.drivers import namespaces
from podwire.drivers.netlink.session import Session
from podwire.errors import BadInput, PodwireError
from podwire.model import codec, keys
from podwire.model.endpoint import parse_link_alias
from podwire.model.link import HOST_MAC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from podwire.agent.world import CNIWorld
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.link import Link

log = structlog.get_logger(__name__)


def recover(world: CNIWorld) -> tuple[LocalEndpoint, ...]:
    """Fill the registry from datastore and kernel, take half-made things back, empty the spool.

    Returns pods that live here and that the datastore does not know (survivors.py): to be written
    back.

    Raises:
        DatastoreUnavailable: away; nothing was taken back.
    """
    with Session.open() as host:
        links = tuple(host.links().values())
        numbers = host.namespace_ids()
        neighbours = host.neighbours()
        at_home = is_provably_home(world, host)
    by_owner = {
        (owner.container_id, owner.interface): link
        for link in links
        if (owner := parse_link_alias(link.alias)) is not None
    }
    paths = namespaces.paths()
    half_made: list[LocalEndpoint] = []
    for endpoint in stored_endpoints(world):
        ours = key_of(endpoint)
        key = ours or takeover.foreign_key(world, endpoint)
        if key is None:
            continue  # not of a pod
        local = LocalEndpoint(key=key, endpoint=endpoint)
        link = by_owner.get((key.container_id, key.interface))
        if link is None and ours is None:
            link = takeover.unmarked_link(endpoint, links)
        if link is not None and is_complete(endpoint, link, numbers, paths):
            if not link.alias:
                takeover.mark(link, key, endpoint.title)
            world.endpoints.put(local)
        elif ours is not None:
            half_made.append(local)
    if half_made and not at_home:
        log.warning("half-made endpoints kept: this host lacks the node's address")
    for local in half_made if at_home else ():
        take_back(world, local, links)
    unexplained = take_back_orphans(world, links, at_home=at_home)
    found = []
    for survivor, link in survivors(world, unexplained, neighbours):
        if is_complete(survivor.endpoint, link, numbers, paths):
            log.warning("pod unknown to the datastore kept", pod=survivor.endpoint.title)
            world.endpoints.put(survivor)
            found.append(survivor)
            unexplained.remove(link)
    for link in unexplained if at_home else ():
        log.info("veth without endpoint deleted", interface=link.name)
        delete_link_if_there(link.index)
    world.spool.drain(lambda key: detach(world, key))
    return tuple(found)


def is_provably_home(world: CNIWorld, host: Session) -> bool:
    """Whether what is not found here is nowhere."""
    try:
        return is_at_home(host, node_address(world.store, world.node))
    except BadInput:  # the Node cannot be read; the loop says so
        return False


def stored_endpoints(world: CNIWorld) -> Iterator[WorkloadEndpoint]:
    """This node's endpoints in the datastore; one that cannot be read is left alone."""
    for entry in world.store.list(keys.ENDPOINTS).entries:
        try:
            endpoint = codec.decode_endpoint(entry.key, entry.value)
        except BadInput as error:
            log.warning("endpoint cannot be read", key=entry.key, reason=str(error))
            continue
        if endpoint.node == world.node:
            yield endpoint


def is_complete(
    endpoint: WorkloadEndpoint,
    link: Link,
    numbers: Mapping[int, int],
    paths: Mapping[int, Path | str],
) -> bool:
    """Whether the pod's side carries the endpoint's address.

    A namespace we cannot look into counts as complete: its veth lives, so it does, and cutting a
    live pod off would be worse than keeping a half-made one until its DEL.
    """
    inode = None if link.peer_netnsid is None else numbers.get(link.peer_netnsid)
    path = None if inode is None else paths.get(inode)
    if path is None:
        return True
    try:
        with namespaces.opened(path) as descriptor:
            pod = Pod(descriptor)
            try:
                inside = pod.look(endpoint.endpoint)
            finally:
                pod.close()
    except (PodwireError, OSError):
        return True
    return inside is not None and set(endpoint.addresses) <= set(inside.addresses)


def take_back(world: CNIWorld, local: LocalEndpoint, links: tuple[Link, ...]) -> None:
    """Remove what is there of a half-made attachment."""
    endpoint = local.endpoint
    log.info("half-made endpoint taken back", endpoint=endpoint.title, interface=endpoint.interface)
    delete_host_link(local.key, endpoint.interface)
    for link in links:
        # A veth gets its alias one message after its name; a crash between them leaves it bare.
        bare = link.kind == "veth" and link.mac == HOST_MAC and not link.alias
        if bare and link.name == endpoint.interface:
            delete_link_if_there(link.index)
    forget_connections(address.ip for address in endpoint.addresses)
    release(world, local.key, codec.key_of(endpoint))


def take_back_orphans(world: CNIWorld, links: tuple[Link, ...], *, at_home: bool) -> list[Link]:
    """Release addresses without endpoint; the veths of ours that have neither.

    A displaced container's veth keeps its address, and so stays until its own DEL. Where a store
    writes address and endpoint at once, no crash of ours leaves one without the other: such an
    address is somebody else's (a stopped virtual machine's, one that Calico leaked).
    """
    live = {key.handle for key in world.endpoints.all()}
    carried = {owner.container_id for link in links if (owner := parse_link_alias(link.alias))}
    kept = {key.container_id for key in world.endpoints.all()}
    for handle in tuple(orphaned_handles(world, live)):
        container_id = next((c for c in carried if handle.endswith(f".{c}")), None)
        if container_id is not None:
            kept.add(container_id)
            continue
        if world.store.can_batch or not at_home:
            continue
        network, _, container_id = handle.rpartition(".")
        log.info("address without endpoint released", handle=handle)
        forget_connections(release(world, orphan(network, container_id, ()), ""))
    return [
        link
        for link in links
        if (owner := parse_link_alias(link.alias)) is not None and owner.container_id not in kept
    ]
