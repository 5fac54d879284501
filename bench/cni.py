"""CNI ADD and DEL, one at a time and 20 at once, beside Debian's ptp with host-local."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from bench import cluster
from bench.cni_driver import Caller, Plugin, Pod
from bench.measure import Comparison, interleave
from bench.world import BIN, DEBIAN_PLUGINS, Agent, Host, missing
from podwire.cni.install import write_script
from podwire.drivers import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CROWD = 20


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """Podwire by its compiled and by its Python program, and ptp, in turning order."""
    absent = missing([BIN / "podwire-cni", DEBIAN_PLUGINS / "ptp"])
    if absent is not None:
        raise RuntimeError(f"{absent} is missing: run scripts/setup bench")
    pods = [Pod(name=f"pod-{number}", namespace=f"pod-{number}") for number in range(CROWD)]
    for pod in pods:
        namespaces.create_named(pod.namespace)
    script = folder / "podwire-cni-script"
    write_script(script)
    script.chmod(0o755)
    with Host("calm") as ours, Host("peer") as theirs:
        agent = Agent(ours, folder)
        cluster.write(agent.datastore, cluster.pool())
        with agent.running():
            config = {
                "cniVersion": "1.0.0",
                "name": "bench",
                "type": "podwire",
                "agentSocket": str(agent.socket),
                "spoolDir": str(agent.spool),
            }
            compiled = Plugin(program=BIN / "podwire-cni", config=config, path=BIN)
            scripted = Plugin(program=script, config=config, path=folder)
            subjects = {
                "podwire (compiled plugin)": (ours, Caller(compiled, folder)),
                "podwire (Python plugin)": (ours, Caller(scripted, folder)),
                "ptp + host-local": (theirs, Caller(_ptp(folder), folder)),
            }
            return [*_one(pods[0], subjects, rounds * 3), *_crowd(pods, subjects, rounds * 2)]


def _ptp(folder: Path) -> Plugin:
    ipam = {"type": "host-local", "subnet": "10.99.0.0/16", "dataDir": str(folder / "host-local")}
    config = {"cniVersion": "1.0.0", "name": "peer", "type": "ptp", "mtu": 1480, "ipam": ipam}
    return Plugin(program=DEBIAN_PLUGINS / "ptp", config=config, path=DEBIAN_PLUGINS)


def _one(pod: Pod, subjects: dict[str, tuple[Host, Caller]], rounds: int) -> list[Comparison]:
    add = Comparison(title="CNI ADD, one pod", unit="ms")
    delete = Comparison(title="CNI DEL, one pod", unit="ms")

    def turn(name: str, host: Host, caller: Caller) -> None:
        host.enter()
        add.add(name, caller.add([pod])[0].seconds * 1000)
        delete.add(name, caller.delete([pod])[0].seconds * 1000)

    interleave(rounds, _turns(turn, subjects))
    return [add, delete]


def _crowd(
    pods: list[Pod], subjects: dict[str, tuple[Host, Caller]], rounds: int
) -> list[Comparison]:
    each = Comparison(title=f"CNI ADD, {CROWD} at once, each call (mean)", unit="ms")
    add = Comparison(title=f"CNI ADD, {CROWD} at once, until all are done", unit="ms")
    delete = Comparison(title=f"CNI DEL, {CROWD} at once, until all are done", unit="ms")

    def turn(name: str, host: Host, caller: Caller) -> None:
        host.enter()
        began = time.perf_counter()
        ended = caller.add(pods)
        add.add(name, (time.perf_counter() - began) * 1000)
        each.add(name, sum(call.seconds for call in ended) / len(ended) * 1000)
        began = time.perf_counter()
        caller.delete(pods)
        delete.add(name, (time.perf_counter() - began) * 1000)

    interleave(rounds, _turns(turn, subjects))
    return [each, add, delete]


def _turns(
    turn: Callable[[str, Host, Caller], None], subjects: dict[str, tuple[Host, Caller]]
) -> dict[str, Callable[[], None]]:
    return {name: partial(turn, name, *subject) for name, subject in subjects.items()}
