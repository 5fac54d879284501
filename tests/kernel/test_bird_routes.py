"""What a node's BIRD takes from the kernel, tells its peers, and writes: between real BIRDs.

              [10.0.0.1] node, AS 64512: our text, in the test's own namespace
switch ────── [10.0.0.2] outside, AS 65000
              [10.0.0.3] inside, AS 64512     [10.0.0.4] second, AS 64512
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from podwire.desired.bgp import Advertisement, BirdConfig, BirdPeer, BirdPool, PeerType
from podwire.desired.bgptext import render
from podwire.drivers.bird.control import Control
from podwire.drivers.bird.observe import list_routes
from podwire.model.bgp import Community
from podwire.model.bgpfilter import (
    AddCommunity,
    BGPFilter,
    BGPPeerType,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
    PrependASPath,
    SetPriority,
)
from podwire.model.pool import Mode
from podwire.model.resource import Metadata
from tests.kernel.agent_cluster import run, until
from tests.kernel.bird_pair import Bird, require_bird

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podwire.bgp.state import RibRoute

pytestmark = pytest.mark.timeout(180)

OTHERS = {"outside": (2, 65000), "inside": (3, 64512), "second": (4, 64512)}
BLOCK, BORROWED = "10.244.1.0/26", "10.244.9.9/32"
POOL = BirdPool(cidr=ip_network("10.244.0.0/16"), mode=Mode.NEVER)
KERNEL_ROUTES = (
    f"blackhole {BLOCK} proto 80",
    f"{BORROWED} dev cali1 proto 80 scope link",
    # None of these is for anybody else to hear.
    "10.244.1.5/32 dev cali1 proto 80 scope link",
    "10.244.20.0/26 via 10.0.0.3 proto 80",
    "blackhole 10.99.0.0/24 proto 80",
    "blackhole 10.244.7.0/26 proto static",
    "blackhole 10.245.1.0/26 proto 80",
    "172.17.0.0/16 dev cali1 scope link",
    "default via 10.0.0.254",
)
OUTSIDE_SAYS = ("10.90.0.0/16", "10.91.0.0/24", BLOCK)
INSIDE_SAYS = ("10.244.40.0/26",)


def peer(name: str, **fields: Any) -> BirdPeer:
    last, as_number = OTHERS[name]
    given = {
        "protocol": f"peer_10_0_0_{last}",
        "type": PeerType.GLOBAL,
        "name": name,
        "address": ip_address(f"10.0.0.{last}"),
        "as_number": as_number,
        "local_as": 64512,
        "source": ip_address("10.0.0.1"),
    }
    return BirdPeer(**{**given, **fields})


PLAIN = BirdConfig(
    node="node",
    router_id=IPv4Address("10.0.0.1"),
    address=IPv4Interface("10.0.0.1/24"),
    as_number=64512,
    pools=(POOL, BirdPool(cidr=ip_network("10.245.0.0/16"), mode=Mode.NEVER, exported=False)),
    addresses=(ip_network(BORROWED),),
    peers=tuple(peer(name) for name in OTHERS),
    recovery_s=1,
)


def text_of_other(name: str) -> str:
    last, as_number = OTHERS[name]
    said = {"outside": OUTSIDE_SAYS, "inside": INSIDE_SAYS, "second": ()}[name]
    tag = "bgp_community.add((65000, 7)); bgp_path.prepend(65010); accept;"
    return f"""
log stderr all;
router id 10.0.0.{last};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static {{ ipv4; {" ".join(f"route {each} blackhole;" for each in said)} }}
protocol bgp node {{
  local 10.0.0.{last} as {as_number}; neighbor 10.0.0.1 as 64512; multihop;
  connect delay time 1;
  ipv4 {{ import all; export filter {{ if source != RTS_STATIC then reject; {tag} }}; }};
}}
"""


@dataclass
class Network:
    """The node's BIRD and the others."""

    folder: Path
    birds: dict[str, Bird] = field(default_factory=dict)

    def tell(self, config: BirdConfig) -> None:
        """Let the node's BIRD have another configuration."""
        self.birds["node"].config.write_text(render(config, {}))
        with Control.open(str(self.birds["node"].socket)) as control:
            control.configure()

    def heard(self, name: str) -> dict[str, RibRoute]:
        """What one of the others was told by the node."""
        with Control.open(str(self.birds[name].socket)) as control:
            return {str(r.network): r for r in list_routes(control, "protocol node")}

    def waits_for(self, name: str, *networks: str) -> dict[str, RibRoute]:
        """The same, once it is exactly these."""
        until(
            f"{name} hears {networks}",
            lambda: set(self.heard(name)) == set(networks),
            lambda: f"{sorted(self.heard(name))}\n{self.birds['node'].log()}",
        )
        return self.heard(name)

    @staticmethod
    def written() -> dict[str, dict[str, Any]]:
        """The routes BIRD has written into the node's kernel."""
        found = json.loads(run("ip", "-json", "route", "show", "proto", "bird"))
        return {route["dst"]: route for route in found}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_bird()
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "addr", "add", "10.0.0.1/24", "dev", "switch")
    run("ip", "link", "set", "switch", "up")
    run("ip", "link", "add", "cali1", "type", "veth", "peer", "name", "pod")
    for name in ("cali1", "pod"):
        run("ip", "link", "set", name, "up")
    network = Network(tmp_path)
    try:
        for name, (last, _) in OTHERS.items():
            run("ip", "netns", "add", name)
            run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", name, "master", "switch", "up")
            run("ip", "-n", name, "addr", "add", f"10.0.0.{last}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            network.birds[name] = Bird(tmp_path, name, netns=name).start(text_of_other(name))
        for route in KERNEL_ROUTES:
            run("ip", "route", "add", *route.split())
        network.birds["node"] = Bird(tmp_path, "node").start(render(PLAIN, {}))
        yield network
    finally:
        for bird in network.birds.values():
            bird.end()


def accept(*operations: Any, **conditions: Any) -> FilterRule:
    return FilterRule(action=FilterAction.ACCEPT, operations=operations, **conditions)


def within(cidr: str, operator: MatchOperator = MatchOperator.IN) -> PrefixMatch:
    return PrefixMatch(cidr=ip_network(cidr), operator=operator)


REJECT = FilterRule(action=FilterAction.REJECT)


def filtered(name: str, **rules: Any) -> BirdConfig:
    """The plain configuration with one filter between the node and one peer."""
    value = BGPFilter(metadata=Metadata(name="f.1"), **rules)
    peers = (replace(p, filters=("f.1",)) if p.name == name else p for p in PLAIN.peers)
    return replace(PLAIN, filters=(value,), peers=tuple(peers))


def test_routes_between_the_kernel_and_the_peers(network: Network) -> None:
    """One network for all of it: only its making takes time."""
    blocks_and_borrowed(network)
    a_new_block_needs_no_word_to_bird(network)
    nobody_s_word_counts_more_than_ours(network)
    filters_on_the_way_out(network)
    filters_on_the_way_in(network)
    a_reflector_passes_on_what_is_in_the_pools(network)
    a_tunnel_that_dies_and_comes_back(network)


def blocks_and_borrowed(network: Network) -> None:
    outside = network.waits_for("outside", BLOCK, BORROWED)
    inside = network.waits_for("inside", BLOCK, BORROWED)
    assert {r.attributes["BGP.as_path"] for r in outside.values()} == {"64512"}
    assert {r.attributes["BGP.next_hop"] for r in outside.values()} == {"10.0.0.1"}
    assert {r.attributes["BGP.next_hop"] for r in inside.values()} == {"10.0.0.1"}
    assert {r.attributes["BGP.local_pref"] for r in inside.values()} == {str(2**31 - 1 - 1024)}


def a_new_block_needs_no_word_to_bird(network: Network) -> None:
    run("ip", "route", "add", "blackhole", "10.244.2.0/26", "proto", "80")
    network.waits_for("outside", BLOCK, BORROWED, "10.244.2.0/26")
    run("ip", "route", "del", "blackhole", "10.244.2.0/26", "proto", "80")
    network.waits_for("outside", BLOCK, BORROWED)


def nobody_s_word_counts_more_than_ours(network: Network) -> None:
    written = until("BIRD's routes", lambda: len(network.written()) == 3 and network.written())
    assert set(written) == {"10.90.0.0/16", "10.91.0.0/24", "10.244.40.0/26"}
    assert written["10.90.0.0/16"]["gateway"] == "10.0.0.2"
    assert {route["metric"] for route in written.values()} == {32}
    assert BLOCK in network.heard("inside")


def filters_on_the_way_out(network: Network) -> None:
    add = (AddCommunity(Community((64512, 100))), AddCommunity(Community((64512, 1, 2))))
    path = PrependASPath((64999, 64998))
    config = filtered("outside", export4=(accept(*add, path),))
    advertisement = Advertisement(cidr=POOL.cidr, communities=(Community((64512, 300)),))
    network.tell(replace(config, advertisements=(advertisement,)))
    until(
        "communities arrive", lambda: "BGP.community" in network.heard("outside")[BLOCK].attributes
    )
    # A rule without a network accepts the pods' routes and what peers said, nothing of the host.
    told = network.waits_for("outside", BLOCK, BORROWED, "10.244.40.0/26")
    assert told[BLOCK].attributes["BGP.community"] == "(64512,100) (64512,300)"
    assert told[BLOCK].attributes["BGP.large_community"] == "(64512, 1, 2)"
    assert told[BLOCK].attributes["BGP.as_path"] == "64512 64999 64998"
    # One with a network reaches what it names, but never a single pod.
    only = (accept(prefix=within("172.16.0.0/12")), accept(prefix=within("10.244.1.4/30")), REJECT)
    network.tell(filtered("outside", export4=only))
    network.waits_for("outside", "172.17.0.0/16")
    exact = (accept(prefix=within(BLOCK, MatchOperator.EQUAL), interface="eth*"), REJECT)
    network.tell(filtered("outside", export4=exact))
    network.waits_for("outside")
    elsewhere = (accept(peer_type=BGPPeerType.INTERNAL), REJECT)
    network.tell(filtered("outside", export4=elsewhere))
    network.waits_for("outside")
    network.tell(PLAIN)
    network.waits_for("outside", BLOCK, BORROWED)


def filters_on_the_way_in(network: Network) -> None:
    for rule in (
        accept(prefix=replace(within("10.64.0.0/10"), longest=16)),
        accept(
            prefix=within("10.91.0.0/24", MatchOperator.NOT_EQUAL), as_path_prefix=(65000, 65010)
        ),
        accept(
            prefix=within("10.91.0.0/16", MatchOperator.NOT_IN),
            community=Community((65000, 7)),
            priority=1024,
        ),
    ):
        network.tell(filtered("outside", import4=(rule, REJECT)))
        until("one is left", lambda: set(network.written()) == {"10.90.0.0/16", "10.244.40.0/26"})
        network.tell(PLAIN)
        until("all are back", lambda: len(network.written()) == 3)
    network.tell(filtered("inside", import4=(accept(SetPriority(7)),)))
    with Control.open(str(network.birds["node"].socket)) as control:
        until(
            "the priority is set",
            lambda: (
                [
                    route.attributes.get("BGP.local_pref")
                    for route in list_routes(control, "protocol peer_10_0_0_3")
                ]
                == [str(2**31 - 1 - 7)]
            ),
        )
    network.tell(PLAIN)


def a_reflector_passes_on_what_is_in_the_pools(network: Network) -> None:
    network.waits_for("second", BLOCK, BORROWED)
    clients = tuple(replace(p, client=p.as_number == 64512) for p in PLAIN.peers)
    reflector = replace(PLAIN, cluster_id=IPv4Address("244.0.0.1"), peers=clients)
    network.tell(reflector)
    told = network.waits_for("second", BLOCK, BORROWED, "10.244.40.0/26")
    assert told["10.244.40.0/26"].attributes["BGP.next_hop"] == "10.0.0.3"
    assert told["10.244.40.0/26"].attributes["BGP.cluster_list"] == "244.0.0.1"
    network.waits_for("outside", BLOCK, BORROWED, "10.244.40.0/26")
    network.tell(PLAIN)
    network.waits_for("second", BLOCK, BORROWED)


def a_tunnel_that_dies_and_comes_back(network: Network) -> None:
    always = replace(POOL, mode=Mode.ALWAYS)
    network.tell(replace(PLAIN, pools=(always,)))
    until("withheld until the tunnel is there", lambda: "10.244.40.0/26" not in network.written())
    for _ in range(2):
        run("ip", "link", "add", "tunnel0", "type", "veth", "peer", "name", "far")
        for name in ("tunnel0", "far"):
            run("ip", "link", "set", name, "up")
        network.tell(replace(PLAIN, pools=(replace(always, device="tunnel0"),)))
        until(
            "the route leads through the tunnel",
            lambda: network.written().get("10.244.40.0/26", {}).get("dev") == "tunnel0",
            network.birds["node"].log,
        )
        route = network.written()["10.244.40.0/26"]
        assert (route["gateway"], route["flags"]) == ("10.0.0.3", ["onlink"])
        run("ip", "link", "del", "tunnel0")
        until("its route went with it", lambda: "10.244.40.0/26" not in network.written())
    near = replace(always, mode=Mode.CROSS_SUBNET, device="tunnel0")
    network.tell(replace(PLAIN, pools=(near,)))
    until(
        "inside the subnet it leads to the neighbour",
        lambda: network.written().get("10.244.40.0/26", {}).get("dev") == "switch",
    )
