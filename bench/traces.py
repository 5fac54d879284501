"""Traces: how long they take, and what they cost the traffic that runs meanwhile.

Two nodes with VXLAN and three pods, in namespaces. The yardsticks are what people use instead: `ip
route get` in every namespace of the way, and ping. The goals: 20 ms for a prediction, 0.5 s for a
healthy trace, 5 s for a broken one, of which ARP takes three to give up.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

from tests.kernel.trace_network import PODS, build, sysctl

from bench.measure import Comparison, interleave
from bench.world import BIN, PODWIRE, missing, run
from podwire.cli.trace_live import Wish, trace_live
from podwire.drivers.collect import collect_all
from podwire.trace.flow import Flow
from podwire.trace.predict import predict
from podwire.trace.schema import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WEB, DB = "demo/web-0", "demo/db-0"
DB_ADDRESS = PODS["db-0"][1]
LOOKUPS = (("web-0", DB_ADDRESS), ("vms103", DB_ADDRESS), ("vms105", DB_ADDRESS))
IPERF = BIN / "iperf3"
SECONDS = 3
FIRST_PROXY = "net/ipv4/conf/caliweb-0/proxy_arp"


def measure(_folder: Path, *, rounds: int) -> list[Comparison]:
    """Milliseconds, seconds, and Gbit/s of one TCP stream."""
    absent = missing([IPERF])
    if absent is not None:
        raise RuntimeError(f"{absent} is missing: run scripts/setup bench")
    build("vxlan")
    return [_predicting(rounds * 5), _tracing(rounds * 2), _broken(rounds), _overhead(rounds)]


def _timed(comparison: Comparison, subject: str, work: Callable[[], object], scale: float) -> None:
    began = time.perf_counter()
    work()
    comparison.add(subject, (time.perf_counter() - began) * scale)


def _series(
    comparison: Comparison, subjects: dict[str, Callable[[], object]], rounds: int, scale: float
) -> Comparison:
    for work in subjects.values():
        work()  # what is done once only is not what is asked here
    comparison.values = {name: [] for name in subjects}
    turns = {
        name: partial(_timed, comparison, name, work, scale) for name, work in subjects.items()
    }
    interleave(rounds, turns)
    return comparison


def _live(*, probe: bool | None = None) -> None:
    trace = trace_live(Wish(source=WEB, destination=DB, flow=Flow(), probe=probe))
    assert trace.disposition is Disposition.DELIVERED_AND_ANSWERED


def _predicting(rounds: int) -> Comparison:
    def get_routes() -> None:
        for namespace, address in LOOKUPS:
            run("ip", "-n", namespace, "route", "get", address)

    states = collect_all()
    subjects: dict[str, Callable[[], object]] = {
        "state read, way predicted, kernel asked": lambda: _live(probe=False),
        "of that: state read": collect_all,
        "of that: way predicted": lambda: predict(states, WEB, DB),
        "ip route get in three namespaces": get_routes,
    }
    return _series(Comparison(title="prediction of one pair", unit="ms"), subjects, rounds, 1e3)


def _tracing(rounds: int) -> Comparison:
    ping = ("ip", "netns", "exec", "web-0", "ping", "-q", "-c", "3", "-i", "0.002", DB_ADDRESS)
    subjects: dict[str, Callable[[], object]] = {
        "trace with three probes": _live,
        "podwire trace, program start and report included": lambda: run(*PODWIRE, "trace", WEB, DB),
        "ping -c 3": lambda: run(*ping),
    }
    return _series(Comparison(title="healthy trace", unit="s"), subjects, rounds, 1)


def _broken(rounds: int) -> Comparison:
    """Nobody answers ARP for the pod's gateway; every time it has to be asked anew."""

    def forget() -> None:
        run("ip", "-n", "web-0", "neigh", "flush", "dev", "eth0")

    def trace() -> None:
        forget()
        found = trace_live(Wish(source=WEB, destination=DB, flow=Flow()))
        assert [fault.id for fault in found.faults] == ["arp.proxy-off"], found.summary

    def ping() -> None:
        forget()
        words = ("ping", "-q", "-c", "1", "-W", "5", DB_ADDRESS)
        done = subprocess.run(
            ["ip", "netns", "exec", "web-0", *words], capture_output=True, check=False
        )
        assert done.returncode != 0

    sysctl("vms103", FIRST_PROXY, 0)
    try:
        subjects: dict[str, Callable[[], object]] = {
            "trace that names proxy_arp": trace,
            "ping -c 1 until the kernel gives up": ping,
        }
        comparison = Comparison(title="broken trace (ARP)", unit="s")
        return _series(comparison, subjects, max(2, rounds // 3), 1)
    finally:
        sysctl("vms103", FIRST_PROXY, 1)
        forget()


def _overhead(rounds: int) -> Comparison:
    """One TCP stream from pod to pod while traces of the same way run one after the other."""
    comparison = Comparison(title=f"TCP stream of {SECONDS} s", unit="Gbit/s")
    comparison.values = {"while traced all the time": [], "undisturbed": []}

    def traced() -> None:
        with _tracing_all_the_time():
            comparison.add("while traced all the time", _stream())

    with _server():
        _stream()
        turns = {"traced": traced, "alone": lambda: comparison.add("undisturbed", _stream())}
        interleave(max(3, rounds // 2), turns)
    return comparison


@contextmanager
def _server() -> Iterator[None]:
    command = ["ip", "netns", "exec", "db-0", str(IPERF), "--server", "--forceflush"]
    with subprocess.Popen(command, stdout=PIPE, stderr=DEVNULL, text=True) as server:
        assert server.stdout is not None
        while "listening" not in (line := server.stdout.readline()):
            assert line, "iperf3 ended"
        try:
            # Its reports would fill the pipe.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            yield
        finally:
            server.send_signal(signal.SIGTERM)


def _stream() -> float:
    words = ("--client", DB_ADDRESS, "--time", str(SECONDS), "--json")
    said = json.loads(run("ip", "netns", "exec", "web-0", str(IPERF), *words))
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _tracing_all_the_time() -> Iterator[None]:
    """A process of its own, as somebody who types the command again and again."""
    code = (
        "from podwire.cli.trace_live import Wish, trace_live\n"
        "from podwire.trace.flow import Flow\n"
        f"wish = Wish(source={WEB!r}, destination={DB!r}, flow=Flow())\n"
        "trace_live(wish)\nprint('ready', flush=True)\n"
        "while True: trace_live(wish)\n"
    )
    with subprocess.Popen([PODWIRE[0], "-c", code], stdout=PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            tracer.kill()
