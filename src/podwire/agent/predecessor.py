"""An older container of the same pod, whose DEL is late: what the new one takes over from it.

The kubelet may send the ADD of a pod's new sandbox before the DEL of its old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from podwire.agent import sandbox
from podwire.agent.check import orphan
from podwire.agent.detach import detach
from podwire.drivers.netlink.session import Session
from podwire.model.endpoint import AttachmentKey, host_interface_of_attachment

if TYPE_CHECKING:
    from contextlib import ExitStack

    from podwire.agent.world import CNIWorld
    from podwire.model.block import Allocation
    from podwire.model.cni import Request
    from podwire.model.endpoint import WorkloadEndpoint

log = structlog.get_logger(__name__)


def free_address(world: CNIWorld, request: Request) -> None:
    """Take the address asked for back from an older container of the same pod on this node.

    A pod with an address of its own cannot wait for that DEL, and two veths cannot carry one
    address: the old container loses its network now. Whoever else has the address keeps it, and
    the ADD is refused when it asks for it.
    """
    address = request.demand.address
    holder = None if address is None or request.pod is None else world.ipam.holder(address)
    if holder is None or not is_predecessor(holder, world.node, request):
        return
    key = next((key for key in world.endpoints.all() if key.handle == holder.handle), None)
    if key is None:
        with Session.open() as host:
            links = tuple(host.links().values())
        container_id = str(holder.handle).removeprefix(f"{request.key.network}.")
        key = orphan(request.key.network, container_id, links)
    log.info("address taken back", address=str(address), container=key.container_id)
    detach(world, key, request.pod)


def is_predecessor(holder: Allocation, node: str, request: Request) -> bool:
    """Whether an allocation is of another container of the very same pod, here and in its network.

    The pod's own second interface is none: it has the same container ID.
    """
    told, pod = holder.attributes, request.pod
    return (
        pod is not None
        and (told.get("node"), told.get("namespace"), told.get("pod"))
        == (node, pod.namespace, pod.name)
        and str(holder.handle).startswith(f"{request.key.network}.")
        and holder.handle != request.key.handle
    )


def displace(
    world: CNIWorld, key: AttachmentKey, endpoint: WorkloadEndpoint, undo: ExitStack
) -> None:
    """Take the host name over from an older container of the same pod.

    Its veth goes on under another name until its own DEL, which finds it by its alias.

    Raises:
        InterfaceExists: the name belongs to something that is not an older container's veth.
    """
    for old in world.endpoints.all().values():
        if old.key != key and old.endpoint.interface == endpoint.interface:
            set_aside(old.key, endpoint.interface, undo)
            undo.callback(world.endpoints.put, old)
            world.endpoints.remove(old.key)


def set_aside(key: AttachmentKey, name: str, undo: ExitStack) -> None:
    """Rename a displaced container's host side, if it is still there under that name."""
    with Session.open() as host:
        link = sandbox.find_host_link(host, key.container_id, key.interface, name)
    if link is not None and link.name == name:
        undo.callback(sandbox.rename, link.index, name)
        sandbox.rename(link.index, host_interface_of_attachment(key))
