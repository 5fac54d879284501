"""Which pools may serve a request, and what the cluster's rules are. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwire.errors import BadInput, NoPool
from podwire.model.addressing import contains
from podwire.model.block import IPAMConfig
from podwire.model.pool import Use
from podwire.model.resource import no_labels
from podwire.model.selector import parse_selector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podwire.model.addressing import IPAddress, IPNetwork
    from podwire.model.pool import IPPool

DEFAULT_BLOCK_LIMIT = 20
"""Blocks of one family a node may hold when IPAMConfig says 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything people have decided about addresses, at one moment."""

    pools: tuple[IPPool, ...] = ()
    """Sorted by name."""
    reserved: tuple[IPNetwork, ...] = ()
    """All IPReservations together, in the fewest networks."""
    config: IPAMConfig = field(default_factory=lambda: IPAMConfig(strict_affinity=False))
    """What is in force; Calico's defaults when none is stored."""
    node_labels: Mapping[str, str] = field(default_factory=no_labels)
    unreadable: tuple[str, ...] = ()
    """Pools and reservations that could not be read, and why; they are left out."""

    @property
    def block_limit(self) -> int:
        """How many blocks of one family a node may hold."""
        return self.config.max_blocks_per_host or DEFAULT_BLOCK_LIMIT

    def is_reserved(self, what: IPAddress | IPNetwork) -> bool:
        """Whether the address, or the whole network, is never handed out unasked."""
        return any(contains(network, what) for network in self.reserved)

    def pool_of(self, block: IPNetwork | IPAddress) -> IPPool | None:
        """The enabled pool in which the block or address lies."""
        for pool in self.pools:
            if not pool.disabled and contains(pool.cidr, block):
                return pool
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """On whose behalf a pool is chosen."""

    node: str
    use: Use = Use.WORKLOAD
    namespace: str | None = None
    """Of the pod; None for a tunnel address or a block claimed ahead."""
    pools: Sequence[str] | None = None
    """Names or CIDRs, tried in this order; None lets the pools' own selectors decide."""


def select_pools(rules: Rules, asker: Asker, version: int = 4) -> tuple[IPPool, ...]:
    """The pools to take from, in the order to try them.

    Raises:
        NoPool: there is none; the message gives the reason for each that was passed over.
    """
    if asker.pools is not None:
        return tuple(_explicit(rules, asker, text, version) for text in asker.pools)
    chosen = []
    reasons = []
    for pool in rules.pools:
        if pool.cidr.version != version:
            continue
        why = _why_not(pool, rules, asker)
        if why is None:
            chosen.append(pool)
        else:
            reasons.append(f"{pool.name} ({pool.cidr}) {why}")
    if chosen:
        return tuple(chosen)
    reasons.extend(rules.unreadable)
    if not reasons:
        raise NoPool(
            f"no IPPool for IPv{version} exists, so node {asker.node} has no address to give",
            fix="create an IPPool with podwire apply -f FILE",
        )
    raise NoPool(
        f"no IPPool serves {asker.use} addresses on node {asker.node}: {'; '.join(reasons)}",
        fix="change one of these IPPools, or add one, with podwire apply -f FILE",
    )


def _explicit(rules: Rules, asker: Asker, text: str, version: int) -> IPPool:
    """The pool asked for by name or CIDR; its selectors and assignment mode do not matter."""
    for pool in rules.pools:
        if text in (pool.name, str(pool.cidr)) and pool.cidr.version == version:
            why = _unusable(pool) or _wrong_use(pool, asker.use)
            if why is None:
                return pool
            raise NoPool(
                f"IPPool {pool.name} ({pool.cidr}), which was asked for, {why}",
                fix="ask for another pool, or change this one with podwire apply -f FILE",
            )
    names = ", ".join(f"{pool.name} ({pool.cidr})" for pool in rules.pools) or "none"
    raise NoPool(
        f"IPPool {text!r}, which was asked for, does not exist",
        fix=f"ask for one of these by name or CIDR: {names}",
    )


def _why_not(pool: IPPool, rules: Rules, asker: Asker) -> str | None:
    if (why := _unusable(pool) or _wrong_use(pool, asker.use)) is not None:
        return why
    if not pool.automatic:
        return "has assignmentMode Manual: it must be asked for by name"
    why = _mismatch("nodeSelector", pool.node_selector, rules.node_labels, f"node {asker.node}")
    if why is not None or pool.namespace_selector is None:
        return why
    if asker.namespace is None:
        return "has a namespaceSelector, and this address is no pod's"
    name = asker.namespace
    labels = {"kubernetes.io/metadata.name": name, "projectcalico.org/name": name}
    return _mismatch("namespaceSelector", pool.namespace_selector, labels, f"namespace {name}")


def selects_node(pool: IPPool, labels: Mapping[str, str]) -> bool:
    """Whether the pool's node selector matches; a malformed one matches nothing."""
    return _mismatch("nodeSelector", pool.node_selector, labels, "") is None


def _mismatch(field_name: str, selector: str, labels: Mapping[str, str], whom: str) -> str | None:
    try:
        parsed = parse_selector(selector)
    except BadInput as error:
        return f"has a malformed {field_name}: {error.message}"
    return (
        None
        if parsed.matches(labels)
        else f"has {field_name} {selector!r}, which {whom} does not match"
    )


def _unusable(pool: IPPool) -> str | None:
    if pool.disabled:
        return "is disabled"
    if pool.cidr.prefixlen > pool.block_size:
        return f"is smaller than one of its blocks (blockSize {pool.block_size})"
    return None


def _wrong_use(pool: IPPool, use: Use) -> str | None:
    if use in pool.allowed_uses:
        return None
    allowed = ", ".join(pool.allowed_uses) or "nothing"
    return f"has allowedUses {allowed}, not {use}"
