"""Standing: whose the nodes are while a cluster changes from Calico to us, and who needs BGP.

Calico's nodes say nothing of the routes they have. But what they lack is known: where they learn
of blocks by BGP, a node of ours that does not speak it is cut off from their pods.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from podwire.errors import BadInput, InUse, NotFound
from podwire.model import keys
from podwire.model.addressing import contains
from podwire.model.codec import decode_cluster, decode_node, decode_pool
from podwire.model.pool import Encapsulation, Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.boundary import Store
    from podwire.model.node import ClusterInformation
    from podwire.model.pool import IPPool
    from podwire.model.resource import Wire

T = TypeVar("T")
SHOWN = 3
"""Names in a sentence; of more than these the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whose the nodes are."""

    cluster: ClusterInformation
    ours: tuple[str, ...] = ()
    """Nodes whose agent, one of ours, has said something of them."""
    calicos: tuple[str, ...] = ()
    """The others, where Calico made the cluster."""
    pools: tuple[str, ...] = ()
    """The pools whose blocks Calico's nodes learn of by BGP alone."""

    @property
    def undecided(self) -> bool:
        """Whether the first agent would have to guess who writes the routes."""
        return bool(self.cluster.undecided and self.calicos and self.pools and not self.ours)


def read_standing(store: Store) -> Standing:
    """Ask the datastore.

    Raises:
        NotFound: there is no cluster in it.
        BadInput: the ClusterInformation cannot be read.
        DatastoreUnavailable: away.
    """
    entry = store.get(keys.cluster_key())
    if entry is None:
        raise NotFound(
            "the datastore has no ClusterInformation", fix="start an agent: it creates it"
        )
    cluster = decode_cluster(entry.key, entry.value)
    published = {entry.key for entry in store.list(keys.APPLIED).entries}
    nodes = _readable(store, keys.NODES, decode_node)
    ours = {
        node.name
        for node in nodes
        if node.underlay_mtu is not None or keys.applied_key(node.name) in published
    }
    if cluster.version is None:
        return Standing(cluster=cluster, ours=tuple(sorted(ours)))
    calicos = sorted(node.name for node in nodes if node.name not in ours)
    return Standing(
        cluster=cluster,
        ours=tuple(sorted(ours)),
        calicos=tuple(calicos),
        pools=_pools_of_bgp(store),
    )


def running(store: Store, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of Calico's nodes whose Felix reports; it is silent 90 s after its end."""
    return tuple(name for name in nodes if store.get(keys.node_status_key(name)) is not None)


def require_decision(store: Store) -> None:
    """Refuse to go on where an agent would have to guess who writes the routes.

    Raises:
        InUse: it would; names the command that decides.
        DatastoreUnavailable, BadInput: as `read_standing`.
    """
    entry = store.get(keys.cluster_key())
    if entry is None or not decode_cluster(entry.key, entry.value).undecided:
        return
    # Pools first: they are few, and most clusters that say nothing need no BGP.
    standing = read_standing(store) if _pools_of_bgp(store) else None
    if standing is not None and standing.undecided:
        raise InUse(
            f"Calico's nodes ({names(standing.calicos)}) learn of blocks by BGP (pool"
            f" {names(standing.pools)}), and nobody has said yet that ours speak it: their pods"
            " and the pods here would lose each other",
            fix="podwire bgp switch bird, once for the cluster",
        )


def names(several: tuple[str, ...]) -> str:
    """Some names in a sentence."""
    more = len(several) - SHOWN
    return ", ".join(several[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _readable(store: Store, prefix: str, decode: Callable[[str, Wire], T]) -> list[T]:
    """What is below a prefix; a broken object of somebody else is not our trouble here."""
    found: list[T] = []
    for entry in store.list(prefix).entries:
        with suppress(BadInput):
            found.append(decode(entry.key, entry.value))
    return found


def _pools_of_bgp(store: Store) -> tuple[str, ...]:
    pools = _readable(store, keys.POOLS, decode_pool)
    return tuple(pool.name for pool in pools if _needs_bgp(pool, store))


def _needs_bgp(pool: IPPool, store: Store) -> bool:
    """Whether its pods are reached by routes that BIRD learns; a disabled pool may have pods."""
    if pool.encapsulation is Encapsulation.VXLAN or pool.cidr.version != 4:
        return False
    if Use.WORKLOAD not in pool.allowed_uses:
        return False
    if not pool.disabled:
        return True
    claims = (keys.parse_affinity_key(entry.key) for entry in store.list(keys.AFFINITIES).entries)
    return any(claim is not None and contains(pool.cidr, claim[1]) for claim in claims)
