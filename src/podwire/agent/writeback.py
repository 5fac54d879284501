"""Write back: tell a datastore that was restored from a backup of the pods that live here.

A pod that was attached after the backup lives in the kernel and in our registry, and the datastore
knows neither its endpoint nor its address, which it would give to another pod. Endpoint, address
and block are written again. While the nodes do that, each as soon as it has noticed, no node
attaches pods, claims blocks or gives any back: what looks free may be a pod's of another node.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from podwire.agent.attach import attributes_of
from podwire.agent.detach import handle_of
from podwire.agent.leaks import delete_endpoints
from podwire.boundary import Verb, Write
from podwire.errors import AgentUnavailable, DatastoreUnavailable, PodwireError, Stale
from podwire.ipam.leaks import Tenant
from podwire.ipam.request import AssignRequest
from podwire.model import codec
from podwire.reconcile.backoff import LONGEST_DELAY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podwire.agent.attachments import Attachments
    from podwire.agent.endpoints import LocalEndpoint
    from podwire.model.addressing import IPAddress
    from podwire.model.block import Allocation
    from podwire.model.endpoint import AttachmentKey

OTHERS_S = 2.0
"""How long another node may need to write back its pods once it has noticed."""
RETRY_S = 1.0
"""When to go on after the datastore was away or frozen, or the agent held."""
AGAIN_S = 30.0
"""When to look again at pods that could not be written back: what was in the way may be gone."""

log = structlog.get_logger(__name__)


class Writeback:
    """A thread that sleeps until the datastore may have forgotten pods of this node.

    Attributes:
        problems: what could not be written back, and why; replaced as a whole.
        written: pods written back.
    """

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._world = attachments.world
        attachments.on_forgotten = self.on_restored
        self._changed = threading.Condition()
        self._due: float | None = None
        self._until = 0.0
        """When the other nodes have written back theirs (monotonic)."""
        self._delay: str | None = None
        """Why the last look came to nothing."""
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="write back", daemon=True)
        self.problems: dict[AttachmentKey, str] = {}
        self.written = 0
        self.is_settling = False
        """Whether the datastore was restored a moment ago."""
        self.on_settled: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """End; a pod that is begun is finished."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def on_restored(self, away_s: float = 0.0) -> None:
        """The datastore was restored; it had been away for so long.

        The others were cut off with us. Whoever tried a moment before it was back waits at most
        twice as long as it was away until the next try, and never longer than the longest delay.
        """
        now = self._world.clock.monotonic()
        with self._changed:
            self._until = max(self._until, now + min(2 * away_s, LONGEST_DELAY_S) + OTHERS_S)
            self.is_settling = True
        self.look_soon()

    def look_soon(self) -> None:
        """Compare all pods with the datastore now."""
        with self._changed:
            self._due = self._world.clock.monotonic()
            self._changed.notify()

    def concerns(self) -> tuple[str, ...]:
        """Pods that could not be written back."""
        there = self._world.endpoints.all()
        return tuple(text for key, text in self.problems.items() if key in there)

    def _run(self) -> None:
        while self._wait():
            again_in_s = self._look()
            now = self._world.clock.monotonic()
            settled = False
            with self._changed:
                if self.is_settling and again_in_s is None and now >= self._until:
                    self.is_settling, settled = False, True
                if self.is_settling:
                    again_in_s = RETRY_S if again_in_s is not None else self._until - now
                elif self.problems:
                    again_in_s = AGAIN_S
                if again_in_s is not None and self._due is None:
                    self._due = now + again_in_s
            if settled:
                log.info("settled after the datastore was restored")
                self.on_settled()

    def _wait(self) -> bool:
        """Sleep until a look is due; False when there will be none any more."""
        with self._changed:
            while not self._stopped:
                rest = None if self._due is None else self._due - self._world.clock.monotonic()
                if rest is not None and rest <= 0:
                    self._due = None
                    return True
                self._changed.wait(rest)
            return False

    # --- the look -------------------------------------------------------------------------------

    def _look(self) -> float | None:
        """Compare every pod; seconds until it must go on because something was in the way."""
        problems: dict[AttachmentKey, str] = {}
        for key in self._world.endpoints.all():
            try:
                self._world.refuse_when_held()
                self._world.refuse_when_locked()
                problem = self._compare(key)
            except (DatastoreUnavailable, AgentUnavailable) as error:
                if str(error) != self._delay:
                    log.warning("pods not written back yet", reason=str(error))
                self._delay = str(error)
                return RETRY_S
            except PodwireError as error:
                problem = str(error)
            except Exception:
                log.exception("pod not written back", container=key.container_id)
                problem = f"container {key.container_id}: an unexpected error, see the agent's log"
            if problem is not None:
                problems[key] = problem
                if self.problems.get(key) != problem:
                    log.warning("pod not written back", reason=problem)
        self.problems = problems
        self._delay = None
        return None

    def _compare(self, key: AttachmentKey) -> str | None:
        """Write one pod back if need be; what remains amiss."""
        with self._attachments.alone_with(key):
            local = self._world.endpoints.get(key)
            if local is None:
                return None  # deleted meanwhile
            endpoint, problem = local.endpoint, None
            for each in endpoint.addresses:
                try:
                    problem = self._regain(local, each.ip) or problem
                except Stale:
                    raise DatastoreUnavailable(
                        f"endpoint of {endpoint.title} moves all the time", fix="wait"
                    ) from None
                except PodwireError as error:
                    if isinstance(error, DatastoreUnavailable):
                        raise
                    problem = f"pod {endpoint.title}, unknown to the restored datastore: {error}"
            return problem

    def _regain(self, local: LocalEndpoint, address: IPAddress) -> str | None:
        world, endpoint = self._world, local.endpoint
        gone: list[Allocation] = []
        live = {key.handle for key in (*world.endpoints.all(), *self._attachments.busy())}

        def is_gone(taken: Allocation) -> bool:
            # Of this node, and not here: a pod that went after the backup was made.
            told = taken.attributes
            if told.get("node") != world.node or "pod" not in told or taken.handle in live:
                return False
            gone.append(taken)
            return True

        request = AssignRequest(
            handle=handle_of(world, local.key, endpoint),
            attributes=attributes_of(world, endpoint),
            address=address,
            also=lambda _: self._endpoint_writes(local),
        )
        regained = world.ipam.regain(request, is_gone)
        for each in gone:
            forgotten = Tenant(handle=str(each.handle), title="")
            namespace = each.attributes.get("namespace", "")
            delete_endpoints(world, namespace, forgotten.container_ids)
        if regained.entered:
            self.written += 1
            log.info("pod written back", pod=endpoint.title, address=str(address))
        if regained.stranded_at is None:
            return None
        return (
            f"pod {endpoint.title}: its address {address} lies in a block that has become node"
            f" {regained.stranded_at}'s, so other nodes do not reach it"
            " (delete the pod: it is made anew with another address)"
        )

    def _endpoint_writes(self, local: LocalEndpoint) -> Sequence[Write]:
        """What the datastore lacks of the endpoint; an older container's gives way."""
        endpoint, key = local.endpoint, codec.key_of(local.endpoint)
        found = self._world.stored_endpoint(key)
        if found is None:
            return [Write(verb=Verb.CREATE, key=key, value=codec.encode(endpoint))]
        if found[0].container_id == endpoint.container_id:
            return ()
        value = codec.encode(replace(endpoint, wire=found[1]))
        return [Write(verb=Verb.UPDATE, key=key, value=value, revision=found[2])]
