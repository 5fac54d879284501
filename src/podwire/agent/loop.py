"""The loop: look, decide, act, tell. The page to read first.

Level-triggered: an event only says that something changed somewhere; what is to be done follows
from the whole state, never from the event. So a lost, doubled or late event does no harm, and a
restart in the middle of anything is repaired by the next turn.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import structlog

from podwire.agent.apply import Applier
from podwire.agent.audit import Audit
from podwire.agent.bgp import BGP
from podwire.agent.firewall import FirewallKeeper
from podwire.agent.forwarding import Forwarding
from podwire.agent.observe import Away, Changed, Listed, Nudge, Waiting
from podwire.agent.pace import Pace
from podwire.agent.picture import Picture
from podwire.agent.resize import Resizer, Size
from podwire.agent.status import Status, describe
from podwire.agent.strays import Strays

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.agent.loopworld import AgentWorld

PIECE_S = 0.005
"""Longest stretch of work before the loop looks up again."""
MAKE_WAY_S = 0.005
"""How long the loop leaves what woke it to the calls that are at work."""

SETTLING = "the datastore was restored from a backup, and is told of the pods it does not know"

log = structlog.get_logger(__name__)


class Loop:
    """One thread, the only one that repairs this node's kernel tables."""

    def __init__(self, world: AgentWorld) -> None:
        self._world = world
        self.picture = Picture(world.config)
        self.applier = Applier(world.session, self.picture.kernel, world.clock, world.failures)
        self.bgp = BGP(world.bird, world.clock, world.config.node)
        self.pace = Pace(world.clock)
        self.firewall = FirewallKeeper(world.config.node, world.clock)
        self.forwarding = Forwarding(world.clock, world.inbox.ring)
        self.resizer = Resizer(world.hold.active, world.inbox.ring)
        self._strays = Strays(world.has_address, world.inbox.ring)
        self._audit = Audit(self.picture.kernel, world.session, self.applier.counters)
        self._next_audit = world.clock.monotonic() + world.config.resync_period_s
        self._stopped = False
        self._wait = select.poll()
        self._wait.register(world.inbox.fileno(), select.POLLIN)
        self._wait.register(world.monitor.fileno(), select.POLLIN)
        if (rules := self.firewall.fileno()) is not None:
            self._wait.register(rules, select.POLLIN)
        self._settled = False
        self._sizes: tuple[Size, ...] = ()
        """Cables offered for a change; forgotten when they are to be tried again."""
        self.on_ready: Callable[[], None] = lambda: None
        self.on_reasons: Callable[[], None] = lambda: None
        """The reasons why the node is not ready are other ones, or none any more."""
        self.status = Status()
        """The latest status, replaced as a whole; any thread may read it."""

    def failing(self) -> int:
        """How many kernel objects were refused and wait for another try."""
        return len(self._world.failures)

    def stop(self) -> None:
        """End after the present turn; may be called from a signal handler."""
        self._stopped = True
        self._world.inbox.ring()

    def run(self) -> None:
        """Turn until stopped."""
        self.picture.kernel.list_all(self._world.session)
        busy = True
        while not self._stopped:
            patience_ms = 0 if busy else self._patience_ms()
            self.pace.rest(patience_ms / 1000)
            self._wait.poll(patience_ms)
            if not busy:
                # A call changes the kernel step by step, and each step wakes us: looking at all of
                # them together costs the call no time, for Python runs one thread at a time.
                self._world.wait_for_calls(MAKE_WAY_S)
            busy = self.turn()

    def turn(self) -> bool:
        """One turn; whether there is more to do at once.

        Safe to call at any time and any number of times.
        """
        self.pace.begin()
        counters = self.applier.counters
        counters.turns += 1
        changes = counters.writes + counters.deletes
        # Asked before the look: endpoints adopted meanwhile would be missing from what it saw.
        adopted = self._world.adopted()
        self._look()
        blocked = self.picture.why_blocked()
        busy = False
        if blocked is None:
            # Deleting what we merely have not heard of yet would cut live pods off, so nothing
            # below runs before datastore and links are in sync.
            if adopted:
                self._guard()
            busy = not self.picture.decide(self._deadline(), self._world.clock.monotonic)
            busy = self._act(may_delete=not busy and adopted) or busy
            if not busy:
                self._settled = self._settled or not self._world.hold.active()
                self.bgp.settle(self.picture, self.applier, held=self._world.hold.active())
                self._resize()
                if adopted:
                    self._announce()
        self._tell(blocked, adopted=adopted)
        self.pace.end(changed=counters.writes + counters.deletes != changes, busy=busy)
        return busy

    # --- look -----------------------------------------------------------------------------------

    def _look(self) -> None:
        picture = self.picture
        self._hear()
        picture.kernel.on_events(self._world.monitor.read())
        self.firewall.look()
        if picture.look(self._world.endpoints.all()):
            # What failed may have failed for lack of what has just changed.
            self._world.failures.try_at_once()
        if picture.take_lost() or self.applier.routes_doubtful:
            self.applier.routes_doubtful = False
            self._audit.abandon()
            picture.kernel.list_all(self._world.session)
            picture.look(self._world.endpoints.all())
        for prefix in picture.mirror.needed_besides():
            self._world.follow(prefix)
        if self.bgp.look(picture):
            picture.look(self._world.endpoints.all())
        now = self._world.clock.monotonic()
        if picture.take_news() or picture.place.is_due(now):
            address = picture.place.settled_address(now)
            underlay = picture.place.underlay(address)
            self._world.registrar.look(address, None if underlay is None else underlay.mtu)
        if picture.take_pods_came():
            self._world.registrar.look_for_block()
        self._step_audit()

    def _step_audit(self) -> None:
        """Sysctls send no event, and memory may be wrong: look again, a piece each turn."""
        now = self._world.clock.monotonic()
        if now >= self._next_audit and not self._audit.at_work:
            self._next_audit = now + self._world.config.resync_period_s
            self._audit.begin()
            self._sizes = ()
            self._world.registrar.look()
            self.forwarding.suspect()
        if self._audit.at_work:
            self._audit.step()

    def _hear(self) -> None:
        """Take in what the datastore tells."""
        mirror = self.picture.mirror
        for message in self._world.inbox.take():
            match message:
                case Listed(prefix, entries, is_restored):
                    mirror.on_listing(prefix, entries, is_restored=is_restored)
                    # What stands there of this node is old, or nothing does.
                    self.picture.publication.is_news |= is_restored
                case Changed(prefix, changes):
                    mirror.on_changes(prefix, changes)
                case Away(prefix, reason):
                    mirror.on_away(prefix, reason)
                case Waiting(why):
                    mirror.waiting = why
                    continue
                case Nudge():
                    continue
            # After each: one that was away and is back must not look as if it had never been.
            self._world.rules.look(mirror, prefix)

    # --- act ------------------------------------------------------------------------------------

    def _guard(self) -> None:
        """Close the doors, before tunnels open and before others hear that a node is let in."""
        if not self._world.hold.active():
            self.firewall.settle(
                self.picture.mirror.snapshot(),
                self.picture.take_moved_nodes(),
                self._world.endpoints.all,
            )
        self.forwarding.look(
            self.picture.way_out(),
            changed=self.firewall.take_others(),
            may_drop=self.firewall.drops_forwarded,
        )

    def _act(self, *, may_delete: bool) -> bool:
        """Carry out what is pending, for at most a few milliseconds; whether more is left."""
        if self._world.hold.active():
            return False
        deadline = self._deadline()
        picture, applier = self.picture, self.applier
        if applier.apply_links(picture.tunnels()):
            return True  # the kernel's events tell the new index; routes need it
        applier.apply_pod_links(picture.pod_links_down(self._world.clock.monotonic()))
        if may_delete:
            self._delete_strays()
        while applier.apply_piece(may_delete=may_delete):
            if self._world.clock.monotonic() >= deadline:
                return True
        applier.settle()
        return False

    def _delete_strays(self) -> None:
        """Delete veths of ours that nothing explains: no endpoint, and no address either.

        The veth of a container whose pod has a newer one keeps its address until its own DEL.
        """
        strays = self.picture.stray_links(self._world.clock.monotonic())
        for link, explained in self._strays.judge(strays):
            if explained:
                self.picture.spare(link)
            else:
                self.applier.delete_stray(link)

    def _resize(self) -> None:
        """Let live pods have the MTU of new ones, where that is wished."""
        held = self._world.hold.active()
        sizes = () if held or not self._world.config.follow_mtu else self.picture.sizes()
        if sizes != self._sizes:
            self._sizes = sizes
            self.resizer.offer(sizes)

    def _deadline(self) -> float:
        return self._world.clock.monotonic() + PIECE_S

    def _patience_ms(self) -> float:
        """How long nothing needs to be done unless something happens."""
        if self._audit.at_work:
            return 0
        now = self._world.clock.monotonic()
        waits = (
            self._next_audit - now,
            None if self._world.hold.active() else self.applier.next_wait_s(),
            self._world.hold.remaining_s(),
            self.picture.next_wait_s(now),
            self.bgp.next_wait_s(),
            self.firewall.next_wait_s(),
            self.forwarding.next_wait_s(),
        )
        shortest = min(wait for wait in waits if wait is not None)
        # One millisecond more: a wait that ends too early would only be begun again.
        return max(0.0, shortest) * 1000 + 1

    # --- tell -----------------------------------------------------------------------------------

    def _announce(self) -> None:
        publication = self.picture.settle_publication()
        publication.tell_handover(self.bgp.handover(self.picture))
        if publication.is_news and not self._world.hold.active():
            self._world.announcer.offer(publication.take())

    def _tell(self, blocked: str | None, *, adopted: bool) -> None:
        why_not = [] if blocked is None else [blocked]
        if blocked is None and not adopted:
            why_not.append("pods of an earlier run are being checked")
        if blocked is None and not self._settled:
            why_not.append("the kernel is being brought up to date")
        if self._world.settling():
            why_not.append(SETTLING)
        before = self.status
        why_not += self.bgp.reasons()
        left_out = (
            *self.bgp.concerns(),
            *self.firewall.concerns(),
            *self.forwarding.concerns(),
            *self.resizer.concerns(),
        )
        self.status = describe(self._world, self.picture, tuple(why_not), left_out)
        if self.status != before:
            report(before, self.status)
            if self.status.reasons != before.reasons:
                self.on_reasons()
            if self.status.ready and not before.ready:
                self.on_ready()


def report(before: Status, after: Status) -> None:
    """Log what changed in our own condition; nothing when nothing did."""
    if after.ready and not before.ready:
        log.info("ready")
    if after.reasons and before.reasons != after.reasons:
        log.info("not ready", reasons="; ".join(after.reasons))
    if before.mtus is not None and after.mtus is not None and before.mtus.pod != after.mtus.pod:
        log.info("mtu", pods=after.mtus.pod, before=before.mtus.pod, node=after.mtus.narrowest)
    if before.held != after.held:
        log.info("held" if after.held else "released")
    for concern in sorted(set(after.concerns) - set(before.concerns)):
        log.warning("concern", about=concern)
    for concern in sorted(set(before.concerns) - set(after.concerns)):
        log.info("concern over", about=concern)
