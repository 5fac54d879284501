"""CHECK and GC: look, and sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from podwire.agent.compare import differences
from podwire.agent.detach import handle_of
from podwire.agent.sandbox import Pod
from podwire.errors import BadInput, PodwireError
from podwire.model import codec, keys
from podwire.model.addressing import address_at, contains, ordinal_of
from podwire.model.cni import CallRefused, Code
from podwire.model.endpoint import AttachmentKey, parse_link_alias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from podwire.agent.endpoints import LocalEndpoint
    from podwire.agent.world import CNIWorld
    from podwire.model.block import Block
    from podwire.model.cni import Request
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.link import Link
    from podwire.model.resource import JSON, Wire

log = structlog.get_logger(__name__)


# --- CHECK ----------------------------------------------------------------------------------------


def check(world: CNIWorld, request: Request, netns: int) -> None:
    """Compare the attachment with what its ADD made; repair nothing.

    Raises:
        CallRefused: code 103 with all differences.
        DatastoreUnavailable: the allocation cannot be looked up.
    """
    local = world.endpoints.get(world.endpoints.resolve(request.key))
    title = f"{request.interface} of container {request.container_id}"
    if local is None:
        raise CallRefused(
            Code.DIFFERENCE, f"{title} is not attached here", fix="send DEL, then ADD again"
        )
    pod = Pod(netns)
    try:
        inside = pod.look(request.interface)
        told = inside_of_result(request)
        mtu = told.get("mtu")
        found = [
            *of_result(request, local.endpoint),
            *differences(local.endpoint, pod, inside, mtu if isinstance(mtu, int) else None),
            *of_allocation(world, local),
        ]
    finally:
        pod.close()
    if found:
        raise CallRefused(
            Code.DIFFERENCE, f"{title}: {'; '.join(found)}", fix="send DEL, then ADD again"
        )


def inside_of_result(request: Request) -> Wire:
    """The pod's interface in prevResult; empty when it is not there."""
    for item in (request.config.previous or {}).get("interfaces") or ():
        if item.get("name") == request.interface and item.get("sandbox"):
            told: Wire = item
            return told
    return {}


def of_result(request: Request, endpoint: WorkloadEndpoint) -> Iterator[str]:
    """Where prevResult says something else of our interface than the endpoint."""
    previous = request.config.previous or {}
    told = inside_of_result(request)
    if not told:
        yield f"prevResult has no interface {request.interface}"
        return
    mac = told.get("mac")
    if isinstance(mac, str) and mac.lower() != endpoint.mac.lower():
        yield f"prevResult has MAC {mac}, the endpoint {endpoint.mac}"
    place = list(previous["interfaces"]).index(told)
    listed = {item.get("address") for item in previous.get("ips") or () if is_at(item, place)}
    for address in endpoint.addresses:
        if str(address) not in listed:
            yield f"prevResult lacks address {address} of {request.interface}"


def is_at(item: Wire, place: int) -> bool:
    """Whether an address of a result belongs to the interface at that place of its list."""
    index: JSON = item.get("interface")
    return index == place and not isinstance(index, bool)


def of_allocation(world: CNIWorld, local: LocalEndpoint) -> Iterator[str]:
    """Addresses of the endpoint that are not allocated to the attachment's handle."""
    endpoint = local.endpoint
    handle = handle_of(world, local.key, endpoint)
    place = keys.handle_key(handle)
    entry = world.store.get(place)
    held = () if entry is None else tuple(codec.decode_handle(place, entry.value).blocks)
    blocks = [block for cidr in held if (block := stored_block(world, cidr)) is not None]
    for address in endpoint.addresses:
        owners = [
            allocation.handle
            for block in blocks
            if contains(block.cidr, address.ip)
            and (allocation := block.allocations.get(ordinal_of(block.cidr, address.ip)))
        ]
        if owners != [handle]:
            yield f"{address.ip} is not allocated to handle {handle}"


def stored_block(world: CNIWorld, cidr: JSON) -> Block | None:
    """A block as the datastore has it now."""
    key = keys.block_key(cidr)
    entry = world.store.get(key)
    return None if entry is None else codec.decode_block(key, entry.value)


# --- GC -------------------------------------------------------------------------------------------


def stale_attachments(
    world: CNIWorld, request: Request, links: Collection[Link], busy: Collection[AttachmentKey]
) -> tuple[AttachmentKey, ...]:
    """This node's attachments of the network that are neither valid nor being worked on.

    Besides endpoints these are addresses of ours without an endpoint: what a crash between two
    writes leaves in a datastore without batches.
    """
    valid = request.config.valid or frozenset()
    found = {
        key: None
        for key in world.endpoints.all()
        if key.network == request.config.name and (key.container_id, key.interface) not in valid
    }
    live = {key.handle for key in (*world.endpoints.all(), *busy)}
    containers = {container for container, _ in valid}
    for handle in orphaned_handles(world, live):
        container_id = handle.removeprefix(f"{request.config.name}.")
        if container_id != handle and container_id not in containers:
            found[orphan(request.config.name, container_id, links)] = None
    return tuple(key for key in found if key not in busy)


def orphaned_handles(world: CNIWorld, live: Collection[str]) -> Iterator[str]:
    """Handles of pod addresses assigned by this node for which there is no endpoint.

    None at all while an endpoint cannot be read: the address could be that one's.
    """
    try:
        stored = {
            address.ip
            for entry in world.store.list(keys.ENDPOINTS).entries
            for address in codec.decode_endpoint(entry.key, entry.value).addresses
        }
    except BadInput as error:
        log.warning("addresses without endpoint not looked for", reason=str(error))
        return
    for cidr in world.ipam.blocks():
        block = stored_block(world, cidr)
        for ordinal, allocation in () if block is None else block.allocations.items():
            attributes = allocation.attributes
            # Tunnel addresses have a type instead of a pod; resting ones are free already.
            if (
                allocation.handle is not None
                and allocation.handle not in live
                and allocation.released_at is None
                and attributes.get("node") == world.node
                and attributes.get("pod")
                and address_at(cidr, ordinal) not in stored
            ):
                yield allocation.handle


def orphan(network: str, container_id: str, links: Collection[Link]) -> AttachmentKey:
    """The attachment of a handle; a veth that is left tells its interface name."""
    for link in links:
        owner = parse_link_alias(link.alias)
        if owner is not None and owner.container_id == container_id:
            return AttachmentKey(
                network=network, container_id=container_id, interface=owner.interface
            )
    return AttachmentKey(network=network, container_id=container_id, interface="eth0")


def collect(stale: Collection[AttachmentKey], detach: Callable[[AttachmentKey], None]) -> None:
    """Detach all; one that fails stops no other.

    Raises:
        PodwireError: the last failure.
    """
    failure: PodwireError | None = None
    for key in stale:
        try:
            detach(key)
        except PodwireError as error:
            failure = error
    if failure is not None:
        raise failure
