"""Whose a route is that stands where we want one (docs/adr/0010-hand-made-routes.md). Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from podwire.model.route import PROTOCOL_BIRD, PROTOCOL_BOOT, PROTOCOL_PODWIRE, Route, RouteKind

if TYPE_CHECKING:
    from podwire.desired.entries import Entry


class Holder(Enum):
    """Who holds a route's key."""

    OURS = "it carries our mark"
    DRIFT = "made by hand in the place of ours while we watched: it is taken back"
    LEFT = "the blackhole of our block, as Calico's BIRD left it: ours takes its place"
    FOREIGN = "somebody else's: a conflict, never replaced"


def holder(route: Route, *, ours_stood_here: bool) -> Holder:
    """Whose the route is.

    Protocol boot is what `ip route` writes when no protocol is named: a person typed it, and no
    program will write it again. Where our own route stood a moment ago, such a route is our own
    changed by hand. Where none of ours stood, or before we watched, a person may have meant it.
    A protocol that has an owner (static, bird, …) is always its owner's: two programs that write
    one key would fight for ever.

    But for one: Calico's BIRD makes a blackhole for each block of its node, which our BIRD would
    not announce, because it learns of blocks by our mark. It ended together with Felix, beside
    which no agent runs. Should one come back after ours stood there, its owner lives after all.

    Args:
        route: what stands there now, under a key that we want.
        ours_stood_here: whether a route with our mark stood under this key since this agent
            began to watch, and it was not this agent that took it away.
    """
    if route.protocol == PROTOCOL_PODWIRE:
        return Holder.OURS
    if route.protocol == PROTOCOL_BOOT and ours_stood_here:
        return Holder.DRIFT
    if _is_announcement(route) and not ours_stood_here:
        return Holder.LEFT
    return Holder.FOREIGN


def serves(wanted: Entry, foreign: Entry) -> bool:
    """Whether a foreign route leads packets just where ours would: then both are content.

    So do the routes of pods that Calico attached: its plugin wrote them, and they go with the veth.
    """
    if not (isinstance(wanted, Route) and isinstance(foreign, Route)):
        return False
    plain = foreign.nexthop_id is None and foreign.mtu is None and not foreign.not_modelled
    plain = plain and not _is_announcement(foreign)
    same = (wanted.kind, wanted.scope, wanted.hops) == (foreign.kind, foreign.scope, foreign.hops)
    return plain and same


def _is_announcement(route: Route) -> bool:
    """Whether it is what a BIRD announces a block by: of two, only one can be the block's."""
    return route.protocol == PROTOCOL_BIRD and route.kind is RouteKind.BLACKHOLE
