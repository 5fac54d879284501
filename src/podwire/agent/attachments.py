"""The plugin's calls on this node: who may run beside whom, and what each is answered.

Calls of one container, and calls for one host interface, take turns; all others run at once.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from podwire.agent import check as checks
from podwire.agent.attach import attach, refuse_bad_namespace
from podwire.agent.detach import detach, host_name
from podwire.agent.probe import Probe
from podwire.agent.recover import recover
from podwire.agent.surplus import Surplus
from podwire.drivers.netlink.session import Session
from podwire.drivers.store.standing import require_decision
from podwire.errors import AgentUnavailable, DatastoreUnavailable, PodwireError, Stale
from podwire.model.cni import Answer, CallRefused, Code, Command
from podwire.model.cnicall import (
    asked_version,
    parse_call,
    render_error,
    render_result,
    render_versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podwire.agent.world import CNIWorld
    from podwire.model.cni import Call, Demand, Pod, Request
    from podwire.model.endpoint import AttachmentKey

    Confirm = Callable[[Answer], bool]
    Gone = Callable[[], bool]

DRAIN_PERIOD_S = 5.0
"""How often the spool is looked at; it is empty unless agent or datastore were away."""
REFUSED_FOR_S = 15.0
"""How long an answer of STATUS is believed without asking again; runtimes ask every few seconds."""

log = structlog.get_logger(__name__)


class Turns:
    """Locks by name; a lock lives as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """Wait until nobody else holds the name, and hold it for the block."""
        with self._lock:
            turn, users = self._held.get(name, (threading.Lock(), 0))
            self._held[name] = (turn, users + 1)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                users = self._held[name][1] - 1
                if users:
                    self._held[name] = (turn, users)
                else:
                    del self._held[name]


class Attachments:
    """The CNI use cases of one node. `start` before the first call, `stop` after the last."""

    def __init__(self, world: CNIWorld) -> None:
        self.world = world
        self.loaded = False
        """Whether datastore and kernel have been compared; before it nothing is attached."""
        self._turns = Turns()
        self._lock = threading.Lock()
        self._busy: dict[AttachmentKey, int] = {}
        self._idle = threading.Event()
        """Set while nobody is busy."""
        self._idle.set()
        self._valid: dict[str, set[str]] = {}
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cni-background")
        self._claiming = False
        self._refused: dict[Demand, tuple[float, str]] = {}
        """What STATUS refused last, and when; a hold apart, which ends at once."""
        self._surplus = Surplus(world)
        self.on_forgotten: Callable[[], None] = lambda: None
        """Pods live here that the datastore does not know."""
        self._status = Probe(world)
        self._stopping = threading.Event()
        self._drainer = threading.Thread(target=self._drain_often, name="spool", daemon=True)

    def start(self) -> None:
        """Prepare the spool, recover what can be recovered now, and look at the spool from now on.

        A datastore that is away is no error: it is tried again, and calls are answered so.

        Raises:
            BadInput: the spool's directory cannot be used.
        """
        self.world.spool.prepare()
        try:
            if not self.world.held():
                self.load()
        except PodwireError as error:
            log.warning("endpoints not recovered yet", reason=str(error))
        self._drainer.start()
        self._surplus.start()

    def stop(self) -> None:
        """End the background work; the pod network stays as it is."""
        self._stopping.set()
        if self._drainer.is_alive():
            self._drainer.join()
        self._surplus.stop()
        self._background.shutdown(wait=True)

    def load(self) -> None:
        """Compare datastore and kernel once, before the first attachment.

        Raises:
            DatastoreUnavailable: away; call again.
            AgentUnavailable: held.
            InUse: nobody has said yet who writes the routes between Calico's nodes and ours.
        """
        with self._lock:
            if not self.loaded:
                self.world.refuse_when_held()
                require_decision(self.world.store)
                forgotten = recover(self.world)
                self.loaded = True
                if forgotten:
                    self.on_forgotten()
                self._surplus.look_soon()

    def drain(self) -> int:
        """Do the DELs of the spool; how many were done."""
        if self.world.held() or not self.world.spool.pending():
            return 0
        self.load()
        # Asked once for all of them: each would wait for the same answer.
        self.world.refuse_when_frozen()
        return self.world.spool.drain(self._detach)

    def working(self) -> bool:
        """Whether an ADD or DEL is being carried out."""
        with self._lock:
            return bool(self._busy)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no ADD or DEL is being carried out; whether that came in time."""
        return self._idle.wait(timeout_s)

    def busy(self) -> frozenset[AttachmentKey]:
        """The attachments of which an ADD or DEL is being carried out, or waits for its turn."""
        with self._lock:
            return frozenset(self._busy)

    def valid_in(self, network: str) -> set[str] | None:
        """The containers the runtime named in the network's last GC, and those added since.

        None when there was no GC.
        """
        return self._valid.get(network)

    @contextmanager
    def alone_with(self, key: AttachmentKey) -> Iterator[None]:
        """Hold up every call for the attachment for the block."""
        with self._turn(key, None):
            yield

    def look_for_surplus(self) -> None:
        """Addresses were released: see soon whether a block can be given back."""
        self._surplus.look_soon()

    def why_refused(self) -> tuple[str, ...]:
        """What STATUS found in the way of an ADD a moment ago; nothing when nobody asked."""
        since = self.world.clock.monotonic() - REFUSED_FOR_S
        reasons = [reason for at, reason in list(self._refused.values()) if at >= since]
        return tuple(dict.fromkeys(reasons))

    def serve(self, call: Call, netns: int | None, *, gone: Gone, confirm: Confirm) -> None:
        """Carry out one call.

        `confirm` delivers the answer and says whether the caller has it; `gone` whether the caller
        has left meanwhile. An ADD that is not confirmed is undone.
        """
        try:
            answer = self._run(call, netns, gone, confirm)
        except PodwireError as error:
            if isinstance(error, DatastoreUnavailable):
                self.world.doubt_store()
            answer = render_error(error, asked_version(call.stdin))
        except OSError as error:
            refused = CallRefused(Code.IO, f"the agent met an I/O error: {error}")
            answer = render_error(refused, asked_version(call.stdin))
        except Exception:
            log.exception("call failed")
            told = CallRefused(Code.IO, "the agent met an unexpected error", fix="see its log")
            answer = render_error(told, asked_version(call.stdin))
        if answer is not None:
            confirm(answer)

    def _run(self, call: Call, netns: int | None, gone: Gone, confirm: Confirm) -> Answer | None:
        """The answer; None when it has been delivered already."""
        request = parse_call(call)
        match request.command:
            case Command.ADD:
                self._add(request, required(netns, request), gone, confirm)
                return None
            case Command.DEL:
                self._delete(request)
            case Command.CHECK:
                self.load()
                refuse_bad_namespace(request, required(netns, request))
                with self._turn(request.key, request.pod):
                    checks.check(self.world, request, required(netns, request))
            case Command.GC:
                self._collect(request)
            case Command.STATUS:
                self._probe(request.demand)
            case Command.VERSION:
                return render_versions(request.config.version)
        return Answer()

    def _add(self, request: Request, netns: int, gone: Gone, confirm: Confirm) -> None:
        self.world.refuse_when_held()
        self.load()
        with self._working_on(request.key), self._turn(request.key, request.pod):
            done = attach(self.world, request, netns, gone)
            self._status.forget()
            with done.undo as undo:
                if not confirm(render_result(done.result, request.config)):
                    log.info("ADD undone: its caller left", container=request.container_id)
                    return
                undo.pop_all()
        if request.key.network in self._valid:
            self._valid[request.key.network].add(request.container_id)
        if done.fresh:
            self._refused = {}
            self._claim_ahead()

    def _delete(self, request: Request) -> None:
        key = self.world.endpoints.resolve(request.key)
        try:
            self.world.refuse_when_held()
            self.load()
            key = self.world.endpoints.resolve(request.key)
            with self._working_on(key), self._turn(key, request.pod):
                with self.world.store.together():
                    detach(self.world, key, request.pod)
                # One that an earlier DEL left in the spool is done with this.
                self.world.spool.drain(lambda _: None, only=key)
            self._surplus.look_soon()
        except (DatastoreUnavailable, AgentUnavailable, Stale) as error:
            self.world.spool.keep(key)
            if isinstance(error, DatastoreUnavailable):
                self.world.doubt_store()
            log.info("DEL spooled", container=request.container_id, reason=str(error))

    def _collect(self, request: Request) -> None:
        self.world.refuse_when_held()
        self.load()
        self.world.refuse_when_frozen()
        with Session.open() as host:
            links = tuple(host.links().values())
        valid = request.config.valid or frozenset()
        self._valid[request.config.name] = {container for container, _ in valid}
        stale = checks.stale_attachments(self.world, request, links, self.busy())
        checks.collect(stale, self._detach)

    def _probe(self, demand: Demand) -> None:
        try:
            self.load()
            self._status.run(demand)
            self._refused.pop(demand, None)
        except PodwireError as error:
            if not isinstance(error, AgentUnavailable):
                self._refused[demand] = self.world.clock.monotonic(), str(error)
            if isinstance(error, DatastoreUnavailable):
                self.world.doubt_store()
            raise CallRefused(Code.NOT_AVAILABLE, error.message, fix=error.fix) from error

    def _detach(self, key: AttachmentKey) -> None:
        with self._turn(key, None):
            detach(self.world, key)
        self._surplus.look_soon()

    @contextmanager
    def _turn(self, key: AttachmentKey, pod: Pod | None) -> Iterator[None]:
        local = self.world.endpoints.get(key)
        interface = host_name(key, pod) if local is None else local.endpoint.interface
        # Always container first: two calls can never wait for each other.
        with ExitStack() as held:
            held.enter_context(self._turns.take(f"container {key.container_id}"))
            held.enter_context(self._turns.take(f"interface {interface}"))
            yield

    @contextmanager
    def _working_on(self, key: AttachmentKey) -> Iterator[None]:
        with self._lock:
            self._busy[key] = self._busy.get(key, 0) + 1
            self._idle.clear()
        try:
            yield
        finally:
            with self._lock:
                self._busy[key] -= 1
                if not self._busy[key]:
                    del self._busy[key]
                if not self._busy:
                    self._idle.set()

    def _claim_ahead(self) -> None:
        """Claim the next block in the background, before somebody needs it."""
        with self._lock:
            if self._claiming or self._stopping.is_set():
                return
            self._claiming = True
        self._background.submit(self._claim)

    def _claim(self) -> None:
        with self._lock:
            self._claiming = False
        try:
            with self.world.store.together():
                self.world.ipam.claim_ahead()
        except PodwireError as error:
            log.warning("no block claimed ahead", reason=str(error))

    def _drain_often(self) -> None:
        while not self._stopping.wait(DRAIN_PERIOD_S):
            if self.world.held():
                continue
            try:
                self.load()
                self.drain()
            except PodwireError as error:
                log.warning("spool not drained", reason=str(error))


def required(netns: int | None, request: Request) -> int:
    """The descriptor that came with a call that needs one.

    Raises:
        CallRefused: code 4; none came.
    """
    if netns is None:
        raise CallRefused(
            Code.ENVIRONMENT,
            f"CNI_NETNS {request.netns!r} came without a descriptor",
            fix="call the agent through podwire-cni",
        )
    return netns
