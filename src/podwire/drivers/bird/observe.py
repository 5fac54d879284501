"""Observe: everything one BIRD says of itself, in one conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podwire.bgp.parse import parse_protocols, parse_routes, parse_status
from podwire.errors import BirdAway, Rejected

if TYPE_CHECKING:
    from podwire.bgp.state import Daemon, Protocol, RibRoute
    from podwire.drivers.bird.control import Control
    from podwire.model.addressing import IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class BirdView:
    """One BIRD: itself and its protocols."""

    daemon: Daemon
    protocols: tuple[Protocol, ...]

    @property
    def sessions(self) -> dict[str, Protocol]:
        """The BGP sessions, by BIRD's name."""
        return {one.name: one for one in self.protocols if one.session is not None}


def observe(control: Control) -> BirdView:
    """What it says of itself and its protocols.

    Raises:
        BirdAway, BirdSilent: it does not say it.
    """
    daemon = parse_status(control.do("show status"))
    if daemon is None:
        raise BirdAway("what answers on BIRD's socket does not tell its status")
    return BirdView(daemon=daemon, protocols=list_protocols(control))


def list_protocols(control: Control) -> tuple[Protocol, ...]:
    """All protocols with their details."""
    return parse_protocols(control.do("show protocols all"))


def list_routes(
    control: Control, selection: str = "", network: IPNetwork | None = None
) -> tuple[RibRoute, ...]:
    """The routes of a selection: nothing (all), `filtered`, `export NAME` or `noexport NAME`.

    `network`: only those inside it. A selection BIRD refuses (no table keeps filtered routes) is
    empty.
    """
    words = ["show route all", selection]
    if network is not None:
        words.append(f"where net ~ {network}")
    try:
        return parse_routes(control.do(" ".join(word for word in words if word)))
    except Rejected:
        return ()
