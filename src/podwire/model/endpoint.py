"""WorkloadEndpoint: one pod interface on one node, and the names that follow from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.model.link import INTERFACE_PREFIX
from podwire.model.resource import Stored

if TYPE_CHECKING:
    from podwire.model.addressing import IPInterface, IPNetwork
    from podwire.model.resource import Metadata

KUBERNETES = "k8s"
PLAIN_CNI = "cni"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AttachmentKey:
    """What one CNI attachment is known by; DEL, GC and the spool speak of nothing else."""

    network: str
    container_id: str
    interface: str
    """Name inside the pod, mostly eth0."""

    @property
    def handle(self) -> str:
        """ID of the handle under which the attachment's addresses are released."""
        return f"{self.network}.{self.container_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadEndpoint(Stored):
    """One pod interface on one node."""

    metadata: Metadata
    """Name as `endpoint_name`, namespace of the pod."""
    orchestrator: str
    node: str
    container_id: str
    pod: str
    """Empty for plain CNI."""
    endpoint: str
    """Interface name inside the pod."""
    interface: str
    """Host side of the veth."""
    mac: str
    """Pod side of the veth."""
    addresses: tuple[IPInterface, ...]
    """Each a /32 or /128."""
    profiles: tuple[str, ...] = ()
    allowed_source_prefixes: tuple[IPNetwork, ...] = ()
    """Besides its own addresses, where FelixConfiguration allows it (workloadSourceSpoofing)."""

    @property
    def title(self) -> str:
        """`namespace/pod`, or `namespace/containerID` where there is no pod."""
        return f"{self.metadata.namespace}/{self.pod or self.container_id}"


def host_interface_of_pod(namespace: str, pod: str) -> str:
    """Host-side interface name of a Kubernetes pod: cali + 11 hex digits of SHA-1("ns.pod").

    >>> host_interface_of_pod("demo", "demo-deployment-6cbdbd86d5-nm467")
    'cali7a4b00317e6'
    """
    return _interface(f"{namespace}.{pod}")


def host_interface_of_attachment(key: AttachmentKey) -> str:
    """Host-side interface name without Kubernetes, from SHA-1("network/containerID/ifname").

    Calico cuts the container ID instead; two containers with one prefix would then share a name.
    """
    return _interface(f"{key.network}/{key.container_id}/{key.interface}")


def _interface(text: str) -> str:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return f"{INTERFACE_PREFIX}{digest[:11]}"


def endpoint_name(node: str, orchestrator: str, workload: str, interface: str) -> str:
    """Resource name of an endpoint: segments joined by `-`, a dash inside one doubled.

    >>> endpoint_name("n-1", "k8s", "web-0", "eth0")
    'n--1-k8s-web--0-eth0'
    """
    return "-".join(part.replace("-", "--") for part in (node, orchestrator, workload, interface))


def link_alias(key: AttachmentKey, title: str) -> str:
    """IFALIAS of the host-side veth: `podwire <containerID> <ns>/<pod> <ifname> <network>`.

    Adoption after a restart and late DELs match this mark, never the interface name. The network is
    left out where it is not known.
    """
    return f"podwire {key.container_id} {title} {key.interface} {key.network}".rstrip(" ")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOwner:
    """What a host-side veth's alias says."""

    container_id: str
    title: str
    interface: str
    network: str = ""
    """Empty where the alias does not tell it."""

    @property
    def key(self) -> AttachmentKey:
        """The attachment."""
        return AttachmentKey(
            network=self.network, container_id=self.container_id, interface=self.interface
        )


def parse_link_alias(alias: str | None) -> LinkOwner | None:
    """Read an alias written by `link_alias`; None when it is not one of ours."""
    match (alias or "").split(" "):
        case ["podwire", container_id, title, interface, *more] if len(more) <= 1:
            return LinkOwner(
                container_id=container_id,
                title=title,
                interface=interface,
                network=more[0] if more else "",
            )
        case _:
            return None
