"""Pings every target from every source at once, one packet a pair; runs on a node of a lab.

Standard input: {"sources": {name: path of a namespace}, "targets": {name: address}}.
Standard output: {source: {target: ttl of the answer}}; a pair without an answer is absent.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from typing import Any

from podwire.drivers import namespaces

ECHO, ANSWER = 8, 0
PATIENCE_S = 5.0


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return int(total ^ 0xFFFF)


def echo(identity: int, sequence: int) -> bytes:
    head = struct.pack("!BBHHH", ECHO, 0, 0, identity, sequence)
    return struct.pack("!BBHHH", ECHO, 0, checksum(head), identity, sequence)


def open_in(path: str) -> socket.socket:
    with namespaces.opened(path) as descriptor:
        return namespaces.call_in(
            descriptor, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
        )


def ping_all(sources: dict[str, str], targets: dict[str, str]) -> dict[str, dict[str, int]]:
    doors = {open_in(path): name for name, path in sources.items()}
    order = list(targets)
    found: dict[str, dict[str, int]] = {name: {} for name in sources}
    for number, door in enumerate(doors):
        for sequence, name in enumerate(order):
            door.sendto(echo(number + 1, sequence), (targets[name], 0))
    numbers = {door: number + 1 for number, door in enumerate(doors)}
    left = len(doors) * len(order)
    deadline = time.monotonic() + PATIENCE_S
    while left and (rest := deadline - time.monotonic()) > 0:
        for door in select.select(list(doors), [], [], rest)[0]:
            packet, _ = door.recvfrom(2048)
            header = (packet[0] & 15) * 4
            kind, _, _, identity, sequence = struct.unpack("!BBHHH", packet[header : header + 8])
            if kind == ANSWER and identity == numbers[door]:
                found[doors[door]].setdefault(order[sequence], packet[8])
                left -= 1
    for door in doors:
        door.close()
    return found


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    json.dump(ping_all(asked["sources"], asked["targets"]), sys.stdout)


if __name__ == "__main__":
    main()
