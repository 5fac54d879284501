"""BGP: the loop's part in it. What BIRD is told, and when our own routes stand in for BIRD's.

Two owners of routes never write one key: ours have metric 0, BIRD's have 32. So both may stand for
a while, and ours count. That is how a cluster is switched from one to the other without a gap, and
how sessions that must end (a new password, a mesh that gives way to reflectors) cost no packet:
first our routes, then the change, and when BIRD's routes are back ours go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.agent.bird import Wish
from podwire.desired.bgpcompute import compute_bird
from podwire.desired.entries import Table
from podwire.model.handover import Handover
from podwire.model.link import IPIP_DEVICE
from podwire.model.node import Routing
from podwire.model.route import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podwire.agent.apply import Applier
    from podwire.agent.bird import BirdWriter
    from podwire.agent.picture import Picture
    from podwire.boundary import Clock
    from podwire.model.addressing import IPNetwork

SHORTEST_STAND_IN_S = 5.0
"""After a change: the other ends of the sessions may still be about to end theirs."""
LONGEST_STAND_IN_S = 30.0
"""What BIRD has not learnt by then it will not learn: the truth is that there is no route."""
LOOK_AGAIN_S = 0.5
RARELY_S = 60.0
"""The longest pause between looks at what an older BIRD left."""


class BGP:
    """What the loop knows of BIRD's affairs; owned by the loop's thread."""

    def __init__(self, bird: BirdWriter, clock: Clock, node: str) -> None:
        self._bird = bird
        self._clock = clock
        self._node = node
        self._wanted = False
        self._alone = False
        self._since = float("-inf")
        self._standing_in = False
        self._swept = False
        self._inherited: list[Route] | None = None
        """What an older BIRD left here; None until it was looked at."""
        self._heir_due = float("-inf")
        self._heir_pause_s = LOOK_AGAIN_S

    def look(self, picture: Picture) -> bool:
        """Tell BIRD what follows from the picture; whether who writes the routes has changed."""
        mirror = picture.mirror
        if not mirror.in_sync or mirror.cluster is None:
            return False
        self._wanted = mirror.cluster.wants_bird
        if self._wanted:
            self._swept = False
            if picture.take_bgp_news():
                self._offer(picture)
        self._note_handover(picture, alone=not mirror.cluster.wants_agent_routes)
        before = picture.standing_in
        picture.standing_in = self._standing_in = self._stand_in(picture)
        return picture.standing_in != before

    def settle(self, picture: Picture, applier: Applier, *, held: bool) -> None:
        """Nothing of ours is pending: what waited for that may go on."""
        if held or picture.here is None:
            return
        if not picture.here.agent_routes:
            self._inherit(picture, applier)
        elif self._bird.wants_stand_in:
            self._bird.on_standing_in()
        elif not self._wanted and self._bird.has_file:
            self._retire()
            if not self._swept and self._is_retired():
                applier.delete_foreign(picture.stale_bird_routes())
                self._swept = True

    def handover(self, picture: Picture) -> Handover | None:
        """How far this node is with a switch; None while there is none. Nothing must be pending."""
        cluster = picture.mirror.cluster
        if cluster is None or cluster.next_routing is None or picture.here is None:
            return None
        complete = set()
        pending = picture.kernel.trackers[Table.ROUTES].pending
        foreign = next(iter(pending.conflicts.values()), None)
        missing = next(iter([*self.reasons(), *self._refusal()]), None)
        if missing is None and self._bird.report.told is not self._bird.wish:
            missing = "BIRD is reading its configuration"
        if picture.here.agent_routes and not pending.writes and foreign is None:
            complete.add(Routing.AGENT)
        elif isinstance(foreign, Route):
            missing = missing or f"route {foreign.key.destination} is somebody else's"
        block = next(picture.blocks_without_bird(), None)
        if missing is None and block is None:
            complete.add(Routing.BIRD)
        elif block is not None:
            missing = missing or f"BIRD has no route to {block} of {_holder(picture, block)}"
        return Handover(complete=frozenset(complete), missing=missing)

    def reasons(self) -> list[str]:
        """Why this node cannot serve its part; nothing where BIRD has none."""
        if not self._wanted:
            return []
        report = self._bird.report
        if report.away is not None:
            return [str(report.away)]
        if report.told is not None:
            return []
        why = "BIRD has not read its configuration yet"
        return [why if report.refused is None else f"{why}: {report.refused}"]

    def concerns(self) -> Iterator[str]:
        """What BIRD goes on without."""
        if not self._wanted:
            return
        yield from self._bird.report.left_out
        yield from self._refusal()
        if self._inherited and self._heir_pause_s >= LONGEST_STAND_IN_S:
            some = ", ".join(str(route.key.destination) for route in self._inherited[:3])
            yield (
                f"an older BIRD left {len(self._inherited)} routes into pools that ours does not"
                f" know ({some}): nobody keeps them true; look at podwire bgp routes"
            )

    def _refusal(self) -> Iterator[str]:
        report = self._bird.report
        if report.refused is not None and report.told is not None:
            yield f"BIRD keeps its last configuration: {report.refused}"

    def next_wait_s(self) -> float | None:
        """Seconds until the next look at what changes without an event; None: never."""
        if self._standing_in:
            return LOOK_AGAIN_S
        if not self._wanted or self._bird.report.told is None or self._inherited == []:
            return None
        wait_s = self._heir_due - self._clock.monotonic()
        return wait_s if wait_s > 0 else LOOK_AGAIN_S

    def _offer(self, picture: Picture) -> None:
        has_ipip = picture.kernel.index_of(IPIP_DEVICE) is not None
        config = compute_bird(picture.mirror.snapshot(), self._node, has_ipip=has_ipip)
        if config is None:
            return
        before = self._bird.wish
        if before is None or before.config != config:
            self._bird.offer(Wish(config=config, nodes=frozenset(picture.mirror.nodes)))

    def _inherit(self, picture: Picture, applier: Applier) -> None:
        """Delete the routes of an older BIRD (Calico's) to wherever ours has its own by now.

        Theirs have another metric, so BIRD leaves them alone; and where they have none they would
        count before ours for ever, wherever their block has gone since.
        """
        now = self._clock.monotonic()
        if self._bird.report.told is None or self._inherited == [] or now < self._heir_due:
            return
        found = picture.routes_of_older_bird()
        done = [route for route in found if picture.has_successor(route)]
        if done:
            applier.delete_foreign(done)
        self._inherited = [route for route in found if route not in done]
        self._heir_due = now + self._heir_pause_s
        self._heir_pause_s = min(2 * self._heir_pause_s, RARELY_S)

    def _retire(self) -> None:
        wish = self._bird.wish
        if wish is None or wish.config is not None:
            self._bird.offer(Wish(config=None))

    def _is_retired(self) -> bool:
        """Whether BIRD writes no routes any more: it has been told so, or is not there."""
        wish, report = self._bird.wish, self._bird.report
        if wish is None or wish.config is not None:
            return False
        return report.told is wish or report.away is not None

    def _note_handover(self, picture: Picture, *, alone: bool) -> None:
        """BIRD writes alone from now on: where routes of ours still stand, they wait for BIRD's.

        At a switch BIRD's are there already. But the switch may have been made while this agent
        was away, or the agent may have been killed while its routes stood in.
        """
        if alone and not self._alone and picture.leads_elsewhere():
            self._since = self._clock.monotonic()
            picture.standing_in = True
        self._alone = alone

    def _stand_in(self, picture: Picture) -> bool:
        """Whether our routes should stand in for BIRD's now."""
        if self._bird.wants_stand_in:
            return True
        if not picture.standing_in or not self._wanted:
            return False
        changed_at = self._bird.changed_at
        since = self._since if changed_at is None else max(changed_at, self._since)
        passed = self._clock.monotonic() - since
        if changed_at == since and passed < SHORTEST_STAND_IN_S:
            return True
        complete = next(picture.blocks_without_bird(), None) is None
        return not complete and passed < LONGEST_STAND_IN_S


def _holder(picture: Picture, block: IPNetwork) -> str:
    affinity = picture.mirror.affinities.get(block)
    return "somebody" if affinity is None else f"node {affinity.node}"
