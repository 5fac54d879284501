"""Makes a lab, breaks it, traces it and mends it, fault after fault, in one process.

    python -m tests.lab.fault_session NETWORK REQUEST…

NETWORK is one of the fault matrix; a request is `healthy`, or names of faults joined by `+`. Each
answer is a line of JSON: what was injected, and the trace, live and from a bundle, at first and
after each printed fix. What the commands do is done here by the functions behind them: to start
them takes longer than all the rest, above all in user-mode Linux.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from podwire.cli.lab_fault import LabAgents
from podwire.cli.states import Sources
from podwire.cli.trace import TraceOptions, build_flow, find_trace
from podwire.drivers.bundle import facts_here, write_bundle
from podwire.drivers.collect import collect_all
from podwire.errors import PodwireError
from podwire.lab import fault_runner
from podwire.lab.entry import run_apart
from podwire.lab.fault import get_fault
from podwire.lab.fault_catalogue import FAULTS
from podwire.lab.fault_ends import Wish
from podwire.lab.fault_reading import find_ends, find_places, run
from podwire.lab.registry import get_keeper
from podwire.lab.workloads import lab_state
from podwire.trace.document import document
from podwire.trace.report import Style, render
from tests.lab.fault_matrix import BY_TITLE, FIRST, HEALTHY, PODS
from tests.lab.warm import make_warm_lab

JSON = dict[str, Any]
MOST_ROUNDS = 4
HURRY = 'for each in /proc/sys/net/ipv4/neigh/*/retrans_time_ms; do echo 300 >"$each"; done'
"""ARP gives up after 0.9 s instead of 3 s, which is still longer than a proxy may delay."""


def main(title: str, *requests: str) -> int:
    network = BY_TITLE[title]
    lab = make_warm_lab("--nodes", "2", *network.options)
    try:
        lab.apply("---\n".join(map(manifest, PODS)))
        return run_apart(get_keeper(lab.name), lambda: serve(network.destination, requests))
    finally:
        # Whoever has all answers may interrupt us now; the lab must go all the same.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lab.run("down")


def manifest(title: str) -> str:
    namespace, _, name = title.partition("/")
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  nodeName: {PODS[title]}\n  containers: [{{name: main}}]\n"
    )


def serve(destination: str, requests: tuple[str, ...]) -> int:
    for place in find_places(lab_state()).values():
        run(place, ["sh", "-c", HURRY])
    with tempfile.TemporaryDirectory() as directory:
        for request in requests:
            said = answer(request, destination, Path(directory) / "bundle.tgz")
            print(json.dumps({"request": request, **said}), flush=True)
    return 0


def answer(request: str, destination: str, bundle: Path) -> JSON:
    names = [] if request == HEALTHY else request.split("+")
    hosts = {end.pod: end.host_interface for end in find_ends(lab_state())}
    said: JSON = {"hosts": hosts, "rounds": [], "refused": None}
    probe: tuple[str, ...] = ()
    try:
        for name in names:
            wish = Wish(pods=(FIRST, destination))
            probe += fault_runner.inject(get_fault(name, FAULTS), wish, LabAgents()).probe
        for _ in range(MOST_ROUNDS):
            said["rounds"].append(traced(destination, probe, bundle))
            if not said["rounds"][-1]["live"]["faults"] or not mend(said["rounds"][-1]):
                break
    except PodwireError as error:
        said["refused"] = error.message
    finally:
        for record in reversed(fault_runner.injected()):
            fault_runner.heal(record.name, LabAgents())
    return said


def traced(destination: str, probe: tuple[str, ...], bundle: Path) -> JSON:
    """The state of now as a bundle first, then the trace: a probe makes neighbours known."""
    write_bundle(bundle, collect_all(), facts_here())
    offline = find_trace(FIRST, destination, options(probe, Sources(bundle=bundle)))
    live = find_trace(FIRST, destination, options(probe, Sources()))
    return {
        "live": document(live),
        "offline": document(offline),
        "text": render(live, Style()),
        "mended": None,
    }


def options(probe: tuple[str, ...], sources: Sources) -> TraceOptions:
    """What `podwire trace` makes of the options that show a fault."""
    values = dict(zip(probe, (*probe[1:], ""), strict=False))
    tcp, size = values.get("--tcp"), values.get("--size")
    flow = build_flow(
        tcp=None if tcp is None else int(tcp),
        udp=None,
        icmp=False,
        size=None if size is None else int(size),
        df="--df" in values,
    )
    return TraceOptions(flow=flow, sources=sources)


def mend(found: JSON) -> bool:
    """Run the first printed fix as it is, in the namespace the report names."""
    first = found["live"]["faults"][0]
    if first["fix"] is None or first["fix"]["command"] is None:
        return False
    place = first["where"]["netns"]
    path = find_places(lab_state()).get(place, Path("/run/netns") / place)
    done = run(path, ["sh", "-ec", first["fix"]["command"]])
    found["mended"] = done.stderr.strip() if done.returncode else ""
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
