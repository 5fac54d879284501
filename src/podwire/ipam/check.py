"""Whether the records of address allocation agree, with each other and with the users. Pure.

Everything is looked at as it was at one moment; what only looks wrong because an ADD is under way
cannot be seen where a store writes block, handle and endpoint at once. What holds a look for sure
is told once: nothing is said of single records of a node that is gone, or of addresses while
somebody who may use them cannot be read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from podwire.ipam.checkblocks import blocks
from podwire.ipam.checkworld import KNOWN_TUNNELS, World
from podwire.ipam.leaks import MACHINE_ATTRIBUTES
from podwire.ipam.leftovers import TUNNEL_TYPES
from podwire.ipam.problem import REPAIR, Problem, Report, Trouble
from podwire.model import keys
from podwire.model.addressing import contains

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from podwire.boundary import Entry
    from podwire.model.block import Allocation

ANEW = "make the pod anew: somebody else may get its address"


def check(entries: Iterable[Entry], now: datetime | None = None) -> Report:
    """Compare everything in the datastore, as it was at one moment; `now` dates what is found."""
    world = World(entries, now)
    by_node = Counter(each.attributes.get("node", "") for each in world.taken.values())
    problems = (
        *_leaks(world),
        *_uses(world),
        *_handles(world),
        *blocks(world),
        *_lost_nodes(world),
        *world.unreadable,
    )
    order = list(Trouble)
    addresses = sorted({*world.taken, *world.users}, key=lambda each: (each.version, int(each)))
    return Report(
        problems=tuple(sorted(problems, key=lambda each: order.index(each.trouble))),
        blocks=len(world.blocks),
        allocations=len(world.taken),
        endpoints=len(world.endpoints),
        by_node=dict(sorted(by_node.items(), key=lambda item: (-item[1], item[0]))),
        users={a: tuple(each.user for each in world.users.get(a, ())) for a in addresses},
        cluster=world.guid,
    )


def _leaks(world: World) -> Iterator[Problem]:
    if world.users_unreadable:
        return  # whose address it is may stand in what cannot be read
    for address, taken in world.taken.items():
        owner = taken.attributes
        type_, node = owner.get("type"), owner.get("node", "no node")
        if address in world.users or node in world.lost:
            continue
        if type_ is not None and type_ not in KNOWN_TUNNELS:
            continue  # load balancers, WireGuard …: who uses those is not told by what we read
        if MACHINE_ATTRIBUTES & owner.keys():
            continue  # a virtual machine keeps its address while it is stopped
        named = "pod" in owner or type_ in TUNNEL_TYPES
        title = type_ or f"{owner.get('namespace', '')}/{owner.get('pod', '')}".strip("/")
        since = owner.get("timestamp")
        whose = f"to {title} on {node}" if named else "and names no pod"
        dated = f" since {since[:19]}" if since else ""
        by_hand = f"podwire ipam release --ip {address}, if you know that nobody uses it"
        yield Problem(
            trouble=Trouble.LEAKED,
            subject=str(address),
            sentence=f"{address} is allocated {whose}{dated}, and nobody uses it",
            fix=REPAIR if named else by_hand,
            address=address,
            handle=taken.handle,
            node=owner.get("node"),
            sequence=taken.sequence,
            owner=title or None,
            allocated=since,
        )


def _uses(world: World) -> Iterator[Problem]:
    for address, users in world.users.items():
        user, taken = users[0].user, world.taken.get(address)
        said = f"{address} is used by {user.title}"
        tunnel = "type" in users[0].expected
        agent = f"start the agent of {user.node}: it takes another"
        pools = [pool for pool in world.pools if contains(pool.cidr, address)]
        if all(pool.disabled for pool in pools):
            names = ", ".join(pool.name for pool in pools)
            enable = f"enable IPPool {names}" if pools else "create an IPPool that holds it"
            yield Problem(
                trouble=Trouble.OUTSIDE,
                subject=str(address),
                sentence=f"{said} and lies in no enabled IPPool",
                fix=f"make the pod anew, or {enable}",
                address=address,
            )
        elif taken is None and not any(contains(cidr, address) for cidr in world.unsure):
            yield Problem(
                trouble=Trouble.UNALLOCATED,
                subject=str(address),
                sentence=f"{said} and is not allocated to anybody",
                fix=agent if tunnel else ANEW,
                address=address,
            )
        if taken is not None and any(_is_anothers(taken, each.expected) for each in users):
            yield Problem(
                trouble=Trouble.ANOTHERS,
                subject=str(address),
                sentence=f"{said}, and allocated to {_owner(taken)}",
                fix=agent if tunnel else "make the pod anew: the address is somebody else's",
                address=address,
                handle=taken.handle,
                sequence=taken.sequence,
            )
        if len(users) > 1:
            titles = " and ".join(each.user.title for each in users)
            yield Problem(
                trouble=Trouble.SHARED,
                subject=str(address),
                sentence=f"{address} is used by {titles}",
                fix="make all but one of them anew",
                address=address,
            )


def _is_anothers(taken: Allocation, expected: Mapping[str, str]) -> bool:
    """Whether the allocation names another owner; what it does not say is taken for granted."""
    owner = taken.attributes
    if taken.alternate is not None or MACHINE_ATTRIBUTES & owner.keys():
        return False  # one that moves has two pods
    if not {"pod", "type"} & owner.keys():
        return False  # another tool's says nothing
    if ("type" in owner) is not ("type" in expected):
        return True
    return any(owner.get(name, value) != value for name, value in expected.items())


def _owner(taken: Allocation) -> str:
    owner = taken.attributes
    name = owner.get("type") or f"pod {owner.get('namespace', '')}/{owner.get('pod', '')}"
    return f"{name} on {owner.get('node', 'no node')}"


def _handles(world: World) -> Iterator[Problem]:
    held: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for block in world.blocks:
        for allocation in block.allocations.values():
            if allocation.handle is not None:
                in_use = allocation.released_at is None
                held[allocation.handle][str(block.cidr)] += in_use
    for name, handle in world.handles.items():
        if name not in held and not world.unsure & handle.blocks.keys():
            yield Problem(
                trouble=Trouble.EMPTY_HANDLE,
                subject=name,
                sentence=f"handle {name} has no address",
                fix=REPAIR,
                handle=name,
            )
    for name, counts in held.items():
        places = {cidr: count for cidr, count in counts.items() if count}
        known = world.handles.get(name)
        if places and known is None and keys.handle_key(name) not in world.entries:
            yield Problem(
                trouble=Trouble.MISSING_HANDLE,
                subject=name,
                sentence=f"handle {name} does not exist, and addresses of {', '.join(places)}"
                " belong to it",
                fix=REPAIR,
                handle=name,
            )
        elif known is not None:
            counted = {str(cidr): count for cidr, count in known.blocks.items()}
            missed = [cidr for cidr, count in places.items() if counted.get(cidr, 0) < count]
            if missed:
                yield Problem(
                    trouble=Trouble.UNCOUNTED,
                    subject=name,
                    sentence=f"handle {name} does not count its addresses of {', '.join(missed)}:"
                    " they would never be released",
                    fix=REPAIR,
                    handle=name,
                )


def _lost_nodes(world: World) -> Iterator[Problem]:
    for node, counts in sorted(world.lost.items()):
        nouns = (("block", "s"), ("address", "es"), ("endpoint", "s"))
        parts = [
            f"{counts[noun]} {noun}{'' if counts[noun] == 1 else plural}"
            for noun, plural in nouns
            if counts[noun]
        ]
        what = ", ".join(parts) or "an affinity"
        objection = world.objections.get(node)
        objects = objection is not None
        alive = f"; its agent runs, with {objection} of its pods" if objects else ""
        yield Problem(
            trouble=Trouble.LOST_NODE,
            subject=node,
            sentence=f"there is no Node {node}, and it has {what}{alive}",
            fix="delete its pods, or start its agent again to register it anew"
            if objects
            else f"podwire ipam release --node {node}",
            node=node,
        )
