"""The datastore's IPAM objects as typed values, each with the revision it was read at."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import collapse_addresses
from typing import TYPE_CHECKING, Generic, TypeVar

from podwire.boundary import Entry, Verb, Write
from podwire.errors import BadInput, Conflict
from podwire.ipam.pools import Rules
from podwire.model import codec, keys
from podwire.model.block import Affinity, Block, Handle, IPAMConfig
from podwire.model.resource import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podwire.boundary import Revision, Store
    from podwire.model.addressing import IPNetwork
    from podwire.model.pool import IPPool, IPReservation
    from podwire.model.resource import Wire

T = TypeVar("T", bound=Stored)
Removable = TypeVar("Removable", Affinity, Block, Handle)

CALICO_DEFAULTS = IPAMConfig(strict_affinity=False)
"""In force while no IPAM configuration is stored."""


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """One object and the revision a compare-and-swap of it must name."""

    value: T
    revision: Revision


class Records:
    """Reads and writes of blocks, affinities and handles.

    Every method raises `DatastoreUnavailable` when the store is away.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def block(self, cidr: IPNetwork) -> Record[Block] | None:
        """The block, or None."""
        return self._one(keys.block_key(cidr), codec.decode_block)

    def handle(self, handle: str) -> Record[Handle] | None:
        """The handle, or None."""
        return self._one(keys.handle_key(handle), codec.decode_handle)

    def handles(self) -> tuple[Record[Handle], ...]:
        """All handles that can be read, in key order."""
        found = self._readable(keys.HANDLES, codec.decode_handle, None)
        return tuple(record for record in found if not record.value.deleted)

    def affinity(self, node: str, cidr: IPNetwork) -> Record[Affinity] | None:
        """The node's claim on the block, or None."""
        return self._one(keys.affinity_key(node, cidr), codec.decode_affinity)

    def affinities(self, node: str | None = None) -> tuple[Record[Affinity], ...]:
        """The claims of one node, or of all, in key order."""
        prefix = keys.AFFINITIES if node is None else keys.affinity_prefix(node)
        entries = self.store.list(prefix).entries
        claims = (entry for entry in entries if keys.parse_affinity_key(entry.key) is not None)
        found = (_read(entry, codec.decode_affinity) for entry in claims)
        return tuple(record for record in found if not record.value.deleted)

    def blocks(
        self, unreadable: list[str] | None = None, prefix: str = keys.BLOCKS
    ) -> tuple[Record[Block], ...]:
        """All blocks of all nodes, in key order; why one cannot be read goes to the list."""
        found = self._readable(prefix, codec.decode_block, unreadable)
        return tuple(record for record in found if not record.value.deleted)

    def rules(self, node: str, labels: Mapping[str, str] | None = None) -> Rules:
        """What people have decided: pools, reservations, configuration and the node's labels.

        An object that cannot be read harms only itself: it is named in `Rules.unreadable`.
        """
        unreadable: list[str] = []
        pools = self._readable(keys.POOLS, codec.decode_pool, unreadable)
        reservations = self._readable(keys.RESERVATIONS, codec.decode_reservation, unreadable)
        config = self.store.get(keys.IPAM_CONFIG_KEY)
        if labels is None:
            found = self.store.get(keys.node_key(node))
            labels = (
                {} if found is None else codec.decode_node(found.key, found.value).metadata.labels
            )
        return rules_of(
            (pool.value for pool in pools),
            (each.value for each in reservations),
            None if config is None else codec.decode_ipam_config(config.key, config.value),
            labels or {},
            tuple(unreadable),
        )

    def create(self, value: T) -> Record[T]:
        """Write a new object.

        Raises:
            AlreadyExists: the key is taken.
        """
        written = codec.encode(value)
        entry = self.store.create(codec.key_of(value), written)
        return Record(replace(value, wire=written), entry.revision)

    def update(self, old: Record[T], value: T) -> Record[T]:
        """Replace the object that was read.

        Raises:
            Conflict: it was changed or deleted since.
        """
        written = codec.encode(value)
        entry = self.store.update(codec.key_of(value), written, old.revision)
        return Record(replace(value, wire=written), entry.revision)

    def delete(self, old: Record[T]) -> None:
        """Delete the object that was read.

        Raises:
            Conflict: it was changed or deleted since.
        """
        self.store.delete(codec.key_of(old.value), old.revision)

    def _one(self, key: str, decode: Callable[[str, Wire], Removable]) -> Record[Removable] | None:
        entry = self.store.get(key)
        if entry is None:
            return None
        record = _read(entry, decode)
        if not record.value.deleted:
            return record
        # Calico deletes in two steps and marks the object first; whoever meets the mark may take
        # the second step.
        with suppress(Conflict):
            self.store.delete(key, record.revision)
        return None

    def _readable(
        self, prefix: str, decode: Callable[[str, Wire], T], unreadable: list[str] | None
    ) -> list[Record[T]]:
        found = []
        for entry in self.store.list(prefix).entries:
            try:
                found.append(_read(entry, decode))
            except BadInput as error:
                if unreadable is not None:
                    unreadable.append(error.message)
        return found


def writing(old: Record[T] | None, new: T | None) -> Write:
    """The write that turns what was read (None: absent) into `new` (None: absent)."""
    if new is None:
        assert old is not None, "nothing to delete"
        return Write(verb=Verb.DELETE, key=codec.key_of(old.value), revision=old.revision)
    value = codec.encode(new)
    if old is None:
        return Write(verb=Verb.CREATE, key=codec.key_of(new), value=value)
    return Write(verb=Verb.UPDATE, key=codec.key_of(new), value=value, revision=old.revision)


def rules_of(
    pools: Iterable[IPPool],
    reservations: Iterable[IPReservation],
    config: IPAMConfig | None,
    node_labels: Mapping[str, str],
    unreadable: tuple[str, ...] = (),
) -> Rules:
    """The rules that these objects make; without a configuration Calico's defaults count."""
    return Rules(
        pools=tuple(sorted(pools, key=_name)),
        reserved=collapsed(cidr for each in reservations for cidr in each.reserved),
        config=CALICO_DEFAULTS if config is None else config,
        node_labels=node_labels,
        unreadable=unreadable,
    )


def collapsed(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The same addresses in the fewest networks, IPv4 first."""
    found = tuple(networks)
    return tuple(
        network
        for version in (4, 6)
        for network in collapse_addresses(n for n in found if n.version == version)  # type: ignore[type-var]  # one family each
    )


def _read(entry: Entry, decode: Callable[[str, Wire], T]) -> Record[T]:
    return Record(decode(entry.key, entry.value), entry.revision)


def _name(pool: IPPool) -> str:
    return pool.name
