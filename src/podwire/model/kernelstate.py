"""KernelState: the full picture of one network namespace, as a plain value.

Trace, doctor and bundles read it; nothing in it points back into a kernel. A section that could
not be read is `Missing` with the reason, and never looks like an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podwire.model.link import Address, Link
    from podwire.model.overlay import FDBEntry, Neighbour
    from podwire.model.route import Route, Rule

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """A section that was read."""

    value: T
    time_ns: int = 0
    """Wall clock, nanoseconds since 1970."""
    generation: int = 0
    """The kernel's own change mark where it has one (nft generation), else 0."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A section that was not read, and why."""

    reason: str


Section: TypeAlias = Read[T] | Missing
NOT_READ = Missing("not collected")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRef:
    """How a network namespace is called."""

    inode: int
    """Identity of the namespace in this kernel (st_ino of its nsfs file)."""
    node: str | None = None
    """Node it belongs to, when known."""
    name: str | None = None
    """Name under /run/netns, when it has one."""
    path: str | None = None
    """A path by which it was opened."""
    root: bool = False
    """The namespace in which the node's own programs run."""
    pod: str | None = None
    """`namespace/pod`, when the alias of its veth says so."""

    @property
    def title(self) -> str:
        """The name a reader knows it by."""
        return self.pod or self.name or self.node or f"netns:[{self.inode}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """Everything one network namespace would use to decide about a packet."""

    namespace: NamespaceRef
    links: Section[tuple[Link, ...]] = NOT_READ
    addresses: Section[tuple[Address, ...]] = NOT_READ
    routes: Section[tuple[Route, ...]] = NOT_READ
    """All tables, local and broadcast routes included."""
    rules: Section[tuple[Rule, ...]] = NOT_READ
    neighbours: Section[tuple[Neighbour, ...]] = NOT_READ
    fdb: Section[tuple[FDBEntry, ...]] = NOT_READ
    sysctls: Section[Mapping[str, str]] = NOT_READ
    """By dotted name without `net.`, an interface name kept whole after its folder:
    `ipv4.ip_forward`, `ipv4.conf/cali12/proxy_arp`, `ipv4.neigh/cali12/proxy_delay`."""
    netns_ids: Section[Mapping[int, int]] = NOT_READ
    """This namespace's name (nsid) for another → that one's inode."""
    nft: Section[tuple[Mapping[str, object], ...]] = NOT_READ
    """The `nftables` array of `nft -j list ruleset`."""
    iptables_legacy: Section[str] = NOT_READ
    iptables_nft: Section[str] = NOT_READ
    ipsets: Section[str] = NOT_READ
    conntrack: Section[tuple[str, ...]] = NOT_READ
    qdiscs: Section[tuple[str, ...]] = NOT_READ
    """Classifier and XDP attachments that can take packets away."""
    sockets: Section[tuple[str, ...]] = NOT_READ
