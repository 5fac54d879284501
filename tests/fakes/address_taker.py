"""A process that takes addresses for pods of one node, as its agent does, until it has enough.

`python -m tests.fakes.address_taker ENDPOINT NODE COUNT FILE` writes each address it has got to
FILE, which stands for the node's kernel: after a crash, what is not in it is given back first.
It ends with 101 when the pools have no more.
"""

from __future__ import annotations

import os
import sys
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

from podwire.boundary import Verb, Write
from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store.etcd.store import EtcdStore
from podwire.errors import PoolExhausted
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model import codec, keys
from podwire.model.config import EtcdConfig
from podwire.model.endpoint import PLAIN_CNI, WorkloadEndpoint, endpoint_name
from podwire.model.resource import Metadata

if TYPE_CHECKING:
    from podwire.model.addressing import IPAddress

EXHAUSTED = 101


class Taker:
    """One life of the process."""

    def __init__(self, endpoint: str, node: str) -> None:
        self.node = node
        self.store = EtcdStore(EtcdConfig(endpoints=(endpoint,)))
        self.ipam = IPAM(self.store, node, SystemClock(), SystemDice())

    def endpoint(self, container: str, address: IPAddress | None = None) -> WorkloadEndpoint:
        return WorkloadEndpoint(
            metadata=Metadata(
                name=endpoint_name(self.node, PLAIN_CNI, container, "eth0"), namespace="default"
            ),
            orchestrator=PLAIN_CNI,
            node=self.node,
            container_id=container,
            pod="",
            endpoint="eth0",
            interface=f"cali{container}",
            mac="ee:ee:ee:ee:ee:ee",
            addresses=() if address is None else (ip_interface(address),),
            profiles=(),
        )

    def take(self, container: str) -> IPAddress:
        def also(address: IPAddress) -> list[Write]:
            endpoint = self.endpoint(container, address)
            key, value = codec.key_of(endpoint), codec.encode(endpoint)
            return [Write(verb=Verb.CREATE, key=key, value=value)]

        request = AssignRequest(
            handle=f"pods.{container}",
            attributes={"node": self.node, "namespace": "default", "pod": container},
            also=also,
        )
        assigned = self.ipam.assign(request)
        self.ipam.claim_ahead()
        return assigned.address

    def give_back_all_but(self, told: set[str]) -> None:
        for entry in self.store.list(f"{keys.HANDLES}pods.{self.node}-").entries:
            container = entry.key.rpartition("/pods.")[2]
            if container not in told:
                key = codec.key_of(self.endpoint(container))
                self.ipam.release_handle(f"pods.{container}", [Write(verb=Verb.DELETE, key=key)])


def main(endpoint: str, node: str, count: str, name: str) -> int:
    path = Path(name)
    told = {line.split()[0] for line in path.read_text().splitlines()} if path.exists() else set()
    taker = Taker(endpoint, node)
    taker.give_back_all_but(told)
    with path.open("a") as file:
        for number in range(int(count) - len(told)):
            container = f"{node}-{os.getpid()}-{number}"
            try:
                address = taker.take(container)
            except PoolExhausted:
                return EXHAUSTED
            # One write: after a crash a line is there or not.
            file.write(f"{container} {address}\n")
            file.flush()
    taker.store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
