"""Calico's own client library (v3.28) beside us on one etcd: it reads all, and its IPAM agrees.

Go and Calico's modules are needed; where they cannot be had the test says so.
"""

from __future__ import annotations

import re
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from podwire.drivers.clock import SystemClock, SystemDice
from podwire.drivers.store import ensure_cluster
from podwire.ipam.service import IPAM, AssignRequest
from podwire.model import keys
from podwire.model.node import Node
from podwire.model.pool import IPPool
from podwire.model.resource import Metadata
from tests.fakes.calico_etcd import RELEASES, fill

if TYPE_CHECKING:
    from tests.peers.beside_calico import Both

pytestmark = [pytest.mark.peer, pytest.mark.long]

KINDS = {
    "IPPool": keys.POOLS,
    "Node": keys.NODES,
    "WorkloadEndpoint": keys.ENDPOINTS,
    "IPReservation": keys.RESERVATIONS,
    "ClusterInformation": keys.CLUSTER,
    "BGPConfiguration": keys.BGP_CONFIGURATIONS,
    "Block4": keys.BLOCKS4,
    "Block6": keys.BLOCKS6,
    "IPAMHandle": keys.HANDLES,
}
LATER_OR_EARLIER = {
    *("assignmentMode", "affinity_claim_time", "qosControls", "programClusterRoutes"),
    *("interfaces", "strictAffinity"),
}
"""Fields that v3.28 does not have yet, or no longer."""


def unknown(told: dict[str, Any]) -> set[str]:
    """Fields that Calico's types lack."""
    complaints = [text for kind in told.values() for text in kind["unknown"] or ()]
    found = (re.search(r'unknown field "(\w+)"', text) for text in complaints)
    return {each[1] for each in found if each is not None}


@pytest.mark.parametrize("release", RELEASES)
def test_calico_finds_in_the_fixtures_what_we_find(both: Both, release: str) -> None:
    fill(both.store, release)
    told = both.calico("list")
    for kind, prefix in KINDS.items():
        assert told[kind]["keys"] == sorted(both.keys(prefix)), kind
    claims = [key for key in both.keys(keys.AFFINITIES) if keys.parse_affinity_key(key)]
    assert told["BlockAffinity"]["keys"] == sorted(claims)
    assert unknown(told) <= LATER_OR_EARLIER


def test_calico_reads_what_we_write_and_allocates_beside_us(both: Both) -> None:
    ensure_cluster(both.store)
    cidr = ip_network("10.244.0.0/24")
    both.write(
        IPPool(metadata=Metadata(name="default"), cidr=cidr, block_size=28),
        Node(metadata=Metadata(name="ours"), address=ip_interface("10.0.0.1/24")),
        Node(metadata=Metadata(name="calicos"), address=ip_interface("10.0.0.2/24")),
    )
    ipam = IPAM(both.store, "ours", SystemClock(), SystemDice())

    def assign(name: str) -> str:
        owner = {"node": "ours", "namespace": "demo", "pod": name}
        return str(ipam.assign(AssignRequest(handle=f"net.{name}", attributes=owner)).address)

    ours = [assign(f"p{number}") for number in range(3)]
    told = both.calico("list")
    assert unknown(told) <= LATER_OR_EARLIER
    assert told["IPAMConfig"]["keys"] == ["strict=true auto=true"]
    assert both.calico("owner", ours[0]) == {
        "handle": "net.p0",
        "attributes": {"node": "ours", "namespace": "demo", "pod": "p0"},
    }
    # Another node of Calico's claims blocks of its own; on our node it goes on where we stopped.
    theirs = both.calico("assign", "calicos", "net.theirs", "20")
    here = both.calico("assign", "ours", "net.here", "2")
    assert not set(theirs) & set(ours)
    held = ipam.blocks()
    assert len(held) == 1
    block = ip_network(held[0])
    assert all(ip_interface(each).ip in block for each in here)
    assert both.calico("usage") == {"default": 25}
    assert both.calico("release", "net.p1")
    more = [assign(f"q{number}") for number in range(3)]
    assert len({*ours, *more, *here, *theirs}) == 28
    assert sorted(map(str, ipam.release_handle("net.here"))) == sorted(here)
    for name in ("p0", "p2", "q0", "q1", "q2"):
        assert both.calico("release", f"net.{name}")
    assert both.calico("release", "net.theirs")
    assert both.calico("usage") == {"default": 0}
    # Calico leaves a handle behind whose addresses lay in two blocks; ours are gone.
    assert set(both.keys(keys.HANDLES)) <= {keys.handle_key("net.theirs")}
