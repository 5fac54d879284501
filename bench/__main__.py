"""`python -m bench`: run the benchmarks, print them, keep them in results/."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import measure, world

BENCHMARKS = {
    "cni": ("bench.cni", "CNI ADD and DEL beside ptp + host-local"),
    "ipam": ("bench.allocation", "allocations per second, 1 and 8 writers"),
    "etcd": ("bench.etcd_allocation", "allocations per second, 1 to 10 agents on one etcd"),
    "routes": ("bench.routes", "10,000 block routes: from nothing, and one change"),
    "memory": ("bench.memory", "memory of an idle agent"),
    "bundles": ("bench.bundles", "a bundle of 50 nodes with 100 pods"),
    "trace": ("bench.traces", "traces: predicted, probed, broken, and beside a TCP stream"),
    "bgp": ("bench.bgp", "BIRD with 1,000 peers and 5,000 blocks, and its memory"),
    "sessions": ("bench.sessions", "a full mesh of 50 BIRDs"),
    "mesh": ("bench.meshes", "labs of 3, 20 and 50 nodes: BIRD's routes and the agents'"),
    "lab": ("bench.labs", "lab up with 3 and 20 nodes"),
}
NEEDS_NO_WORLD = {"ipam", "etcd", "lab", "bundles", "mesh"}
FULL_ROUNDS = 10
QUICK_ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--inside", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        for name, (_, title) in BENCHMARKS.items():
            print(f"{name:<8} {title}")
        return 0
    if options.inside:
        measure_inside(*options.inside)
        return 0
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return run_all(options.names or list(BENCHMARKS), quick=options.quick)


def run_all(names: list[str], *, quick: bool) -> int:
    """Run some benchmarks one after the other; one that fails does not end the others."""
    done: list[measure.Comparison] = []
    failed = []
    # On the disk and not in /tmp, which may be memory: datastores are written through.
    place = world.ROOT / ".cache" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
        print(f"\n== {name}: {BENCHMARKS[name][1]}", flush=True)
        (folder / "rounds").write_text(str(QUICK_ROUNDS if quick else FULL_ROUNDS))
        own = [sys.executable, "-m", "bench", "--inside", name, str(folder)]
        command = own if name in NEEDS_NO_WORLD else world.inside(name, folder)
        ended = subprocess.run(command, cwd=world.ROOT, check=False)
        if ended.returncode != 0:
            failed.append(name)
        else:
            read = json.loads((folder / "results").read_text())
            comparisons = [measure.Comparison(**each) for each in read]
            done += comparisons
            for comparison in comparisons:
                print("\n".join(comparison.lines()), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    path = world.ROOT / "results" / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    measure.save(path, done)
    print("\n== all of it", *(line for each in done for line in each.lines()), sep="\n")
    print("\nratio: to the last subject, round by round: the median and 80 % of all")
    print(f"all values: {path.relative_to(world.ROOT)}")
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measure_inside(name: str, folder: str) -> None:
    """Run one benchmark here and leave what it found in the folder."""
    if name not in NEEDS_NO_WORLD:
        world.furnish()
    module = importlib.import_module(BENCHMARKS[name][0])
    place = Path(folder)
    comparisons = module.measure(place, rounds=int((place / "rounds").read_text()))
    (place / "results").write_text(json.dumps([asdict(each) for each in comparisons]))


if __name__ == "__main__":
    sys.exit(main())
