"""Every configuration we can render is one that BIRD takes."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_interface
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podwire.desired.bgpcompute import compute_bird
from podwire.desired.bgptext import render
from podwire.drivers.bird.program import find_program
from podwire.model.node import Node
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot
from tests.fakes.model_values import CONFIGURATIONS, FILTERS, PEERS

if TYPE_CHECKING:
    from pathlib import Path

    from podwire.model.bgp import BGPConfiguration, BGPPeer
    from podwire.model.bgpfilter import BGPFilter

BIRD = find_program("bird")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(BIRD is None, reason="needs the program bird (scripts/setup brings it)"),
]

FOUR = st.integers(1, 2**32 - 2).map(IPv4Address)
NODES = st.builds(
    Node,
    metadata=st.sampled_from(["n1", "n2", "n3"]).map(
        lambda name: Metadata(name=name, labels={"reflector": "", "rack": name})
    ),
    address=st.builds(
        lambda address, length: ip_interface(f"{address}/{length}"), FOUR, st.integers(8, 32)
    ),
    as_number=st.none() | st.integers(1, 2**32 - 2),
    route_reflector_cluster_id=st.none() | st.just("244.0.0.1"),
    ipip_tunnel=st.none() | FOUR,
)
POOLS = st.builds(
    IPPool,
    metadata=st.just(Metadata(name="p")),
    cidr=st.builds(
        lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
        st.integers(0, 2**32 - 1),
        st.integers(8, 26),
    ),
    ipip_mode=st.sampled_from(Mode),
    disable_bgp_export=st.booleans(),
)


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    nodes = draw(st.lists(NODES, min_size=1, max_size=3, unique_by=lambda n: n.name))
    configuration: BGPConfiguration = draw(CONFIGURATIONS)
    peers: list[BGPPeer] = draw(st.lists(PEERS, max_size=3))
    filters: list[BGPFilter] = draw(st.lists(FILTERS, max_size=2))
    # Names as Calico allows them; some of the filters that peers name exist.
    named = {
        name: replace(each, metadata=Metadata(name=name))
        for name, each in zip(("f", "g.h"), filters, strict=False)
    }
    pools = draw(st.lists(POOLS, max_size=2))
    return Snapshot(
        in_sync=True,
        nodes={each.name: each for each in nodes},
        pools={str(number): pool for number, pool in enumerate(pools)},
        borrowed=draw(st.dictionaries(FOUR, st.just(nodes[0].name), max_size=2)),
        bgp_configurations={"default": configuration},
        bgp_peers={str(n): replace(each, node=None) for n, each in enumerate(peers)},
        bgp_filters=named,
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(clusters(), st.booleans())
def test_bird_takes_what_is_rendered(tmp_path: Path, cluster: Snapshot, has_ipip: bool) -> None:
    name = next(iter(cluster.nodes))
    config = compute_bird(cluster, name, has_ipip=has_ipip)
    assert config is not None
    secrets = {each.password for each in config.peers if each.password is not None}
    text = render(config, dict.fromkeys(secrets, "pass word'#1"))
    path = tmp_path / "bird.conf"
    path.write_text(text)
    assert BIRD is not None
    done = subprocess.run(
        [BIRD, "-p", "-c", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{text}"
    assert render(config, dict.fromkeys(secrets, "pass word'#1")) == text
