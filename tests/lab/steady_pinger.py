"""Pings every target from every source again and again, until standard input ends.

First line of standard input: {"sources": {name: path of a namespace}, "targets": {name: address}}.
Standard output: `ready` once every pair was answered, at the end {"source target": lost packets},
only pairs that lost some.
"""

from __future__ import annotations

import json
import select
import struct
import sys
import time
from collections import Counter
from contextlib import suppress

from tests.lab.pinger import ANSWER, echo, open_in

EVERY_S = 0.02
LAST_ANSWERS_S = 2.0


class SteadyPing:
    """All pairs; a packet is known by (source, sequence), the sequence tells target and round."""

    def __init__(self, sources: dict[str, str], targets: dict[str, str]) -> None:
        self.doors = {open_in(path): name for name, path in sources.items()}
        self.numbers = {door: number + 1 for number, door in enumerate(self.doors)}
        self.targets = list(targets.items())
        self.rounds = 0
        self.open: dict[tuple[int, int], str] = {}
        self.answered: Counter[str] = Counter()

    def send(self) -> None:
        for door, source in self.doors.items():
            for position, (name, address) in enumerate(self.targets):
                sequence = (self.rounds * len(self.targets) + position) & 0xFFFF
                key = (self.numbers[door], sequence)
                if key in self.open:
                    # 65536 packets ago: it will not be answered any more.
                    raise SystemExit(f"unanswered for a whole round of numbers: {self.open[key]}")
                self.open[key] = f"{source} {name}"
                with suppress(OSError):  # no route: lost, and counted as such
                    door.sendto(echo(*key), (address, 0))
        self.rounds += 1

    def receive(self, until: float) -> None:
        # Behind time it still takes what has come, or answers would be thrown away at full doors.
        while self.open:
            rest = max(0.0, until - time.monotonic())
            ready = select.select(list(self.doors), [], [], rest)[0]
            if not ready:
                break
            for door in ready:
                packet, _ = door.recvfrom(2048)
                header = (packet[0] & 15) * 4
                kind, _, _, identity, sequence = struct.unpack(
                    "!BBHHH", packet[header : header + 8]
                )
                if kind == ANSWER and identity == self.numbers[door]:
                    pair = self.open.pop((identity, sequence), None)
                    self.answered[pair or ""] += 1


def main() -> None:
    steady = SteadyPing(**json.loads(sys.stdin.readline()))
    pairs = len(steady.doors) * len(steady.targets)
    ready, next_send = False, time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        steady.send()
        # What a busy machine has kept from being sent is not sent all at once afterwards.
        next_send = max(next_send + EVERY_S, time.monotonic())
        steady.receive(next_send)
        wait = next_send - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        if not ready and len(steady.answered) >= pairs:
            ready = True
            steady.open.clear()  # what was lost before the start does not count
            print("ready", flush=True)
    steady.receive(time.monotonic() + LAST_ANSWERS_S)
    print(json.dumps({"lost": Counter(steady.open.values()), "rounds": steady.rounds}))


if __name__ == "__main__":
    main()
