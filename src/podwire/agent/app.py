"""The agent's composition root: builds every part, joins them, and takes them apart again."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from podwire.agent.attachments import Attachments
from podwire.agent.bird import BirdWriter
from podwire.agent.collecting import Collecting
from podwire.agent.endpoints import LocalEndpoints
from podwire.agent.gate import Gate
from podwire.agent.health import Readiness
from podwire.agent.healthpages import pages
from podwire.agent.healthserver import HealthServer
from podwire.agent.hold import Hold
from podwire.agent.loop import Loop
from podwire.agent.loopworld import AgentWorld
from podwire.agent.mirror import FOR_IPAM, NEEDED
from podwire.agent.nodename import NodeName
from podwire.agent.observe import Away, Inbox, StoreObserver
from podwire.agent.publish import Announcer, Publisher
from podwire.agent.register import Registrar
from podwire.agent.rulescopy import RulesCopy
from podwire.agent.server import CNIServer
from podwire.agent.sources import Sources
from podwire.agent.spool import Spool
from podwire.agent.status import as_json
from podwire.agent.strays import has_address
from podwire.agent.sweep import Sweep
from podwire.agent.timedstore import TimedStore
from podwire.agent.timing import TimedCalls
from podwire.agent.world import CNIWorld
from podwire.agent.writeback import Writeback
from podwire.drivers.boot import boot_id
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.felix import find_felix
from podwire.drivers.netlink.monitor import Monitor
from podwire.drivers.netlink.session import Session
from podwire.drivers.store import ensure_cluster, open_store
from podwire.drivers.store.standing import require_decision
from podwire.errors import BadInput, InUse, PodwireError
from podwire.ipam.service import IPAM
from podwire.model import keys
from podwire.reconcile.backoff import Failures, delay_s

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from podwire.boundary import Clock
    from podwire.model.config import AgentConfig
    from podwire.model.resource import JSON

SWITCH_INTERVAL_S = 0.001
"""How long one thread may keep Python to itself while another waits: bulk work of the loop must
not delay an ADD. (The interpreter's own value is 5 ms.)"""
DECISION_S = 1.0
"""How often to ask whether a human has decided."""

log = structlog.get_logger(__name__)


def run(config: AgentConfig) -> None:
    """Run the agent of one node until SIGTERM or SIGINT; the pod network stays as it is.

    Raises:
        InUse: another agent has this socket, or Felix runs here.
        BadInput: socket or spool cannot be made.
        KernelError, Forbidden: the network namespace cannot be read.
    """
    configure_log()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as stack:
        claim_socket(Path(config.agent_socket), stack)
        refuse_felix()
        agent = Agent(config, stack)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, agent.on_signal)
        agent.loop.on_ready = agent.say_ready
        agent.start(stack)
        agent.loop.run()
        log.info("ending", reason="signal")


class Agent:
    """All parts of one running agent."""

    def __init__(self, config: AgentConfig, stack: ExitStack) -> None:
        clock, dice = SystemClock(), SystemDice()
        self.config = config
        self.dice = dice
        self.inbox = Inbox()
        self.store = TimedStore(open_store(config.datastore), clock)
        stack.callback(self.store.close)
        self.hold = Hold(clock, on_release=self.inbox.ring)
        self.name = NodeName(self.store, config, clock, self.hold, self.inbox, dice.uniform)
        self.name.address = self.own_address
        self.name.on_return = self.on_return
        self.rules = RulesCopy(config.node, clock)
        self.ipam = IPAM(self.store, config.node, clock, dice, turn=threading.Lock())
        self.ipam.follow(self.rules.read)
        self.endpoints = LocalEndpoints(on_change=self.inbox.ring)
        self.publisher = Publisher(self.store, config.node, clock)
        self.announcer = Announcer(self.publisher, dice.uniform)
        self.registrar = Registrar(
            node=config.node,
            store=self.store,
            ipam=self.ipam,
            hold=self.hold,
            clock=clock,
            draw=dice.uniform,
        )
        self.registrar.on_change = self.inbox.ring
        self.registrar.refuse_other = self.name.reporter.refuse_other
        self.bird = BirdWriter(config, clock, held=self.hold.active, on_change=self.inbox.ring)
        self._observers: dict[str, StoreObserver] = {}
        self.attachments: Attachments
        self.world = self._agent_world(stack, clock)
        self.loop = Loop(self.world)
        self.publisher.watch_over(self.other_nodes)
        self.spool = Spool(Path(config.spool_dir))
        self.attachments = Attachments(self._cni_world(clock))
        self.writeback = Writeback(self.attachments)
        self.writeback.on_settled = self.on_settled
        self.registrar.may_take = lambda: not self.is_settling()
        self.sweep = Sweep(
            self.attachments,
            self.loop.picture.mirror,
            config,
            dice,
            registered=lambda: self.registrar.registered,
        )
        gate = Gate(self.attachments, self.why_closed, self.is_hopeless, clock)
        self.calls = TimedCalls(gate, clock)
        self.server = CNIServer(Path(config.agent_socket), self.calls, self.control)
        self.readiness = Readiness(self.loop, self.hold, self.attachments)
        self.name.reporter.reasons = self.readiness.reasons
        self.loop.on_reasons = self.name.reporter.look_soon
        self.sources = self._sources(clock)
        self.health: HealthServer | None = None
        if config.health_address is not None:
            self.health = HealthServer(config.health_address, pages(self.sources))

    def _agent_world(self, stack: ExitStack, clock: Clock) -> AgentWorld:
        return AgentWorld(
            config=self.config,
            # The monitor before the first listing: nothing may fall between the two.
            monitor=stack.enter_context(Monitor("link", "address", "route", "neighbour", "fdb")),
            session=stack.enter_context(Session.open()),
            inbox=self.inbox,
            endpoints=self.endpoints,
            hold=self.hold,
            clock=clock,
            registrar=self.registrar,
            publisher=self.publisher,
            announcer=self.announcer,
            failures=Failures(self.dice.uniform),
            follow=self.follow,
            rules=self.rules,
            bird=self.bird,
            adopted=lambda: self.attachments.loaded,
            wait_for_calls=self.wait_for_calls,
            has_address=lambda owner: has_address(self.store, owner),
            settling=self.is_settling,
        )

    def _cni_world(self, clock: Clock) -> CNIWorld:
        return CNIWorld(
            node=self.config.node,
            store=self.store,
            ipam=self.ipam,
            endpoints=self.endpoints,
            spool=self.spool,
            clock=clock,
            mtu=self.loop.picture.pod_mtu,
            wait_applied=self.publisher.wait_applied,
            forget_applied=self.publisher.forget,
            boot=boot_id(),
            admit=self.loop.firewall.admit,
            may_spoof=self.loop.firewall.may_spoof,
            settling=self.is_settling,
            held=self.hold.active,
            refuse_standing_back=self.hold.refuse_standing_back,
            doubt_store=self.registrar.doubt,
        )

    def _sources(self, clock: Clock) -> Sources:
        return Sources(
            config=self.config,
            clock=clock,
            loop=self.loop,
            readiness=self.readiness,
            calls=self.calls,
            store=self.store,
            observers=lambda: list(self._observers.values()),
            ipam=self.ipam,
            endpoints=self.endpoints,
            hold=self.hold,
            spool=self.spool,
            publisher=self.publisher,
            sweep=self.sweep,
            bird=self.bird,
        )

    def start(self, stack: ExitStack) -> None:
        """Start every thread; the loop itself is run by the caller."""
        self._stopped = threading.Event()
        self.collecting = Collecting()
        stack.callback(self.name.close)
        stack.callback(self.stop)
        self.writeback.start()
        stack.callback(self.writeback.stop)
        self.attachments.start()
        stack.callback(self.attachments.stop)
        self.server.start()
        stack.callback(self.server.stop)
        if self.health is not None:
            self.health.start()
            stack.callback(self.health.stop)
        self.announcer.start()
        self.sweep.start()
        stack.callback(self.sweep.stop)
        threading.Thread(target=self.begin, name="begin", daemon=True).start()

    def begin(self) -> None:
        """Wait for the datastore, then follow it; what lived before us is adopted meanwhile.

        Until somebody has said who writes the routes, where Calico's nodes have to know, and while
        another agent serves this node, nothing is written anywhere.
        """
        failures = 0
        while not self._stopped.is_set():
            try:
                if not self.hold.is_asked():
                    ensure_cluster(self.store)
                    require_decision(self.store)
                self.name.take()
                break
            except InUse as error:
                self.name.judge(error)
                self._stopped.wait(DECISION_S)
            except PodwireError as error:
                if failures == 0:
                    log.warning("datastore away", reason=str(error))
                failures += 1
                self.inbox.put(Away(keys.CLUSTER, str(error)))
                self._stopped.wait(delay_s(failures, self.dice.uniform))
        for prefix in (*NEEDED, *FOR_IPAM):
            self.follow(prefix)
        self.registrar.start(self.publisher)
        self.name.reporter.start()
        self.adopt()

    def on_return(self) -> None:
        """Another agent served the node meanwhile, and may have changed what is ours."""
        self.registrar.look()
        self.writeback.look_soon()

    def own_address(self) -> str | None:
        """The node's address, as far as it is known."""
        address = self.registrar.address or self.config.address
        return None if address is None else str(address.ip)

    def adopt(self) -> None:
        """Until the endpoints of an earlier run are known: try, and tell the loop."""
        failures = 0
        while not self._stopped.is_set() and not self.attachments.loaded:
            try:
                self.attachments.load()
            except PodwireError:
                failures += 1
                self._stopped.wait(delay_s(failures, self.dice.uniform))
        self.inbox.ring()

    def follow(self, prefix: str) -> None:
        """Follow a prefix of the datastore; once is enough."""
        if prefix not in self._observers:
            observer = StoreObserver(
                self.store, prefix, self.inbox, self.dice.uniform, self.on_restored
            )
            self._observers[prefix] = observer
            observer.start()

    def on_restored(self, away_s: float) -> None:
        """The datastore was restored from a backup: nobody may trust what it said before.

        Told by the observer of each prefix, which may come more than once.
        """
        self.writeback.on_restored(away_s)
        self.ipam.forget()
        self.publisher.forget_all()
        self.registrar.begin_anew()

    def on_settled(self) -> None:
        """All nodes have told a restored datastore of their pods."""
        self.registrar.look()
        self.inbox.ring()

    def stop(self) -> None:
        """End the threads that wait for the datastore."""
        self._stopped.set()
        self.registrar.stop()
        self.announcer.stop()
        self.name.reporter.stop()
        self.bird.stop()
        self.loop.resizer.stop()
        for observer in self._observers.values():
            observer.stop()

    def say_ready(self) -> None:
        """Tell whoever started us, once; later changes are in the log."""
        self.loop.on_ready = lambda: None
        self.name.tell()
        print(f"podwire agent: node {self.config.node} is ready", flush=True)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """End the loop after its present turn."""
        self.loop.stop()

    # --- what other parts ask -------------------------------------------------------------------

    def other_nodes(self) -> list[str]:
        """All nodes but this one, as far as the copy of the datastore knows."""
        return [name for name in self.loop.picture.mirror.node_names() if name != self.config.node]

    def wait_for_calls(self, longest_s: float) -> bool:
        """Wait until no ADD or DEL is being carried out; whether that came in time."""
        return self.attachments.wait_until_idle(longest_s)

    def why_closed(self) -> tuple[str, ...]:
        """Why no pod can be attached now; nothing while held: the use cases say that themselves."""
        return () if self.hold.is_asked() else self.loop.status.reasons

    def is_hopeless(self) -> bool:
        """Whether it may take long until pods can be attached.

        The datastore does not answer or refuses writes, as far as is known, or somebody else
        serves the node.
        """
        away = bool(self.loop.picture.mirror.away) or self.registrar.is_refused()
        return away or self.name.refused is not None

    def is_settling(self) -> bool:
        """Whether the datastore was restored, and not all pods were written back to it yet."""
        return self.writeback.is_settling

    def concerns(self) -> tuple[str, ...]:
        """What is wrong with single objects."""
        problem = None if self.health is None else self.health.problem
        return (
            *self.loop.status.concerns,
            *self.writeback.concerns(),
            *self.sweep.unlisted.concerns(),
            *(() if problem is None else (str(problem),)),
        )

    def control(self, request: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Answer a control request.

        Raises:
            BadInput: the request is not one of ours.
        """
        match request.get("control"):
            case "status":
                return self.status()
            case "hold":
                seconds = request.get("seconds")
                if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
                    raise BadInput(f"hold: {seconds!r} is not a number of seconds")
                self.hold.start(seconds)
                self.inbox.ring()
                return self.status()
            case "release":
                self.hold.release()
                self.registrar.look()
                return self.status()
            case "collect":
                return self.collecting.answer()
            case unknown:
                raise BadInput(
                    f"control request {unknown!r} is unknown",
                    fix="use status, hold, release or collect",
                )

    def status(self) -> dict[str, Any]:
        """The present status as JSON."""
        told = as_json(self.world, self.loop.status, self.loop.applier)
        reasons = self.readiness.reasons()
        return told | {
            "ready": not reasons,
            "reasons": list(reasons),
            "concerns": list(self.concerns()),
            "healthAddress": None if self.health is None else str(self.health.address),
            "datastoreLag": round(self.sources.datastore_lag_s(), 3),
            "spooled": len(self.spool.pending()),
            "firewall": self.loop.firewall.as_json(),
            "leaks": self.sweep.told(),
        }


def claim_socket(path: Path, stack: ExitStack) -> None:
    """Hold a lock beside the socket for as long as we live; the kernel drops it with us.

    Raises:
        InUse: another agent holds it.
        BadInput: the folder cannot be used.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadInput(f"agentSocket {path}: {error.strerror}", fix="check its folder") from error
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"another agent serves {path}", fix="stop it, or use another agentSocket"
        ) from None


def refuse_felix() -> None:
    """Two agents of one node's routes would undo each other's work for ever.

    Raises:
        InUse: Felix runs in this network namespace.
    """
    pid = find_felix()
    if pid is not None:
        raise InUse(
            f"Calico's Felix runs in this network namespace (process {pid})",
            fix="stop calico-node on this node first; its routes and pods are then taken over",
        )


def configure_log() -> None:
    """One line per event on standard error, with its fields."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
