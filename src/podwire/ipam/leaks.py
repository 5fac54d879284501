"""Which addresses of this node leaked: allocated to pods that its kernel does not carry. Pure.

A pod's addresses share its handle and are judged together: one that is carried keeps them all. A
suspicion has to hold at every look for the whole grace period; a sequence number that moves on, or
a veth that comes back, ends it. Addresses that name no pod (tunnels, other tools') and those of
other nodes are never looked at.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from podwire.ipam.allocation import live
from podwire.model.addressing import address_at
from podwire.model.endpoint import host_interface_of_pod
from podwire.model.link import INTERFACE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from podwire.model.addressing import IPAddress
    from podwire.model.block import Allocation, Block

BOOT_ATTRIBUTE = "boot"
"""Allocation attribute: in which boot of its machine the address was given out, by the first
digits of its number."""
BOOT_DIGITS = 8
MACHINE_ATTRIBUTES = frozenset({"vmi-name", "vmi-uid", "vm-uid"})
"""Of a virtual machine's address (KubeVirt): its own while the machine is stopped, too."""
LOOKS = 2
"""How often a leak must have been seen, however short the grace period is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What this node's registry knows of a handle."""

    container_id: str
    interface: str
    """Inside the pod."""
    host_interface: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A pod, by the handle of its addresses."""

    handle: str
    title: str
    """`namespace/pod`."""
    addresses: Mapping[IPAddress, int] = field(default_factory=dict)
    """Each with the sequence number of its allocation; none: only an endpoint is left."""
    namespace: str = ""
    pod: str = ""
    attached: Attached | None = None
    boot: str | None = None
    allocated: str | None = None
    """When, as written in the allocation."""

    @property
    def container_ids(self) -> tuple[str, ...]:
        """Which containers it may be: a network's name may have dots, and so may an ID."""
        parts = self.handle.split(".")
        return tuple(".".join(parts[start:]) for start in range(len(parts)))

    @property
    def host_interfaces(self) -> frozenset[str]:
        """The names its host side may have when it lacks our mark: Calico's, or as we made it."""
        names = {f"{INTERFACE_PREFIX}{container_id[:11]}" for container_id in self.container_ids}
        if self.pod:
            names.add(host_interface_of_pod(self.namespace, self.pod))
        if self.attached is not None:
            names.add(self.attached.host_interface)
        return frozenset(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What the kernel carries, and in which boot it runs."""

    veths: frozenset[tuple[str, str]]
    """Container ID and interface of every host side with our mark."""
    unmarked: frozenset[str]
    """Host sides without it, by name: another program's, or made and not marked yet."""
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A tenant that has not been carried since."""

    tenant: Tenant
    since: float
    """Monotonic seconds of the first look that did not find it."""
    looks: int
    proof: tuple[str, ...]

    def is_ripe(self, now: float, grace_s: float) -> bool:
        """Whether it has held long enough."""
        return self.looks >= LOOKS and now - self.since >= grace_s


def tenants(
    blocks: Iterable[Block],
    node: str,
    attached: Mapping[str, Attached],
    users: Mapping[IPAddress, Attached] = MappingProxyType({}),
) -> tuple[Tenant, ...]:
    """The pods of the node that have addresses in the blocks, or an endpoint.

    `attached` is by handle, `users` by address: old handles of Calico do not name a container.
    """
    found: defaultdict[str, dict[IPAddress, Allocation]] = defaultdict(dict)
    for block in blocks:
        for ordinal, allocation in live(block).items():
            if allocation.handle is not None and is_pod_of(allocation, node):
                found[allocation.handle][address_at(block.cidr, ordinal)] = allocation
    for handle in attached:
        found.setdefault(handle, {})
    return tuple(
        _tenant(
            handle,
            found[handle],
            attached.get(handle) or next((users[a] for a in found[handle] if a in users), None),
        )
        for handle in sorted(found)
    )


def is_pod_of(allocation: Allocation, node: str) -> bool:
    """Whether the allocation says that it is a pod's of this node, and nobody else's too."""
    owner = allocation.attributes
    return (
        owner.get("node") == node
        and bool(owner.get("pod") and owner.get("namespace"))
        and "type" not in owner
        and allocation.alternate is None
        and not MACHINE_ATTRIBUTES & owner.keys()
    )


def is_carried(tenant: Tenant, carried: Carried) -> bool:
    """Whether a host side of the pod is there."""
    if tenant.host_interfaces & carried.unmarked:
        return True
    known = tenant.attached
    if known is not None:
        return (known.container_id, known.interface) in carried.veths
    ids = tenant.container_ids
    return any(container_id in ids for container_id, _ in carried.veths)


def proof(
    tenant: Tenant, carried: Carried, valid: Collection[str] | None = None
) -> tuple[str, ...]:
    """Why a tenant that is not carried is held to be gone; the first alone suffices.

    `valid` are the containers of its network that the runtime named in its last GC.
    """
    found = [f"no veth of {tenant.title} ({tenant.handle}) is in the kernel"]
    if tenant.boot is not None and not carried.boot.startswith(tenant.boot):
        found.append("the machine was booted since the address was given out")
    if valid is not None and not set(tenant.container_ids) & set(valid):
        found.append("the runtime's last GC does not name it")
    return tuple(found)


def weigh(
    suspects: Iterable[tuple[Tenant, tuple[str, ...]]],
    before: Mapping[str, Suspicion],
    now: float,
) -> dict[str, Suspicion]:
    """The suspicions after a look, by handle; whom the look found carried is cleared."""
    found = {}
    for tenant, why in suspects:
        old = before.get(tenant.handle)
        if old is not None and old.tenant.addresses != tenant.addresses:
            old = None
        found[tenant.handle] = Suspicion(
            tenant=tenant,
            since=now if old is None else old.since,
            looks=1 if old is None else old.looks + 1,
            proof=why,
        )
    return found


def _tenant(
    handle: str, allocations: Mapping[IPAddress, Allocation], attached: Attached | None
) -> Tenant:
    addresses = {address: each.sequence for address, each in allocations.items()}
    first = next(iter(allocations.values()), None)
    if first is None:
        assert attached is not None
        return Tenant(handle=handle, title=attached.title, attached=attached)
    owner = first.attributes
    return Tenant(
        handle=handle,
        title=f"{owner['namespace']}/{owner['pod']}",
        addresses=addresses,
        namespace=owner["namespace"],
        pod=owner["pod"],
        attached=attached,
        boot=owner.get(BOOT_ATTRIBUTE),
        allocated=owner.get("timestamp"),
    )
