"""The keeper: first process of a lab. Builds it, runs its agents and pods, answers commands.

It stays single-threaded, because it forks all the time; and small, because with it everything ends.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from podwire.drivers.bird.program import get_bird, require_bird, start_words
from podwire.errors import BadInput, NotFound
from podwire.lab import control
from podwire.lab.entry import enter_place, execute, rename_process
from podwire.lab.records import PodRecord, from_json, to_json, topology_to_json
from podwire.lab.state import CONTROL, STATE, NodePaths
from podwire.lab.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from podwire.lab.topology import Topology

PAUSE = ("sleep", "infinity")
"""What a container without command runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Podwire's own programs, handed in by the command line: a lab only runs them."""

    run_agent: Callable[[str, Path], int]
    """Node name and configuration file; does not return before the agent ends."""
    install_plugin: Callable[[Path], object]
    """Puts the CNI plugin into a directory."""


class Keeper:
    """Holds what the lab remembers; every request is one method."""

    def __init__(self, topology: Topology, programs: Programs) -> None:
        self._topology = topology
        self._programs = programs
        self._supervisor = Supervisor(let_go)
        self._pods: dict[str, dict[str, Any]] = {}
        self._deployments: dict[str, dict[str, Any]] = {}
        self._requests: dict[str, Callable[[dict[str, Any]], Any]] = {
            "state": self._state,
            "agent": self._agent,
            "bird": self._bird,
            "keep pod": self._keep_pod,
            "run pod": self._run_pod,
            "stop pod": self._stop_pod,
            "forget pod": self._forget_pod,
            "keep deployment": self._keep_deployment,
            "forget deployment": self._forget_deployment,
        }

    def start_agent(self, node: str) -> None:
        """Start a node's agent; it is started again whenever it ends."""

        def work() -> int:
            paths = NodePaths(node)
            redirect(paths.log)
            rename_process(f"agent {node}")
            enter_place(paths.netns, node, keep_names=True)
            return self._programs.run_agent(node, paths.config)

        self._supervisor.start(_agent(node), Child(work=work))

    def start_bird(self, node: str) -> None:
        """Start a node's BIRD, which outlives the agent; it is started again whenever it ends.

        It waits, by ending, for the agent to write its configuration.
        """
        self._supervisor.start(_bird(node), Child(work=lambda: run_bird(node)))

    def start_side_work(self, name: str, work: Callable[[], int]) -> None:
        """Start another process the lab needs."""
        self._supervisor.start(name, Child(work=work))

    def run(self, door: socket.socket) -> NoReturn:
        """Serve for ever."""
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The kernel drops signals to a first process that does not ask for them.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        chooser = selectors.DefaultSelector()
        chooser.register(door, selectors.EVENT_READ)
        chooser.register(wake, selectors.EVENT_READ)
        while True:
            self._supervisor.reap()
            self._supervisor.run_due()
            for key, _ in chooser.select(self._supervisor.timeout()):
                if key.fileobj is wake:
                    wake.recv(4096)
                else:
                    control.serve(door.accept()[0], self.answer)

    def answer(self, request: dict[str, Any]) -> Any:  # JSON
        """Carry out one request."""
        verb = request.get("do")
        if verb not in self._requests:
            raise BadInput(f"the keeper knows no request {verb!r}")
        self._supervisor.reap()
        return self._requests[verb](request)

    def _state(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "topology": topology_to_json(self._topology),
            "agents": self._daemons(_agent),
            "birds": self._daemons(_bird),
            "pods": [
                {"record": record, "runs": self._runs(title)}
                for title, record in sorted(self._pods.items())
            ],
            "deployments": [self._deployments[title] for title in sorted(self._deployments)],
        }

    def _daemons(self, name_of: Callable[[str], str]) -> dict[str, Any]:
        found = {}
        for node in self._topology.nodes:
            child = self._supervisor.children.get(name_of(node.name))
            if child is not None:
                found[node.name] = {
                    "pid": child.pid,
                    "wanted": not child.stopping,
                    "restarts": child.restarts,
                }
        return found

    def _agent(self, request: dict[str, Any]) -> None:
        self._run_daemon(_agent(self._topology.node(request["node"]).name), run=request["run"])

    def _bird(self, request: dict[str, Any]) -> None:
        node = self._topology.node(request["node"]).name
        if _bird(node) in self._supervisor.children:
            self._run_daemon(_bird(node), run=request["run"])
        elif request["run"]:
            require_bird()
            self.start_bird(node)

    def _run_daemon(self, name: str, *, run: bool) -> None:
        if run:
            self._supervisor.resume(name)
        else:
            self._supervisor.stop(name)

    def _keep_pod(self, request: dict[str, Any]) -> None:
        record = from_json(request["pod"], PodRecord)
        self._pods[record.title] = to_json(record)

    def _run_pod(self, request: dict[str, Any]) -> None:
        record = from_json(self._record(request["title"]), PodRecord)
        for number, container in enumerate(record.spec.containers):
            name = _container(record.title, number)
            if name in self._supervisor.children:
                continue
            argv = list(container.argv or PAUSE)
            environment = {**os.environ, **request["environment"], **container.environment}
            self._supervisor.start(
                name,
                Child(
                    work=lambda argv=argv, environment=environment: _become_pod(  # type: ignore[misc]
                        record, argv, environment
                    ),
                    restart=record.spec.restart,
                    first_delay_s=1.0,
                    backoff=2.0,
                ),
            )

    def _stop_pod(self, request: dict[str, Any]) -> None:
        for name in self._containers(request["title"]):
            self._supervisor.kill(name)

    def _forget_pod(self, request: dict[str, Any]) -> None:
        self._stop_pod(request)
        self._pods.pop(request["title"], None)

    def _keep_deployment(self, request: dict[str, Any]) -> None:
        value = request["deployment"]
        self._deployments[f"{value['namespace']}/{value['name']}"] = value

    def _forget_deployment(self, request: dict[str, Any]) -> None:
        self._deployments.pop(request["title"], None)

    def _record(self, title: str) -> dict[str, Any]:
        if title not in self._pods:
            raise NotFound(f"pod {title} does not exist", fix="podwire lab pods -A")
        return self._pods[title]

    def _containers(self, title: str) -> list[str]:
        return [
            name for name in self._supervisor.children if name.startswith(_container(title, ""))
        ]

    def _runs(self, title: str) -> list[dict[str, Any]]:
        children = [self._supervisor.children[name] for name in self._containers(title)]
        return [
            {
                "pid": child.pid,
                "restarts": child.restarts,
                "exit_code": child.exit_code,
                "waiting": child.pid is None and child.due is not None,
            }
            for child in children
        ]


def listen() -> socket.socket:
    """The socket commands come to."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(CONTROL))
    door.listen(64)
    return door


def let_go() -> None:
    """In a child: drop what belongs to the keeper."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.closerange(3, 1024)


def redirect(log: Path) -> None:
    """Append what this process prints to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _become_pod(record: PodRecord, argv: list[str], environment: dict[str, str]) -> int:
    # A pod's own output goes nowhere: kept, it would fill the lab's memory. Only what keeps it from
    # starting is written down, through a descriptor that closes when it starts.
    redirect(STATE / "pods.log")
    sys.stderr = os.fdopen(os.open(STATE / "pods.log", os.O_WRONLY | os.O_APPEND), "w")
    redirect(Path(os.devnull))
    enter_place(record.netns, record.name, keep_names=False)
    return execute(argv, environment)


def run_bird(node: str) -> int:
    """Become a node's BIRD; returns only when that fails."""
    paths = NodePaths(node)
    redirect(paths.bird_log)
    if not paths.bird_config.exists():
        return 1
    enter_place(paths.netns, node, keep_names=True)
    words = start_words(get_bird(), config=paths.bird_config, socket=paths.bird_socket)
    return execute(words, dict(os.environ))


def _agent(node: str) -> str:
    return f"agent {node}"


def _bird(node: str) -> str:
    return f"bird {node}"


def _container(title: str, number: int | str) -> str:
    return f"pod {title} {number}"
