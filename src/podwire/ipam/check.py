"""Whether the records of address allocation agree, with each other and with the users. Pure.

Everything is looked at as it was at one moment; what only looks wrong because an ADD is under way
cannot be seen where a store writes block, handle and endpoint at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podwire.errors import BadInput
from podwire.ipam.allocation import faults, live
from podwire.model import codec, keys
from podwire.model.addressing import address_at, contains
from podwire.model.block import Affinity, AffinityState, Block, Handle
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.node import Node
from podwire.model.pool import IPPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from podwire.boundary import Entry
    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.block import Allocation

RELEASE = "podwire ipam release --from-report FILE"
_TUNNELS = ("ipipTunnelAddress", "vxlanTunnelAddress")


class Trouble(StrEnum):
    """Ways in which the records disagree."""

    LEAKED = "leaked"
    OUTSIDE = "outsidePools"
    UNALLOCATED = "notAllocated"
    SHARED = "usedTwice"
    EMPTY_HANDLE = "handleWithoutAddress"
    MISSING_HANDLE = "missingHandle"
    BROKEN_BLOCK = "invalidBlock"
    UNCLAIMED_BLOCK = "blockWithoutAffinity"
    EMPTY_CLAIM = "affinityWithoutBlock"
    LOST_NODE = "blockOfMissingNode"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One disagreement."""

    trouble: Trouble
    subject: str
    """Address, block, handle or key."""
    sentence: str
    fix: str
    address: IPAddress | None = None
    handle: str | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class User:
    """Who uses an address."""

    title: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, in the order of the checks, and how much was looked at."""

    problems: tuple[Problem, ...]
    blocks: int
    allocations: int
    endpoints: int
    by_node: Mapping[str, int]
    """Addresses allocated to each node."""


@dataclass(frozen=True, slots=True)
class _World:
    pools: tuple[IPPool, ...]
    nodes: Mapping[str, Node]
    endpoints: tuple[WorkloadEndpoint, ...]
    blocks: tuple[Block, ...]
    affinities: tuple[Affinity, ...]
    handles: Mapping[str, Handle]
    unreadable: tuple[Problem, ...]

    @property
    def users(self) -> Mapping[IPAddress, list[User]]:
        found: defaultdict[IPAddress, list[User]] = defaultdict(list)
        for endpoint in self.endpoints:
            for interface in endpoint.addresses:
                found[interface.ip].append(User(f"pod {endpoint.title}", endpoint.node))
        for node in self.nodes.values():
            for tunnel in (node.ipip_tunnel, node.vxlan_tunnel):
                if tunnel is not None:
                    found[tunnel].append(User(f"the tunnel of node {node.name}", node.name))
        return found


def check(entries: Iterable[Entry]) -> Report:
    """Compare everything below /calico/, as it was at one moment."""
    world = _world(entries)
    taken = {
        address_at(block.cidr, ordinal): allocation
        for block in world.blocks
        for ordinal, allocation in live(block).items()
    }
    by_node: defaultdict[str, int] = defaultdict(int)
    for allocation in taken.values():
        by_node[allocation.attributes.get("node", "")] += 1
    return Report(
        problems=(
            *world.unreadable,
            *_leaks(world, taken),
            *_uses(world, taken),
            *_handles(world, taken),
            *_blocks(world),
        ),
        blocks=len(world.blocks),
        allocations=len(taken),
        endpoints=len(world.endpoints),
        by_node=dict(sorted(by_node.items(), key=lambda item: (-item[1], item[0]))),
    )


def _world(entries: Iterable[Entry]) -> _World:
    found: list[object] = []
    unreadable: list[Problem] = []
    for entry in entries:
        try:
            found.append(codec.decode(entry.key, entry.value))
        except BadInput as error:
            if entry.key.startswith(_WATCHED):
                unreadable.append(
                    Problem(
                        trouble=Trouble.UNREADABLE,
                        subject=entry.key,
                        sentence=error.message,
                        fix=f"podwire datastore get {entry.key}",
                    )
                )
    return _World(
        pools=tuple(each for each in found if isinstance(each, IPPool)),
        nodes={each.name: each for each in found if isinstance(each, Node)},
        endpoints=tuple(each for each in found if isinstance(each, WorkloadEndpoint)),
        blocks=tuple(each for each in found if isinstance(each, Block) and not each.deleted),
        affinities=tuple(each for each in found if isinstance(each, Affinity) and not each.deleted),
        handles={e.id: e for e in found if isinstance(e, Handle) and not e.deleted},
        unreadable=tuple(unreadable),
    )


_WATCHED = (
    *(keys.POOLS, keys.NODES, keys.ENDPOINTS),
    *(keys.BLOCKS, keys.AFFINITIES, keys.HANDLES),
)


def _leaks(world: _World, taken: Mapping[IPAddress, Allocation]) -> Iterator[Problem]:
    users = world.users
    for address, allocation in taken.items():
        owner = allocation.attributes.get("pod") or allocation.attributes.get("type") or "nobody"
        if address in users or (owner not in _TUNNELS and "type" in allocation.attributes):
            continue  # load balancers, WireGuard …: who uses those is not told by what we read
        node = allocation.attributes.get("node", "no node")
        yield Problem(
            trouble=Trouble.LEAKED,
            subject=str(address),
            sentence=f"{address} is allocated ({owner} on {node}) and nobody uses it",
            fix=RELEASE,
            address=address,
            handle=allocation.handle,
            sequence=allocation.sequence,
        )


def _uses(world: _World, taken: Mapping[IPAddress, Allocation]) -> Iterator[Problem]:
    for address, users in world.users.items():
        user = users[0]
        if not any(contains(pool.cidr, address) for pool in world.pools if not pool.disabled):
            yield Problem(
                trouble=Trouble.OUTSIDE,
                subject=str(address),
                sentence=f"{address} is used by {user.title} and lies in no enabled IPPool",
                fix="make the pod anew, or enable the IPPool it came from",
                address=address,
            )
        elif address not in taken:
            yield Problem(
                trouble=Trouble.UNALLOCATED,
                subject=str(address),
                sentence=f"{address} is used by {user.title} and is not allocated to anybody",
                fix="make the pod anew: somebody else may get its address",
                address=address,
            )
        if len(users) > 1:
            titles = " and ".join(each.title for each in users)
            yield Problem(
                trouble=Trouble.SHARED,
                subject=str(address),
                sentence=f"{address} is used by {titles}",
                fix="make all but one of them anew",
                address=address,
            )


def _handles(world: _World, taken: Mapping[IPAddress, Allocation]) -> Iterator[Problem]:
    used = {a.handle for block in world.blocks for a in block.allocations.values()}
    for name in world.handles:
        if name not in used:
            yield Problem(
                trouble=Trouble.EMPTY_HANDLE,
                subject=name,
                sentence=f"handle {name} has no address",
                fix=RELEASE,
                handle=name,
            )
    for address, allocation in taken.items():
        if allocation.handle is not None and allocation.handle not in world.handles:
            yield Problem(
                trouble=Trouble.MISSING_HANDLE,
                subject=allocation.handle,
                sentence=f"{address} belongs to handle {allocation.handle}, which does not exist",
                fix=f"podwire ipam release --ip {address} once its pod is gone",
                address=address,
                handle=allocation.handle,
            )


def _blocks(world: _World) -> Iterator[Problem]:
    claims = {(claim.node, claim.block) for claim in world.affinities}
    there = {block.cidr for block in world.blocks}
    for block in world.blocks:
        for fault in faults(block):
            yield Problem(
                trouble=Trouble.BROKEN_BLOCK,
                subject=str(block.cidr),
                sentence=f"block {block.cidr}: {fault}",
                fix="set datastoreReady: false and mend the block by hand",
            )
        if block.node is None:
            continue
        if (block.node, block.cidr) not in claims:
            yield Problem(
                trouble=Trouble.UNCLAIMED_BLOCK,
                subject=str(block.cidr),
                sentence=f"block {block.cidr} is held by {block.node}, without an affinity",
                fix=f"start the agent of {block.node}: it claims the block again",
            )
        if block.node not in world.nodes:
            yield _lost(block.cidr, block.node)
    for claim in world.affinities:
        if claim.block not in there and claim.state is AffinityState.CONFIRMED:
            yield Problem(
                trouble=Trouble.EMPTY_CLAIM,
                subject=str(claim.block),
                sentence=f"{claim.node} has an affinity for {claim.block}, and there is no block",
                fix=f"start the agent of {claim.node}: it makes the block",
            )


def _lost(block: IPNetwork, node: str) -> Problem:
    return Problem(
        trouble=Trouble.LOST_NODE,
        subject=str(block),
        sentence=f"block {block} is held by {node}, which is no Node",
        fix=f"start the agent of {node}, or release what leaked and delete the affinity",
    )
