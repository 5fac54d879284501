"""A node's agent as the way to its state: the same picture, nothing else, and never for ever."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from podwire.agent.collecting import Collecting
from podwire.cli.trace import trace
from podwire.drivers.agent_socket import AgentSocket, converse
from podwire.drivers.collect import collect_all
from podwire.drivers.remote_collect import collect_node, collect_nodes
from podwire.drivers.transport import Local, parse_way
from podwire.errors import AgentUnavailable, BadInput, PodwireError, Transient
from podwire.model.cni import GREETING, frame
from podwire.model.kernelstate import Missing
from podwire.model.pool import Mode
from podwire.trace.predict import predict
from tests.kernel.agent_cluster import Make, PodOnNode, clusters, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.drivers.transport import Way
    from podwire.model.kernelstate import KernelState
    from podwire.model.route import Route

A, B = "demo/told-1", "demo/told-2"
OURS = {"n1", "n2", "told-1", "told-2"}
"""An agent sees the namespaces of other tests' processes, too."""


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Make]:
    with clusters(tmp_path) as make:
        yield make


def routes(states: tuple[KernelState, ...]) -> dict[int, frozenset[Route]]:
    """Of each of our namespaces, as a set: what an agent's network is made of."""
    found = {}
    for state in states:
        if state.namespace.name not in OURS:
            continue
        assert not isinstance(state.routes, Missing), state.routes
        # IPv6 goes on making routes of its own for a while.
        found[state.namespace.inode] = frozenset(
            route for route in state.routes.value if route.key.destination.version == 4
        )
    return found


def test_two_agents_tell_the_whole_way(make_cluster: Make) -> None:
    nodes = make_cluster(Mode.ALWAYS).start()
    for node, pod in zip(nodes, ("told-1", "told-2"), strict=True):
        PodOnNode(node, pod).add()
    for node in nodes:
        node.settled()
    ways: dict[str, Way] = {each.name: parse_way(f"agent:{each.socket}") for each in nodes}
    states = collect_nodes(ways)
    assert routes(states) == routes(collect_all())
    names = {each.namespace.node: each.namespace.name for each in states if each.namespace.root}
    assert names == {"node-1": "n1", "node-2": "n2"}
    pods = {
        each.namespace.pod: each.namespace.node
        for each in states
        if each.namespace.pod and each.namespace.name in OURS
    }
    assert pods == {A: "node-1", B: "node-2"}

    options = [word for each in nodes for word in ("--node", f"{each.name}=agent:{each.socket}")]
    asked = CliRunner().invoke(trace, [A, B, *options, "-o", "json"])
    here = CliRunner().invoke(trace, [A, B, "--predict", "-o", "json"])
    assert asked.exit_code == here.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["result"] == json.loads(here.stdout)["result"]


def test_nothing_a_caller_says_is_run_or_kept(make_cluster: Make, tmp_path: Path) -> None:
    one, _ = make_cluster().start()
    before = one.settled()["counters"]["writes"]
    told = one.ask("collect", argv=["touch", str(tmp_path / "made")], output=str(tmp_path / "made"))
    assert set(told) == {"boot", "here", "bundle"}
    assert not (tmp_path / "made").exists()
    assert one.ask("status")["counters"]["writes"] == before
    with pytest.raises(BadInput, match="unknown"):
        one.ask("run", argv=["id"])


def test_an_agent_that_stands_still_or_dies_is_missing_by_name(make_cluster: Make) -> None:
    one, two = make_cluster().start()
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)
    try:
        two.end(signal.SIGKILL)
        ways: dict[str, Way] = {each.name: AgentSocket(each.socket) for each in (one, two)}
        states = collect_nodes(ways, timeout_s=2)
    finally:
        one.process.send_signal(signal.SIGCONT)
    reasons = {
        each.namespace.title: each.links.reason
        for each in states
        if isinstance(each.links, Missing)
    }
    assert set(reasons) == {"node-1", "node-2"}
    assert "timed out" in reasons["node-1"]
    assert "Connection refused" in reasons["node-2"]
    for name in reasons:
        found = predict(states, name, "10.0.0.9")
        assert found.disposition.exit_code == 4
        assert name in str(found)


@contextmanager
def pretending(folder: Path, *said: bytes) -> Iterator[AgentSocket]:
    """Something that listens like an agent, says that, and then nothing more."""
    path = folder / "agent.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        callers: list[socket.socket] = []

        def serve() -> None:
            caller, _ = door.accept()
            callers.append(caller)
            for part in said:
                caller.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield AgentSocket(str(path))
        thread.join()
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((), "timed out"),
        ((GREETING,), "timed out"),
        ((GREETING, frame(b"x" * 99)[:50]), "timed out"),
        ((b"HTTP/1.1 400 Bad",), "not a Podwire agent"),
        ((GREETING, frame(b"no")), "no JSON"),
        ((GREETING, frame(b"{}")), "no states"),
        ((GREETING, frame(b'{"boot":"x","here":1,"bundle":"eA=="}')), "Not a gzipped file"),
        ((GREETING, frame(b'{"boot":"x","here":1,"bundle":"!"}')), "no states"),
    ],
)
def test_what_only_looks_like_an_agent_is_an_error(
    tmp_path: Path, said: tuple[bytes, ...], reason: str
) -> None:
    with pretending(tmp_path, *said) as agent, pytest.raises(PodwireError, match=reason):
        collect_node("n", agent, timeout_s=0.5)


def test_a_busy_agent_is_asked_again(tmp_path: Path) -> None:
    with (
        pretending(tmp_path, GREETING, frame(b'{"busy":true}')) as agent,
        pytest.raises(Transient, match=r"serves others|timed out"),
    ):
        agent.collect(0.5)


def test_one_is_served_at_a_time(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    collecting = Collecting(("sh", "-c", f"echo states; cat {gate}"))
    first: list[object] = []
    thread = threading.Thread(target=lambda: first.append(collecting.answer()))
    thread.start()
    until("the first is served", lambda: collecting.answer() == {"busy": True})
    gate.write_bytes(b"")
    thread.join()
    [answer] = first
    assert isinstance(answer, dict)
    assert set(answer) == {"boot", "here", "bundle"}


def test_a_reader_that_fails_says_why() -> None:
    with pytest.raises(Transient, match="no right at all"):
        Collecting(("sh", "-c", "echo no right at all >&2; exit 1")).answer()


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable, match="nowhere"):
        converse(str(tmp_path / "nowhere"), {})
    assert isinstance(parse_way("local"), Local)
    assert parse_way("agent") == AgentSocket("/run/podwire/agent.sock")
    with pytest.raises(BadInput, match="no way"):
        parse_way("agent:relative.sock")
