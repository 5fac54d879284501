"""Prints all network state of every namespace of a lab as text; runs on a node of it.

What comes and goes by itself (learned neighbours, counters, caches) is left out.
Standard output: {name of the namespace: [line, …]}.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

COMMANDS = """
ip -d link show
ip addr show
ip -4 route show table all
ip -6 route show table all
ip rule show
ip -4 neigh show nud permanent
bridge fdb show state permanent
nft -s list ruleset
sysctl -a -r ^net.ipv4.(conf|neigh|icmp|ip_forward)
sysctl -a -r ^net.ipv6.conf
"""
NAMES = Path("/run/netns")
MOVING = ("valid_lft", "bridge forward_delay", "bridge_slave")


def dump(namespace: str) -> list[str]:
    lines: list[str] = []
    for command in COMMANDS.strip().splitlines():
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command.split()],
            capture_output=True,
            text=True,
            check=False,
        )
        said = [line for line in done.stdout.splitlines() if not line.strip().startswith(MOVING)]
        # Objects come in the order in which they were made; rules and devices do not move.
        ordered = "route" in command or "neigh" in command or "fdb" in command
        lines += [command, *(sorted(said) if ordered else said)]
    return lines


def main() -> None:
    names = sorted(path.name for path in NAMES.iterdir())
    print(json.dumps({name: dump(name) for name in names}))


if __name__ == "__main__":
    main()
