"""Memory of an idle agent: alone, and with 10,000 routes of others to look after."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench import cluster
from bench.measure import Comparison
from bench.routes import count, settled, wait
from bench.world import Agent, Host


def measure(folder: Path, *, rounds: int) -> list[Comparison]:
    """RSS, and PSS, which counts shared pages (the interpreter, libraries) by share."""
    comparison = Comparison(title="memory of an idle agent", unit="MB")
    for turn in range(max(2, rounds // 3)):
        for size in ("an empty cluster", "10,000 routes"):
            with Host("home") as host:
                place = folder / f"{size[0]}-{turn}"
                place.mkdir()
                agent = Agent(host, place)
                big = size == "10,000 routes"
                cluster.write(agent.datastore, cluster.pool(), *(cluster.stored() if big else ()))
                with agent.running() as pid:
                    if big:
                        wait(partial(is_full, host), "10,000 routes")
                    settled(pid)
                    for kind, kilobytes in memory(pid).items():
                        comparison.add(f"{kind}, {size}", kilobytes / 1000)
    return [comparison]


def is_full(host: Host) -> bool:
    return count(host) > cluster.BLOCKS


def memory(pid: int) -> dict[str, int]:
    """Kilobytes by kind, from /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {"RSS": fields["Rss"], "PSS": fields["Pss"]}
