"""Leaks: find addresses of this node whose pod its kernel does not carry, and give them back.

A runtime that dies, or removes a pod's namespace by itself, sends no DEL, and containerd sends no
GC. So this node looks for itself. What it judges by is in ipam/leaks.py; nothing is given back
before it was in doubt for the whole grace period, and is in doubt once more with all calls for the
container held up.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from podwire.agent.check import orphan
from podwire.agent.detach import forget_connections
from podwire.agent.home import is_at_home, node_address
from podwire.agent.sandbox import is_carried as has_route
from podwire.drivers.netlink.session import Session
from podwire.errors import BadInput, Conflict, PodwireError
from podwire.ipam.leaks import (
    Attached,
    Carried,
    Suspicion,
    Tenant,
    is_carried,
    proof,
    tenants,
    weigh,
)
from podwire.ipam.records import Records
from podwire.ipam.request import Release
from podwire.model import codec, keys
from podwire.model.addressing import block_holding, contains
from podwire.model.endpoint import parse_link_alias
from podwire.model.link import INTERFACE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from podwire.agent.attachments import Attachments
    from podwire.agent.world import CNIWorld
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Block
    from podwire.model.endpoint import AttachmentKey

log = structlog.get_logger(__name__)


class Leaks:
    """This node's own leaks. One thread looks; `suspicions` may be read from any.

    Args:
        attachments: the node's calls.
        grace_s: how long a suspicion must hold.
        gap_s: after how long without a look it must hold anew.

    Attributes:
        suspicions: what is in doubt, by handle; replaced as a whole.
        released: addresses given back.
    """

    def __init__(
        self, attachments: Attachments, grace_s: float, gap_s: float = float("inf")
    ) -> None:
        self._attachments = attachments
        self._world = attachments.world
        self._grace_s = grace_s
        self._gap_s = gap_s
        self._last = 0.0
        self._address: IPAddress | None = None
        self.suspicions: Mapping[str, Suspicion] = {}
        self.released = 0

    def look(self, lent: Iterable[IPNetwork] = ()) -> None:
        """Compare allocations and kernel once; give back what has been in doubt long enough.

        `lent` are blocks of others in which this node has addresses, as far as known.

        Raises:
            PodwireError: datastore or kernel cannot be read; what was in doubt stays so.
        """
        with Session.open() as host:
            if not self._is_at_home(host):
                return
            suspects = list(self._suspects(host, lent))
        now = self._world.clock.monotonic()
        # What nobody looked at for long (held, or the datastore was away) begins anew.
        before = self.suspicions if now - self._last <= self._gap_s else {}
        self._last = now
        self.suspicions = weigh(suspects, before, now)
        for handle in before.keys() - self.suspicions.keys():
            log.info("no leak after all", handle=handle)
        for suspicion in self.suspicions.values():
            if suspicion.looks == 1:
                tell("leak suspected", suspicion)
        ripe = [each for each in self.suspicions.values() if each.is_ripe(now, self._grace_s)]
        gone = {each.tenant.handle for each in ripe if self._try_release(each)}
        self.suspicions = {h: each for h, each in self.suspicions.items() if h not in gone}

    # --- the look -------------------------------------------------------------------------------

    def _is_at_home(self, host: Session) -> bool:
        address = node_address(self._world.store, self._world.node)
        # A deleted Node leaves what we knew of it.
        self._address = self._address if address is None else address
        return is_at_home(host, self._address)

    def _suspects(
        self, host: Session, lent: Iterable[IPNetwork]
    ) -> Iterator[tuple[Tenant, tuple[str, ...]]]:
        # Blocks before the kernel: an ADD that ends in between is then seen with its veth.
        blocks = tuple(self._blocks(lent))
        attached, users = {}, {}
        for key, local in self._world.endpoints.all().items():
            known = Attached(
                container_id=key.container_id,
                interface=key.interface,
                host_interface=local.endpoint.interface,
                title=local.endpoint.title,
            )
            attached[key.handle] = known
            users.update(dict.fromkeys((each.ip for each in local.endpoint.addresses), known))
        found = tenants(blocks, self._world.node, attached, users)
        exempt = self._exempt()
        carried = look_at_kernel(host, self._world.boot)
        for tenant in found:
            if tenant.handle not in exempt and not self._is_there(host, tenant, carried):
                network = tenant.handle.removesuffix(f".{tenant.container_ids[-1]}")
                yield tenant, proof(tenant, carried, self._attachments.valid_in(network))

    def _blocks(self, lent: Iterable[IPNetwork]) -> Iterator[Block]:
        records = Records(self._world.store)
        own = {affinity.value.block for affinity in records.affinities(self._world.node)}
        for cidr in own | self._borrowed(records, own) | set(lent):
            try:
                record = records.block(cidr)
            except BadInput as error:
                log.warning("block not looked at", block=str(cidr), reason=str(error))
                continue
            if record is not None:
                yield record.value

    def _borrowed(self, records: Records, own: set[IPNetwork]) -> set[IPNetwork]:
        """Blocks of others in which pods we know of have addresses."""
        known = [
            each.ip
            for local in self._world.endpoints.all().values()
            for each in local.endpoint.addresses
            if not any(contains(cidr, each.ip) for cidr in own)
        ]
        pools = records.rules(self._world.node, {}).pools if known else ()
        return {
            block_holding(address, pool.block_size)
            for address in known
            for pool in pools
            if contains(pool.cidr, address)
        }

    def _exempt(self) -> frozenset[str]:
        """Handles whose ADD or DEL is under way, waits in the spool, or is owed."""
        world = self._world
        keys_ = (*self._attachments.busy(), *world.spool.keys(), *tuple(world.owed))
        return frozenset(key.handle for key in keys_)

    @staticmethod
    def _is_there(host: Session, tenant: Tenant, carried: Carried) -> bool:
        return is_carried(tenant, carried) or any(
            has_route(host, address) for address in tenant.addresses
        )

    # --- giving back ----------------------------------------------------------------------------

    def _try_release(self, suspicion: Suspicion) -> bool:
        try:
            return self._release(suspicion)
        except PodwireError as error:  # one that cannot be released stops no other
            log.warning("leak kept", handle=suspicion.tenant.handle, reason=str(error))
            return False

    def _release(self, suspicion: Suspicion) -> bool:
        """Give a tenant's addresses back, unless it is there by now; whether it is dealt with."""
        tenant = suspicion.tenant
        key = self._key(tenant)
        with self._attachments.alone_with(key), Session.open() as host:
            carried = look_at_kernel(host, self._world.boot)
            # What came while we waited for our turn counts.
            if tenant.handle in self._exempt() or self._is_there(host, tenant, carried):
                return False
            forget_connections(tenant.addresses)
            # Before the address: an endpoint must never outlive it.
            known = tenant.attached
            delete_endpoints(
                self._world,
                tenant.namespace if known is None else known.title.partition("/")[0],
                tenant.container_ids if known is None else (known.container_id,),
            )
            self._world.endpoints.remove(key)
            released = self._give_back(tenant)
        if set(released) != set(tenant.addresses):
            return False  # they are no longer what was seen
        self.released += len(released)
        tell("leak released", suspicion)
        self._attachments.look_for_surplus()
        return True

    def _key(self, tenant: Tenant) -> AttachmentKey:
        known = tenant.attached
        if known is not None:
            for key in self._world.endpoints.all():
                if (key.container_id, key.interface) == (known.container_id, known.interface):
                    return key
        container_id = tenant.container_ids[-1]
        return orphan(tenant.handle.removesuffix(f".{container_id}"), container_id, ())

    def _give_back(self, tenant: Tenant) -> tuple[IPAddress, ...]:
        """Release exactly what was seen, all of the handle's addresses or none."""
        ipam = self._world.ipam
        if self._world.store.get(keys.handle_key(tenant.handle)) is not None:
            return ipam.release_handle(tenant.handle, seen=tenant.addresses)
        lost = [
            Release(address=address, handle=tenant.handle, sequence=sequence)
            for address, sequence in tenant.addresses.items()
        ]
        return ipam.release_addresses(lost).released


def delete_endpoints(world: CNIWorld, namespace: str, containers: Collection[str]) -> None:
    """Those of a container on this node; a newer container of the same pod keeps its own."""
    prefix = keys.node_endpoint_prefix(namespace, world.node)
    for entry in world.store.list(prefix).entries:
        with suppress(BadInput, Conflict):  # cannot be read, or is somebody else's by now
            endpoint = codec.decode_endpoint(entry.key, entry.value)
            if endpoint.node == world.node and endpoint.container_id in containers:
                world.store.delete(entry.key, entry.revision)


def look_at_kernel(host: Session, boot: str) -> Carried:
    """The host sides of pods in this namespace."""
    veths, unmarked = set(), set()
    for link in host.links().values():
        owner = parse_link_alias(link.alias)
        if owner is not None:
            veths.add((owner.container_id, owner.interface))
        elif link.name.startswith(INTERFACE_PREFIX):
            unmarked.add(link.name)
    return Carried(veths=frozenset(veths), unmarked=frozenset(unmarked), boot=boot)


def tell(event: str, suspicion: Suspicion) -> None:
    """Log it, with owner and proof."""
    tenant = suspicion.tenant
    log.info(
        event,
        pod=tenant.title,
        handle=tenant.handle,
        addresses=",".join(map(str, tenant.addresses)),
        proof="; ".join(suspicion.proof),
    )
