"""What this node's table of nftables should hold: pods reach the world with its address. Pure.

A pod that sends with a foreign address needs no rule: rp_filter drops it on its own cable, and the
kernel counts that (IPReversePathFilter).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podwire.model.addressing import IPNetwork
    from podwire.model.snapshot import Snapshot

TABLE = "podwire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """What decides every rule; the same for every node of a cluster."""

    pools: tuple[IPv4Network, ...] = ()
    """Pods' addresses: between them nothing is ever translated."""
    masqueraded: tuple[IPv4Network, ...] = ()
    """Pools with natOutgoing."""

    @property
    def needed(self) -> bool:
        """Whether there is any rule to have."""
        return bool(self.masqueraded)


def firewall(snapshot: Snapshot) -> Firewall:
    """Decide."""
    pools = snapshot.pools.values()
    return Firewall(
        pools=_fewest(pool.cidr for pool in pools),
        masqueraded=_fewest(pool.cidr for pool in pools if pool.nat_outgoing),
    )


def render(wanted: Firewall) -> str:
    """The whole table as one transaction for `nft -f`, whatever stands there now.

    Chain and sets are emptied and filled; the counter stays, as an object of its own. Without any
    rule there is no table: a chain of NAT has the kernel track every connection.
    """
    if not wanted.needed:
        return f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    return f"""\
table ip {TABLE} {{
    counter nat-outgoing {{ }}
    set pools {{ type ipv4_addr; flags interval; }}
    set masqueraded {{ type ipv4_addr; flags interval; }}
    chain postrouting {{ type nat hook postrouting priority srcnat; }}
}}
flush chain ip {TABLE} postrouting
flush set ip {TABLE} pools
flush set ip {TABLE} masqueraded
add element ip {TABLE} pools {{ {_listed(wanted.pools)} }}
add element ip {TABLE} masqueraded {{ {_listed(wanted.masqueraded)} }}
add rule ip {TABLE} postrouting ip saddr @masqueraded ip daddr != @pools \
counter name nat-outgoing masquerade comment "natOutgoing"
"""


def _listed(networks: Iterable[IPv4Network]) -> str:
    return ", ".join(map(str, networks))


def _fewest(networks: Iterable[IPNetwork]) -> tuple[IPv4Network, ...]:
    """The IPv4 ones without overlaps, which an interval set would refuse."""
    return tuple(collapse_addresses(n for n in networks if isinstance(n, IPv4Network)))
