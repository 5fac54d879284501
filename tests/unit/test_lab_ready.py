"""When a lab will never be ready, and why."""

from __future__ import annotations

import pytest

from podwire.errors import Rejected
from podwire.lab.ready import check_neighbours
from podwire.lab.topology import Topology
from podwire.model.node import Routing
from podwire.model.pool import Encapsulation, Mode


def mesh(size: int, *, reflectors: int = 0, routing: Routing = Routing.BIRD) -> Topology:
    return Topology(
        size=size,
        encapsulation=Encapsulation.NONE,
        mode=Mode.NEVER,
        routing=routing,
        reflectors=reflectors,
    )


def test_a_mesh_with_more_neighbours_than_the_kernel_keeps_is_told_so() -> None:
    with pytest.raises(Rejected, match=r"mesh of 33 nodes needs 1056 ARP entries") as caught:
        check_neighbours(mesh(33))
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("add --reflectors 2")
    for other in (mesh(32), mesh(50, reflectors=2), mesh(50, routing=Routing.AGENT)):
        check_neighbours(other)
