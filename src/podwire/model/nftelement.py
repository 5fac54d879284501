"""Element of a set of nftables, as the kernel takes it and as `nft` lists it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPNetwork

TABLE = "podwire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element; its key is of the parts that are given, in this order."""

    family: str
    """ip, ip6 or arp."""
    set: str
    interface: str = ""
    network: IPNetwork | None = None
    """One address; a range only in sets of several fields, which are all sets of ranges."""
    mac: str = ""
    goto: str = ""
    """Where a verdict map leads."""

    @property
    def table(self) -> str:
        """All are of our own tables."""
        return TABLE

    @property
    def text(self) -> str:
        """In nft's words."""
        parts = [f'"{self.interface}"'] if self.interface else []
        if self.network is not None:
            one = self.network.prefixlen == self.network.max_prefixlen
            parts.append(str(self.network.network_address if one else self.network))
        if self.mac:
            parts.append(self.mac)
        return " . ".join(parts) + (f" : goto {self.goto}" if self.goto else "")
