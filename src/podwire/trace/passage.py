"""Passage: a packet at one hook of one namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress
    from podwire.trace.flow import Packet


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Where in the stack the packet is."""

    hook: str
    """prerouting, input, forward, output, postrouting."""
    packet: Packet
    iif: str | None = None
    oif: str | None = None
    next_hop: IPAddress | None = None
    """The gateway of the route it follows."""
    local: bool = False
    """A program of this namespace made it."""
    bridged: bool = False
    """It crosses a bridge and is shown to the IP rules by br_netfilter."""
