"""Selectors: what policy rules look at besides addresses and links, in a lookup."""

from __future__ import annotations

from dataclasses import dataclass

from podwire.drivers.netlink import wire

_RTA_MARK, _RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 16, 27, 28, 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """Of the packet that is asked about; None: not said."""

    mark: int | None = None
    protocol: int | None = None
    """IANA number: 1 (58 in IPv6), 6 or 17."""
    source_port: int | None = None
    destination_port: int | None = None

    def attributes(self) -> bytes:
        """As RTM_GETROUTE takes them."""
        found = b"" if self.mark is None else wire.number(_RTA_MARK, self.mark)
        if self.protocol is not None:
            found += wire.attribute(_RTA_IP_PROTO, bytes([self.protocol]))
        for kind, port in ((_RTA_SPORT, self.source_port), (_RTA_DPORT, self.destination_port)):
            if port is not None:
                found += wire.attribute(kind, wire.BE16.pack(port))
        return found
