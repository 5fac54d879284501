"""Deleting resources: never what others rely on, and saying who they are."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from podwire.drivers.clock import SystemClock, SystemDice
from podwire.errors import BadInput, Conflict, InUse, NotFound, PodwireError, Stale
from podwire.ipam.allocation import live
from podwire.ipam.claims import Claims
from podwire.ipam.leftovers import Farewell
from podwire.ipam.records import Records
from podwire.model import codec, keys
from podwire.model.addressing import contains
from podwire.model.nodestatus import parse_status

if TYPE_CHECKING:
    from podwire.boundary import Clock, Entry, Store
    from podwire.cli.kinds import Kind
    from podwire.model.block import Allocation, Block
    from podwire.model.endpoint import WorkloadEndpoint
    from podwire.model.nodestatus import NodeStatus
    from podwire.model.pool import IPPool
    from podwire.model.resource import Wire

SETTLE_S = 0.5
"""How long agents are given to hear that the pool is disabled; Calico's figure."""
NAMED = 3
"""How many users of a pool or node an error names."""


def refuse_removal(store: Store, kind: Kind, entry: Entry, *, force: bool = False) -> None:
    """Whether the resource may be deleted now.

    Raises:
        InUse: others rely on it; names them and the way out.
        BadInput: resources of this kind are not deleted by people.
    """
    if kind.read_only is not None:
        raise BadInput(f"{kind.name} cannot be deleted: {kind.read_only}")
    match kind.name:
        case "ClusterInformation":
            raise InUse("ClusterInformation default is the cluster itself and cannot be deleted")
        case "IPAMConfiguration":
            raise InUse(
                "IPAMConfiguration default belongs to the cluster and cannot be deleted",
                fix="change it: podwire ipam configure, or apply",
            )
        case "IPPool":
            with suppress(BadInput):  # too broken to be in anybody's use
                _refuse_users(codec.decode_pool(entry.key, entry.value), Records(store))
        case "Node":
            _refuse_node(store, keys.parse_node_key(entry.key) or "", force=force)
        case "WorkloadEndpoint" if not force:
            with suppress(BadInput):  # too broken to tell whose it is
                _refuse_endpoint(store, codec.decode_endpoint(entry.key, entry.value))
        case _:
            pass


def remove(store: Store, kind: Kind, entry: Entry, *, force: bool = False) -> None:
    """Delete the resource that was read, and what is nothing without it.

    Raises:
        InUse, BadInput: as `refuse_removal`; it is as it was.
        Stale: it was changed at the same time.
    """
    refuse_removal(store, kind, entry, force=force)
    if kind.name == "IPPool":
        with suppress(BadInput):
            remove_pool(store, entry.key, SystemClock())
            return
    store.delete(entry.key, entry.revision)
    if kind.name == "Node" and force:
        # Cut off here, the agents clear up after it, a grace period later.
        node = keys.parse_node_key(entry.key) or ""
        Farewell(store, node, SystemClock(), SystemDice()).clear(endpoints=_endpoints(store, node))


def _refuse_endpoint(store: Store, endpoint: WorkloadEndpoint) -> None:
    """Its addresses would count as leaked, and go to other pods, while the pod uses them."""
    node = endpoint.node
    if store.get(keys.node_key(node)) is None:
        return  # its machine is gone for good
    if store.can_expire and _report_of(store, node) is None:
        return  # where nobody can report, silence says nothing
    raise InUse(
        f"WorkloadEndpoint {endpoint.metadata.name} is in use: it is of pod {endpoint.title} on"
        f" node {node}",
        fix="delete the pod by its runtime, and its endpoint goes with it; --force if you know that"
        " the pod is gone",
    )


def _report_of(store: Store, node: str) -> NodeStatus | None:
    """What the node's agent reports; None where it is silent."""
    report = store.get(keys.node_status_key(node))
    told = None if report is None else parse_status(report.value)
    return None if told is None or told.is_stale(SystemClock().now()) else told


def _refuse_node(store: Store, node: str, *, force: bool) -> None:
    told = _report_of(store, node)
    if told is not None:
        raise InUse(
            f"Node {node} is alive: its agent reported at {told.time:%H:%M:%S} UTC",
            fix="stop its agent first (systemctl disable --now podwire-agent), and wait 90 s",
        )
    pods = [codec.decode_endpoint(e.key, e.value).title for e in _endpoints(store, node)]
    if not pods or force:
        return
    noun = "pod runs" if len(pods) == 1 else "pods run"
    raise InUse(
        f"Node {node} is in use: {len(pods)} {noun} there ({_some(pods)})",
        fix="delete or move them first; if the machine is gone for good, add --force:"
        " endpoints, addresses and blocks go with it",
    )


def _endpoints(store: Store, node: str) -> list[Entry]:
    entries = store.list(keys.ENDPOINTS).entries
    return [entry for entry in entries if (entry.value.get("spec") or {}).get("node") == node]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def remove_pool(store: Store, key: str, clock: Clock) -> None:
    """Disable the pool, give back its empty blocks, delete it.

    Whatever ends it before it is done, an interrupt too, leaves the pool as enabled as it was.

    Raises:
        NotFound: there is no such pool.
        InUse: addresses of it are in use; the pool is as it was.
        Stale: it was changed at the same time.
        BadInput: what is stored is no pool.
    """
    entry = store.get(key)
    if entry is None:
        raise NotFound(f"{key} does not exist")
    pool = codec.decode_pool(entry.key, entry.value)
    records = Records(store)
    _refuse_users(pool, records)
    if pool.disabled or not _blocks(pool, records):
        _give_back(pool, records, clock)
        store.delete(key, entry.revision)
        return
    disabling = _Disabling(store, entry, pool)
    try:
        # First no new claims, then another look: an agent may be taking an address right now.
        disabling.begin()
        clock.sleep(SETTLE_S)
        _give_back(pool, records, clock)
        store.delete(key, disabling.revision)
    except BaseException as error:  # an interrupt, too
        disabling.undo(error)
        raise


class _Disabling:
    """A pool that is disabled only for as long as it takes to delete it."""

    def __init__(self, store: Store, entry: Entry, pool: IPPool) -> None:
        self._store = store
        self._pool = pool
        self._key = entry.key
        self._value = codec.encode(replace(pool, disabled=True))
        self._is_written = False
        self.revision = entry.revision

    def begin(self) -> None:
        """Disable it."""
        self.revision = self._store.update(self._key, self._value, self.revision).revision
        self._is_written = True

    def undo(self, error: BaseException) -> None:
        """Enable it again after an error; say so where that fails, too."""
        if not self._is_written and isinstance(error, Stale):
            return
        try:
            self._enable()
        except Conflict:
            pass  # whoever changed it since has decided what it should be
        except (PodwireError, KeyboardInterrupt):
            from podwire.cli.main import complain

            name = self._pool.name
            complain(
                PodwireError(
                    f"IPPool {name} may have been left disabled: no pod gets an address of it",
                    fix=f"podwire patch ippool {name} -p '{{spec: {{disabled: false}}}}'",
                )
            )

    def _enable(self) -> None:
        revision: str | None = self.revision
        if not self._is_written:
            # An update that was cut off may have been carried out, under a revision nobody told.
            there = self._store.get(self._key)
            revision = (
                there.revision if there and _text(there.value) == _text(self._value) else None
            )
        if revision is not None:
            self._store.update(self._key, codec.encode(self._pool), revision)


def _text(wire: Wire) -> str:
    return json.dumps(wire, sort_keys=True, default=dict)


def _give_back(pool: IPPool, records: Records, clock: Clock) -> None:
    _refuse_users(pool, records)
    for affinity in records.affinities():
        if contains(pool.cidr, affinity.value.block):
            claims = Claims(records, affinity.value.node, clock)
            claims.release(affinity.value.block, must_be_empty=True, cooldown_s=0)
    for block in records.blocks():
        if contains(pool.cidr, block.value.cidr):
            _refuse_users(pool, records)
            records.delete(block)


def _blocks(pool: IPPool, records: Records) -> list[Block]:
    return [record.value for record in records.blocks() if contains(pool.cidr, record.value.cidr)]


def _refuse_users(pool: IPPool, records: Records) -> None:
    users = [allocation for block in _blocks(pool, records) for allocation in live(block).values()]
    if not users:
        return
    noun = "address" if len(users) == 1 else "addresses"
    raise InUse(
        f"IPPool {pool.name} is in use: {len(users)} {noun} of {pool.cidr}"
        f" ({_some([_user(allocation) for allocation in users])})",
        fix="apply the pool with `disabled: true`, move those users to another pool, delete again",
    )


def _user(allocation: Allocation) -> str:
    owner = allocation.attributes
    if "pod" in owner:
        return f"{owner.get('namespace', 'default')}/{owner['pod']}"
    if "type" in owner:
        return f"{owner['type']} of node {owner.get('node')}"
    return f"handle {allocation.handle}"
