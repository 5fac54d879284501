"""Every test below runs in a process and in namespaces of its own, with root's rights there.

Each test is forked off, so that it can leave the worker's namespaces: a process with several
threads (a worker of pytest-xdist) may not enter a new user namespace, its fork may. Nothing a test
does to links, routes, mounts or sysctls reaches the machine, and all of it ends with the process.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from podwire.drivers import namespaces
from podwire.drivers.netlink.session import Session
from podwire.errors import PodwireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PRIVATE = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS


ANY_USER = {
    "test_agent_bird",
    "test_agent_crowd",
    "test_agent_disk",
    "test_agent_etcd",
    "test_agent_firewall",
    "test_agent_health",
    "test_agent_ipip",
    "test_agent_leaks",
    "test_agent_moves",
    "test_agent_mtu",
    "test_agent_outage",
    "test_agent_prometheus",
    "test_agent_reads",
    "test_agent_surplus",
    "test_bgp_routers",
    "test_bird_reasons",
    "test_bird_routes",
    "test_bundle_trace",
    "test_cni_asked",
    "test_cni_crowd",
    "test_cni_leaks",
    "test_cni_leaks_crowd",
    "test_cni_refusals",
    "test_cni_status",
    "test_ipam_crowd",
    "test_libcni_conformance",
    "test_node_install",
    "test_store_etcd",
    "test_takeover",
    "test_takeover_bgp",
    "test_trace_bridge_rulesets",
    "test_trace_bridges",
    "test_trace_controls",
    "test_trace_iptables",
    "test_trace_ipv6",
    "test_trace_live",
    "test_trace_lookup",
    "test_trace_matrix",
    "test_trace_routing",
    "test_trace_rulesets",
    "test_trace_unheard",
}
"""Modules whose tests meet the same kernel whoever runs them: scripts/test runs them once."""


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.kernel)
    if item.path.stem in ANY_USER:
        item.add_marker(pytest.mark.any_user)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if HERE not in item.path.parents:  # pytest asks for every item, wherever it lies
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in run_apart(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def run_apart(item: pytest.Item) -> list[pytest.TestReport]:
    """Run one test in a child process; what it started and left behind is killed with it."""
    # Made here: the child is root by name, and would refuse or take over root's directory.
    item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    apart = may_have_processes_of_its_own()
    with tempfile.NamedTemporaryFile() as file:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(item, Path(file.name), apart=apart)
        reason = _wait(child)
        text = file.read()
    if not text:
        return [_broken(item, reason)]
    return [
        item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        for data in pickle.loads(text)
    ]


def _child(item: pytest.Item, file: Path, *, apart: bool) -> None:
    os.setsid()
    # Not the parent's handler: that one would report its test as timed out.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        missing = enter_private_world()
        if missing is not None:
            item.add_marker(pytest.mark.skip(reason=missing))
        elif apart:
            enter_private_processes()
        reports = runtestprotocol(item, log=False, nextitem=None)
        hook = item.config.hook.pytest_report_to_serializable
        file.write_bytes(pickle.dumps([hook(config=item.config, report=one) for one in reports]))
    finally:
        os._exit(0)


def _wait(child: int) -> str:
    """Wait for the child, then end all processes of its group; how it ended."""
    try:
        _, status = os.waitpid(child, 0)
    except BaseException as error:  # the time limit is raised here
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if isinstance(error, KeyboardInterrupt):
            raise
        return str(error)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    return f"the test's process ended early (wait status {status})"


def _broken(item: pytest.Item, reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=reason,
        when="call",
    )


def enter_private_world() -> str | None:
    """Move this process into fresh network and mount namespaces; why it cannot, or None."""
    try:
        _unshare()
    except PodwireError:
        return "needs root or user namespaces (unshare --user --net is denied)"
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    namespaces.mount("tmpfs", "/run", kind="tmpfs")
    with suppress(PodwireError):
        namespaces.mount("sysfs", "/sys", kind="sysfs")
    return None


@cache
def may_have_processes_of_its_own() -> bool:
    """Whether /proc may be mounted anew: a container that hides parts of its own refuses it.

    Tried in a process of its own, because there is no way back from a PID namespace.
    """
    child = os.fork()
    if child == 0:
        try:
            if enter_private_world() is None:
                enter_private_processes()
                os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def enter_private_processes() -> None:
    """Go on in a child that sees no process, and so no namespace, of anybody else.

    Labs and other tests on this machine may have pods of the same names.
    """
    namespaces.unshare(namespaces.CLONE_NEWPID)
    init = os.fork()
    if init != 0:
        _exit_like(init)
    namespaces.mount("proc", "/proc", kind="proc")
    here = namespaces.current_namespace()
    # The first process is somewhere else, as that of the machine is, whose place is called host.
    namespaces.unshare(namespaces.CLONE_NEWNET)
    worker = os.fork()
    if worker != 0:
        _exit_like(worker)
    namespaces.setns(here)
    os.close(here)


def _exit_like(child: int) -> NoReturn:
    """Reap whatever ends, and end with the child; the first process of a namespace has to."""
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _unshare() -> None:
    if os.geteuid() == 0:
        # Root of a container may be refused this, and still have user namespaces.
        with suppress(PodwireError):
            namespaces.unshare(PRIVATE)
            return
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(PRIVATE | namespaces.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


@pytest.fixture
def session() -> Iterator[Session]:
    """A session in the test's own namespace, where there is only a loopback device, down."""
    with Session.open() as opened:
        yield opened


@pytest.fixture
def make_namespace() -> Iterator[Callable[[str], int]]:
    """Makes named namespaces; gives descriptors that are closed after the test."""
    descriptors: list[int] = []

    def make(name: str) -> int:
        namespaces.create_named(name)
        descriptors.append(namespaces.open_namespace(namespaces.named_path(name)))
        return descriptors[-1]

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def session_in() -> Iterator[Callable[[int], Session]]:
    """Opens sessions in other namespaces, closed after the test."""
    opened: list[Session] = []

    def open_in(descriptor: int) -> Session:
        opened.append(Session.open(descriptor))
        return opened[-1]

    yield open_in
    for one in opened:
        one.close()
