"""Survivors: pods that live here and that the datastore does not know, read from the kernel.

A restored datastore lacks what came after its backup. An agent that ran meanwhile has its registry;
one that starts finds veths with our mark that neither an endpoint nor an address explains, and no
crash of ours leaves such a one behind: ADD writes before it builds, DEL takes the veth away first.
So it is a pod that lives, unless a newer container of the same pod is there. The veth's alias and
the host's neighbour entry tell all that an endpoint needs; labels, profiles, a second address
family, a network's own MTU and foreign source prefixes stay forgotten.
"""

from __future__ import annotations

import uuid
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from podwire.agent.attach import labels_of, profile_of
from podwire.agent.endpoints import NETWORK_ANNOTATION, LocalEndpoint
from podwire.model.endpoint import (
    KUBERNETES,
    PLAIN_CNI,
    LinkOwner,
    WorkloadEndpoint,
    endpoint_name,
    host_interface_of_pod,
    parse_link_alias,
)
from podwire.model.overlay import NUD_PERMANENT
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podwire.agent.world import CNIWorld
    from podwire.model.link import Link
    from podwire.model.overlay import Neighbour


def survivors(
    world: CNIWorld, links: Iterable[Link], neighbours: Iterable[Neighbour]
) -> Iterator[tuple[LocalEndpoint, Link]]:
    """The pods behind veths that nothing explains, as they would stand in the datastore.

    Of two containers of one pod the one that has the pod's own name for its veth is the newer.
    """
    entries = {each.device: each for each in neighbours if is_pods(each)}
    pods = {(each.endpoint.title, key.interface) for key, each in world.endpoints.all().items()}
    marked = [(link, owner) for link in links if (owner := parse_link_alias(link.alias))]
    for link, owner in sorted(marked, key=lambda each: not has_pods_name(*each)):
        entry, pod = entries.get(link.index), (owner.title, owner.interface)
        if entry is not None and entry.mac is not None and pod not in pods:
            pods.add(pod)
            endpoint = endpoint_of(world, link, owner, entry)
            yield LocalEndpoint(key=owner.key, endpoint=endpoint), link


def is_pods(entry: Neighbour) -> bool:
    """Whether a neighbour entry may be one that an ADD made for its pod."""
    return entry.state == NUD_PERMANENT and not entry.proxy and entry.address.version == 4


def has_pods_name(link: Link, owner: LinkOwner) -> bool:
    """Whether the veth has the name of the pod, not only that of its attachment."""
    namespace, _, pod = owner.title.partition("/")
    return link.name == host_interface_of_pod(namespace, pod)


def endpoint_of(
    world: CNIWorld, link: Link, owner: LinkOwner, entry: Neighbour
) -> WorkloadEndpoint:
    """The endpoint that an ADD would have written for this veth."""
    namespace, _, pod = owner.title.partition("/")
    pod = "" if pod == owner.container_id else pod
    orchestrator = KUBERNETES if pod else PLAIN_CNI
    workload = pod or owner.container_id
    return WorkloadEndpoint(
        metadata=Metadata(
            name=endpoint_name(world.node, orchestrator, workload, owner.interface),
            namespace=namespace,
            labels=labels_of(namespace, orchestrator),
            annotations={NETWORK_ANNOTATION: owner.network} if owner.network else {},
        ).born(uuid.uuid4(), world.clock.now()),
        orchestrator=orchestrator,
        node=world.node,
        container_id=owner.container_id,
        pod=pod,
        endpoint=owner.interface,
        interface=link.name,
        mac=entry.mac or "",
        addresses=(ip_interface(entry.address),),
        profiles=tuple(filter(None, (profile_of(namespace if pod else None, owner.network),))),
    )
