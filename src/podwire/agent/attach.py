"""ADD: an address, an endpoint in the datastore, a veth in the kernel, or nothing at all.

The datastore comes first: after a crash at any line the endpoint names what may be half-made, and
the restarted agent completes the picture or takes all of it back (recover.py).
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from podwire.agent import sandbox
from podwire.agent.compare import differences
from podwire.agent.detach import detach, withdraw
from podwire.agent.endpoints import MTU_ANNOTATION, NETWORK_ANNOTATION, LocalEndpoint
from podwire.agent.predecessor import displace, free_address
from podwire.boundary import Verb, Write
from podwire.drivers import namespaces
from podwire.drivers.netlink.session import Session
from podwire.errors import InterfaceExists, PodwireError, Transient
from podwire.ipam.leaks import BOOT_ATTRIBUTE, BOOT_DIGITS
from podwire.ipam.service import AssignRequest
from podwire.model import codec
from podwire.model.cni import CallRefused, Code, Result
from podwire.model.endpoint import (
    KUBERNETES,
    PLAIN_CNI,
    WorkloadEndpoint,
    endpoint_name,
    host_interface_of_attachment,
    host_interface_of_pod,
    link_alias,
)
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.agent.world import CNIWorld
    from podwire.boundary import Clock
    from podwire.ipam.service import Assigned
    from podwire.model.addressing import IPAddress
    from podwire.model.cni import Request
    from podwire.model.endpoint import AttachmentKey

DYING_S = 1.0
"""How long a namespace without a name may take to die, in seconds."""
ALIAS_LIMIT = 255
"""Bytes of an interface alias (IFALIASZ - 1)."""
DEFAULT_NAMESPACE = "default"
"""Namespace of endpoints without Kubernetes, as Calico has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What an ADD has come to."""

    result: Result
    undo: ExitStack
    """Takes it all back, for a caller that never saw the result; empty when it was there before."""
    fresh: bool
    """Made just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Open doors into the two namespaces a veth joins; one thread's."""

    host: Session
    pod: sandbox.Pod


def attach(world: CNIWorld, request: Request, netns: int, gone: Callable[[], bool]) -> Attached:
    """Carry out an ADD; any failure leaves nothing behind.

    Args:
        world: the agent's doors.
        request: the checked call.
        netns: descriptor of the pod's network namespace.
        gone: whether the caller has left.

    Raises:
        PodwireError: with the code of `model.cni.code_of`.
    """
    world.refuse_when_held()
    refuse_bad_namespace(request, netns)
    world.refuse_when_frozen()
    # A DEL of this very attachment that is still waiting comes first, or it would end the new one.
    world.spool.drain(lambda key: detach(world, key), only=request.key)
    with ExitStack() as doors, ExitStack() as undo:
        host = doors.enter_context(Session.open())
        pod = sandbox.Pod(netns, request.interface, forwarding=request.demand.forwarding)
        doors.callback(pod.close)
        if pod.is_taken:
            return adopt(world, request, pod)
        undo.callback(pod.restore)
        if request.key in world.endpoints.all():
            refuse_when_alive(request, host, world.clock)
            detach(world, request.key)  # of a namespace that has gone
        refuse_second_interface(world, request.key)
        refuse_when_gone(request, gone)
        # One wait for the disk, and not while others wait for their address: nobody has to know
        # that this one will outlive a power failure before the runtime is told.
        with world.store.together():
            result = make(world, request, Rooms(host=host, pod=pod), undo)
        refuse_when_gone(request, gone)
        return Attached(result=result, undo=undo.pop_all(), fresh=True)


def refuse_bad_namespace(request: Request, netns: int) -> None:
    """Raise unless the descriptor is a network namespace other than our own.

    Raises:
        CallRefused: code 4.
    """
    if not namespaces.is_network_namespace(netns):
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_NETNS {request.netns!r} is not a network namespace",
            fix="pass the path of a network namespace, such as /run/netns/NAME",
        )
    own = namespaces.current_namespace()
    try:
        if os.path.samestat(os.fstat(own), os.fstat(netns)):
            raise CallRefused(
                Code.ENVIRONMENT,
                f"CNI_NETNS {request.netns!r} is the node's own network namespace",
                fix="pods of the host network have no CNI attachment",
            )
    finally:
        os.close(own)


def refuse_when_alive(request: Request, host: Session, clock: Clock) -> None:
    """Raise when the container's interface is at work in another namespace than the one given.

    A namespace whose name was deleted a moment ago lives until the kernel has dropped the mount,
    which it does by and by (fs/namespace.c: mntput): only what outlives that is at work.

    Raises:
        InterfaceExists: it stays untouched.
    """
    key = request.key
    deadline = clock.monotonic() + DYING_S
    while True:
        link = sandbox.find_host_link(host, key.container_id, key.interface, "")
        # The other end has no number once its namespace is being torn down.
        if link is None or link.peer_netnsid is None or link.peer_netnsid < 0:
            return
        if clock.monotonic() > deadline:
            break
        clock.sleep(0.005)
    raise InterfaceExists(
        f"container {key.container_id} has {key.interface} in another network namespace "
        f"than {request.netns}",
        fix="send DEL, then ADD again",
    )


def refuse_second_interface(world: CNIWorld, key: AttachmentKey) -> None:
    """Raise when the container has another interface in this network: both would share a handle.

    Raises:
        CallRefused: code 7.
    """
    for other in world.endpoints.all():
        if (other.network, other.container_id) == (key.network, key.container_id):
            raise CallRefused(
                Code.CONFIG,
                f"container {key.container_id} has {other.interface} in network {key.network}",
                fix=f"attach {key.interface} through a network of another name",
            )


def adopt(world: CNIWorld, request: Request, pod: sandbox.Pod) -> Attached:
    """The interface is there: the same result again if it is this attachment, whole and sound.

    Raises:
        InterfaceExists: it is something else, which stays untouched.
    """
    local = world.endpoints.get(request.key)
    told = f"{request.interface} exists in {request.netns}"
    if local is None:
        raise InterfaceExists(
            f"interface {told} and is not of this attachment",
            fix="delete the interface, or use another CNI_IFNAME",
        )
    inside = pod.look(request.interface)
    found = differences(local.endpoint, pod, inside)
    if found or inside is None:
        raise InterfaceExists(
            f"interface {told}, but differs from what was attached: {'; '.join(found)}",
            fix="send DEL, then ADD again",
        )
    result = result_of(request, local.endpoint, mtu=inside.link.mtu)
    return Attached(result=result, undo=ExitStack(), fresh=False)


def make(world: CNIWorld, request: Request, rooms: Rooms, undo: ExitStack) -> Result:
    """Assign, write down, build; `undo` takes all of it back."""
    wanted = new_endpoint(world, request)
    free_address(world, request)
    assigned, endpoint = take_address(world, request, wanted, rooms.host, undo)
    displace(world, request.key, endpoint, undo)
    # Known before its route exists: the loop deletes routes of ours that nobody asked for.
    undo.callback(world.endpoints.remove, request.key)
    world.endpoints.put(LocalEndpoint(key=request.key, endpoint=endpoint))
    veth = sandbox.Veth(
        host=endpoint.interface,
        inside=request.interface,
        mac=endpoint.mac,
        mtu=request.demand.mtu or world.mtu(),
        alias=alias_of(request.key, endpoint.title),
        addresses=endpoint.addresses,
        spoofs=bool(endpoint.allowed_source_prefixes) and world.may_spoof(),
    )
    world.admit(endpoint)
    sandbox.build(veth, rooms.pod, rooms.host, undo, world.clock)
    world.wait_applied(assigned.address if assigned.borrowed else assigned.block)
    return result_of(request, endpoint, mtu=veth.mtu)


def refuse_when_gone(request: Request, gone: Callable[[], bool]) -> None:
    """Raise when nobody waits for the result any more.

    Raises:
        Transient: the caller has left.
    """
    if gone():
        raise Transient(f"the plugin left before container {request.container_id} was attached")


def new_endpoint(world: CNIWorld, request: Request) -> WorkloadEndpoint:
    """The endpoint of a new attachment, still without its address."""
    pod = request.pod
    namespace = DEFAULT_NAMESPACE if pod is None else pod.namespace
    orchestrator = PLAIN_CNI if pod is None else KUBERNETES
    workload = request.container_id if pod is None else pod.name
    annotations = {NETWORK_ANNOTATION: request.config.name}
    if request.demand.mtu is not None:
        annotations[MTU_ANNOTATION] = str(request.demand.mtu)
    return WorkloadEndpoint(
        metadata=Metadata(
            name=endpoint_name(world.node, orchestrator, workload, request.interface),
            namespace=namespace,
            labels=labels_of(namespace, orchestrator),
            annotations=annotations,
        ).born(uuid.uuid4(), world.clock.now()),
        orchestrator=orchestrator,
        node=world.node,
        container_id=request.container_id,
        pod="" if pod is None else pod.name,
        endpoint=request.interface,
        interface=host_interface(world, request),
        mac=request.demand.mac or random_mac(),
        addresses=(),
        profiles=(profile_of(None if pod is None else namespace, request.config.name),),
        allowed_source_prefixes=request.demand.sources,
    )


def labels_of(namespace: str, orchestrator: str) -> dict[str, str]:
    """Labels of every endpoint, by which policies select."""
    return {
        "projectcalico.org/namespace": namespace,
        "projectcalico.org/orchestrator": orchestrator,
    }


def profile_of(namespace: str | None, network: str) -> str:
    """Profile of a pod of that namespace; without Kubernetes (None) its network's."""
    return network if namespace is None else f"kns.{namespace}"


def renewed(endpoint: WorkloadEndpoint, before: WorkloadEndpoint) -> WorkloadEndpoint:
    """The endpoint of a pod's newer container: one object, for as long as the pod lives.

    What others know of the pod stays: its labels and profiles decide which policies count for it.
    """
    old, new = before.metadata, endpoint.metadata
    metadata = replace(
        new,
        uid=old.uid,
        created=old.created,
        labels={**old.labels, **new.labels},
        annotations={**old.annotations, **new.annotations},
    )
    profiles = dict.fromkeys((*before.profiles, *endpoint.profiles))
    return replace(endpoint, metadata=metadata, profiles=tuple(profiles))


def host_interface(world: CNIWorld, request: Request) -> str:
    """The pod's name by which Calico finds it; for a pod's second network the attachment's own."""
    if request.pod is None:
        return host_interface_of_attachment(request.key)
    name = host_interface_of_pod(request.pod.namespace, request.pod.name)
    taken = any(
        local.endpoint.interface == name and key.container_id == request.container_id
        for key, local in world.endpoints.all().items()
    )
    return host_interface_of_attachment(request.key) if taken else name


def random_mac() -> str:
    """A random MAC with the bit for "locally administered" and without the one for groups."""
    first, *rest = os.urandom(6)
    return bytes([first & 0xFC | 0x02, *rest]).hex(":")


def take_address(
    world: CNIWorld,
    request: Request,
    wanted: WorkloadEndpoint,
    host: Session,
    undo: ExitStack,
) -> tuple[Assigned, WorkloadEndpoint]:
    """Assign an address and write the endpoint with it; one batch where the store has one."""
    key = codec.key_of(wanted)
    made: list[WorkloadEndpoint] = []
    # Read once more below, where it decides; without batches also for what is undone before that.
    before = None if world.store.can_batch else world.stored_endpoint(key)

    def also(address: IPAddress) -> Sequence[Write]:
        nonlocal before
        before = world.stored_endpoint(key)
        endpoint = replace(wanted, addresses=(ip_interface(address),))
        if before is not None:
            endpoint = renewed(endpoint, before[0])
        made[:] = [endpoint]
        if before is None:
            return [Write(verb=Verb.CREATE, key=key, value=codec.encode(endpoint))]
        value = codec.encode(replace(endpoint, wire=before[1]))
        return [Write(verb=Verb.UPDATE, key=key, value=value, revision=before[2])]

    used = {
        interface.ip
        for local in world.endpoints.all().values()
        for interface in local.endpoint.addresses
    }
    asked = AssignRequest(
        handle=request.key.handle,
        attributes=attributes_of(world, wanted),
        address=request.demand.address,
        pools=request.demand.pools,
        also=also,
        avoid=lambda address: address in used or sandbox.is_carried(host, address),
    )

    def give_back() -> None:
        withdraw(world, request.key, key, restore=None if before is None else before[1])

    try:
        assigned = world.ipam.assign(asked)
    except PodwireError:
        if not world.store.can_batch:
            give_back()  # handle, block or endpoint may have been written already
        raise
    undo.callback(give_back)
    return assigned, made[0]


def attributes_of(world: CNIWorld, endpoint: WorkloadEndpoint) -> dict[str, str]:
    """Whose address it is; clean-up tools keep for ever what names no pod and namespace."""
    moment = world.clock.now()
    return {
        "node": world.node,
        "namespace": endpoint.metadata.namespace or DEFAULT_NAMESPACE,
        "pod": endpoint.pod or endpoint.container_id,
        "timestamp": f"{moment:%Y-%m-%d %H:%M:%S.%f} +0000 UTC",
        **({BOOT_ATTRIBUTE: world.boot[:BOOT_DIGITS]} if world.boot else {}),
    }


def alias_of(key: AttachmentKey, title: str) -> str:
    """The alias of the host side; a very long title is cut so that the kernel takes it."""
    spare = ALIAS_LIMIT - len(link_alias(key, "").encode())
    return link_alias(key, title.encode()[:spare].decode(errors="ignore"))


def result_of(request: Request, endpoint: WorkloadEndpoint, *, mtu: int) -> Result:
    """What the runtime is told."""
    return Result(
        host_interface=endpoint.interface,
        interface=request.interface,
        mac=endpoint.mac,
        mtu=mtu,
        sandbox=request.netns,
        addresses=endpoint.addresses,
    )
