"""Snapshot, links and endpoints in, kernel entries out: the tables of a small cluster."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.desired.entries import Entry, Table
from podwire.desired.here import Here, Underlay, find_underlay
from podwire.desired.incremental import Incremental, Inputs
from podwire.desired.mtu import narrowest, pod_mtu
from podwire.desired.state import DesiredState, compute
from podwire.desired.tunnel import LinkStep, decide_link, vxlan
from podwire.model.addressing import POD_GATEWAY, IPAddress, IPNetwork, host_network
from podwire.model.block import Affinity, AffinityState
from podwire.model.endpoint import AttachmentKey, WorkloadEndpoint
from podwire.model.link import Address, Link
from podwire.model.node import Node
from podwire.model.overlay import FDBEntry, Neighbour, vtep_mac
from podwire.model.pool import IPPool, Mode
from podwire.model.resource import Metadata
from podwire.model.route import SCOPE_LINK, NextHop, Route, RouteKey, RouteKind
from podwire.model.snapshot import Snapshot

UNDERLAY, VETH, TUNL0, VXLAN = 2, 7, 5, 6
BLOCKS = [f"192.168.{third}.0/26" for third in (10, 20, 30)]


def node(name: str, address: str, **fields: object) -> Node:
    return Node(metadata=Metadata(name=name), address=ip_interface(address), **fields)  # type: ignore[arg-type]


NODES = {
    "node-1": node("node-1", "10.0.0.1/24"),
    "node-2": node(
        "node-2",
        "10.0.0.2/24",
        vxlan_tunnel=ip_address("192.168.10.0"),
        ipip_tunnel=ip_address("192.168.10.0"),
    ),
    "node-3": node("node-3", "10.0.1.3/24", vxlan_tunnel=ip_address("192.168.20.0")),
}
OWN = ip_network("192.168.221.64/26")
AFFINITIES = {
    OWN: Affinity(node="node-1", block=OWN),
    ip_network("192.168.10.0/26"): Affinity(node="node-2", block=ip_network("192.168.10.0/26")),
    ip_network("192.168.20.0/26"): Affinity(node="node-3", block=ip_network("192.168.20.0/26")),
}
WEB = WorkloadEndpoint(
    metadata=Metadata(name="node--1-k8s-web--0-eth0", namespace="default"),
    orchestrator="k8s",
    node="node-1",
    container_id="0a1b2c",
    pod="web-0",
    endpoint="eth0",
    interface="cali0d7763386da",
    mac="02:00:00:00:00:01",
    addresses=(ip_interface("192.168.221.65/32"),),
)
WEB_KEY = AttachmentKey(network="podwire", container_id="0a1b2c", interface="eth0")
CALI = Link(index=VETH, name=WEB.interface, mtu=1500, up=True, carrier=True, kind="veth")


def pool(ipip: Mode = Mode.NEVER, vxlan: Mode = Mode.NEVER) -> IPPool:
    return IPPool(
        metadata=Metadata(name="default"),
        cidr=ip_network("192.168.0.0/16"),
        ipip_mode=ipip,
        vxlan_mode=vxlan,
    )


def inputs(pools: IPPool, **here: object) -> Inputs:
    return Inputs(
        snapshot=Snapshot(
            in_sync=True,
            pools={pools.name: pools},
            nodes=NODES,
            affinities=AFFINITIES,
            borrowed={ip_address("192.168.20.9"): "node-2"},
        ),
        here=Here(
            node=NODES["node-1"],
            underlay=Underlay(device=UNDERLAY, name="eth0", mtu=1500),
            **here,  # type: ignore[arg-type]
        ),
        links={CALI.name: CALI},
        endpoints={WEB_KEY: WEB},
    )


def routes(state: DesiredState) -> dict[str, str]:
    """Destination → the rest of the line, as `ip route` writes it (devices by index)."""
    lines = {}
    for entry in state.entries[Table.ROUTES].values():
        assert isinstance(entry, Route)
        assert entry.protocol == 80
        words = []
        if entry.kind is RouteKind.BLACKHOLE:
            words.append("blackhole")
        for hop in entry.hops:
            words += [] if hop.gateway is None else ["via", str(hop.gateway)]
            words += ["dev", str(hop.device)] + (["onlink"] if hop.onlink else [])
        words += ["scope link"] if entry.scope == SCOPE_LINK else []
        lines[str(entry.key.destination)] = " ".join(words)
    return lines


LOCAL = {"192.168.221.65/32": "dev 7 scope link", "192.168.221.64/26": "blackhole"}


@pytest.mark.parametrize(
    ("pools", "remote"),
    [
        pytest.param(
            pool(ipip=Mode.ALWAYS),
            {
                "192.168.10.0/26": "via 10.0.0.2 dev 5 onlink",
                "192.168.20.0/26": "via 10.0.1.3 dev 5 onlink",
                "192.168.20.9/32": "via 10.0.0.2 dev 5 onlink",
            },
            id="ipip",
        ),
        pytest.param(
            pool(ipip=Mode.CROSS_SUBNET),
            {
                "192.168.10.0/26": "via 10.0.0.2 dev 2 onlink",
                "192.168.20.0/26": "via 10.0.1.3 dev 5 onlink",
                "192.168.20.9/32": "via 10.0.0.2 dev 2 onlink",
            },
            id="ipip-crosssubnet",
        ),
        pytest.param(
            pool(vxlan=Mode.ALWAYS),
            {
                "192.168.10.0/26": "via 192.168.10.0 dev 6 onlink",
                "192.168.20.0/26": "via 192.168.20.0 dev 6 onlink",
                "192.168.20.9/32": "via 192.168.10.0 dev 6 onlink",
            },
            id="vxlan",
        ),
        pytest.param(
            pool(),
            {
                "192.168.10.0/26": "via 10.0.0.2 dev 2",
                "192.168.20.9/32": "via 10.0.0.2 dev 2",
            },
            id="none",
        ),
    ],
)
def test_the_main_table_of_node_1(pools: IPPool, remote: dict[str, str]) -> None:
    assert routes(compute(inputs(pools, ipip=TUNL0, vxlan=VXLAN))) == LOCAL | remote


def test_each_vtep_has_a_neighbour_and_a_forwarding_entry() -> None:
    state = compute(inputs(pool(vxlan=Mode.ALWAYS), vxlan=VXLAN))
    mac = vtep_mac("node-2")
    gateway = ip_address("192.168.10.0")
    assert Neighbour(device=VXLAN, address=gateway, mac=mac) in set(
        state.entries[Table.NEIGHBOURS].values()
    )
    assert FDBEntry(device=VXLAN, mac=mac, destination=ip_address("10.0.0.2"), own=True) in set(
        state.entries[Table.FDB].values()
    )


def test_a_borrowed_tunnel_address_gets_its_own_way() -> None:
    start = inputs(pool(vxlan=Mode.ALWAYS), vxlan=VXLAN)
    borrower = replace(NODES["node-2"], vxlan_tunnel=ip_address("192.168.20.7"))
    snapshot = replace(start.snapshot, nodes={**NODES, "node-2": borrower})
    table = routes(compute(replace(start, snapshot=snapshot)))
    assert table["192.168.20.7/32"] == "dev 6 scope link"


def test_without_a_default_route_proxy_arp_gets_one_for_its_gateway() -> None:
    with_it = routes(compute(inputs(pool())))
    without = routes(compute(inputs(pool(), default_route=False)))
    assert without == with_it | {str(host_network(POD_GATEWAY)): "dev 2 scope link"}


ON_LO = Underlay(device=1, name="lo", mtu=1500, routed=True)
WAYS = {
    ip_address("10.0.0.2"): (
        NextHop(device=2, gateway=ip_address("10.1.0.2")),
        NextHop(device=3, gateway=ip_address("10.2.0.2")),
    ),
    ip_address("10.0.1.3"): (NextHop(device=3, gateway=ip_address("10.2.0.9")),),
}


@pytest.mark.parametrize(
    ("pools", "remote"),
    [
        pytest.param(
            pool(),
            {
                "192.168.10.0/26": "via 10.1.0.2 dev 2 via 10.2.0.2 dev 3",
                "192.168.20.0/26": "via 10.2.0.9 dev 3",
                "192.168.20.9/32": "via 10.1.0.2 dev 2 via 10.2.0.2 dev 3",
            },
            id="none",
        ),
        pytest.param(
            pool(ipip=Mode.CROSS_SUBNET),
            {
                "192.168.10.0/26": "via 10.0.0.2 dev 5 onlink",
                "192.168.20.0/26": "via 10.0.1.3 dev 5 onlink",
                "192.168.20.9/32": "via 10.0.0.2 dev 5 onlink",
            },
            id="ipip-crosssubnet",
        ),
    ],
)
def test_an_address_on_no_wire_leads_by_the_kernels_own_ways(
    pools: IPPool, remote: dict[str, str]
) -> None:
    start = inputs(pools, ipip=TUNL0, vxlan=VXLAN)
    single = replace(NODES["node-1"], address=ip_interface("10.0.0.1/32"))
    here = replace(start.here, node=single, underlay=ON_LO, ways=WAYS)
    assert routes(compute(replace(start, here=here))) == LOCAL | remote
    settings = vxlan(here).vxlan
    assert settings is not None
    assert settings.parent is None


def test_a_node_without_a_way_asks_for_no_route() -> None:
    start = inputs(pool())
    here = replace(start.here, underlay=ON_LO)
    assert routes(compute(replace(start, here=here))) == LOCAL


def test_the_narrowest_node_decides_on_tunnels_and_new_pods() -> None:
    start = inputs(pool(ipip=Mode.ALWAYS), ipip=TUNL0)
    state = compute(replace(start, here=replace(start.here, others_mtu=1400)))
    assert state.pod_mtu == 1380
    assert [tunnel.mtu for tunnel in state.tunnels] == [1380]
    wide = compute(replace(start, here=replace(start.here, others_mtu=9000)))
    assert wide.pod_mtu == 1480


def test_a_route_without_a_tunnel_knows_a_narrower_node() -> None:
    start = inputs(pool())
    nodes = {**NODES, "node-2": replace(NODES["node-2"], underlay_mtu=1400)}
    state = compute(replace(start, snapshot=replace(start.snapshot, nodes=nodes)))
    found = {str(r.key.destination): r.mtu for r in state.entries[Table.ROUTES].values()}  # type: ignore[union-attr]
    assert found["192.168.10.0/26"] == found["192.168.20.9/32"] == 1400
    assert found["192.168.221.65/32"] is None


@given(st.lists(st.none() | st.integers(576, 9000), max_size=6))
def test_the_narrowest_is_among_those_that_say_something(said: list[int | None]) -> None:
    nodes = [
        replace(NODES["node-1"], metadata=Metadata(name=f"n{number}"), underlay_mtu=mtu)
        for number, mtu in enumerate(said)
    ]
    mtu, name = narrowest(nodes)
    known = [each for each in said if each is not None]
    assert mtu == min(known, default=65535)
    assert (name is None) == (not known)
    assert name is None or said[int(name[1:])] == mtu


def test_a_deleted_node_takes_its_routes_along() -> None:
    start = inputs(pool(ipip=Mode.ALWAYS), ipip=TUNL0)
    rest = {name: there for name, there in NODES.items() if name != "node-2"}
    snapshot = replace(start.snapshot, nodes=rest)
    table = routes(compute(replace(start, snapshot=snapshot)))
    assert table.keys() == LOCAL.keys() | {"192.168.20.0/26"}


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_only_a_confirmed_block_is_routed(state: AffinityState) -> None:
    start = inputs(pool(ipip=Mode.ALWAYS), ipip=TUNL0)
    claims = {block: replace(claim, state=state) for block, claim in AFFINITIES.items()}
    table = routes(compute(replace(start, snapshot=replace(start.snapshot, affinities=claims))))
    # Node 2's tunnel address now lies in nobody's block, so it is routed by itself.
    assert table.keys() == {"192.168.221.65/32", "192.168.20.9/32", "192.168.10.0/32"}


def test_a_pod_without_its_veth_asks_for_nothing() -> None:
    start = replace(inputs(pool()), links={})
    assert "192.168.221.65/32" not in routes(compute(start))


@pytest.mark.parametrize(
    ("pools", "mtu"),
    [
        ([pool()], 1500),
        ([pool(ipip=Mode.ALWAYS)], 1480),
        ([pool(ipip=Mode.ALWAYS), pool(vxlan=Mode.CROSS_SUBNET)], 1450),
        ([replace(pool(vxlan=Mode.ALWAYS), disabled=True)], 1500),
        ([], 1500),
    ],
)
def test_pod_mtu_is_the_smallest_of_the_enabled_pools(pools: list[IPPool], mtu: int) -> None:
    assert pod_mtu(pools, 1500) == mtu


def test_the_underlay_is_where_the_node_address_is() -> None:
    eth0 = Link(index=3, name="eth0", mtu=9000, up=True, carrier=True)
    addresses = [Address(device=3, interface=ip_interface("10.0.0.1/24"))]
    found = find_underlay(ip_address("10.0.0.1"), addresses, {"eth0": eth0})
    assert found == Underlay(device=3, name="eth0", mtu=9000)
    assert find_underlay(ip_address("10.0.0.9"), addresses, {"eth0": eth0}) is None


def test_a_vxlan_device_with_a_fixed_setting_wrong_is_made_anew() -> None:
    wanted = vxlan(inputs(pool(vxlan=Mode.ALWAYS)).here)
    right = Link(
        index=VXLAN,
        name=wanted.name,
        mtu=1450,
        up=True,
        carrier=True,
        kind="vxlan",
        mac=vtep_mac("node-1"),
        vxlan=wanted.vxlan,
    )
    assert wanted.vxlan is not None
    assert decide_link(wanted, None) is LinkStep.CREATE
    assert decide_link(wanted, right) is LinkStep.NOTHING
    assert decide_link(wanted, replace(right, mtu=1500)) is LinkStep.CHANGE
    assert decide_link(wanted, replace(right, up=False)) is LinkStep.CHANGE
    assert decide_link(wanted, replace(right, mac="66:00:00:00:00:00")) is LinkStep.RECREATE
    other = replace(wanted.vxlan, vni=1)
    assert decide_link(wanted, replace(right, vxlan=other)) is LinkStep.RECREATE
    moved = replace(wanted.vxlan, local=ip_address("10.0.0.77"), parent=9)
    assert decide_link(wanted, replace(right, vxlan=moved)) is LinkStep.MOVE
    assert decide_link(wanted, replace(right, vxlan=replace(moved, vni=1))) is LinkStep.RECREATE
    moved_and_named = replace(right, vxlan=moved, mac="66:00:00:00:00:00")
    assert decide_link(wanted, moved_and_named) is LinkStep.RECREATE
    # The kernel would keep the parent, if it were told of none.
    free = replace(wanted, vxlan=replace(wanted.vxlan, parent=None))
    assert decide_link(free, right) is LinkStep.RECREATE
    assert decide_link(None, right) is LinkStep.DELETE
    assert decide_link(None, None) is LinkStep.NOTHING


# One change after the other must lead where a fresh computation leads.

blocks = st.sampled_from([ip_network(text) for text in BLOCKS])
names = st.sampled_from(sorted(NODES))
tunnels = st.none() | st.sampled_from([ip_address(f"192.168.{third}.3") for third in (10, 20, 99)])
changes = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), blocks, names, st.sampled_from(list(AffinityState))),
        st.tuples(st.just("unclaim"), blocks),
        st.tuples(st.just("node"), names, tunnels, st.sampled_from([None, 1400, 1500])),
        st.tuples(st.just("no node"), st.sampled_from(["node-2", "node-3"])),
        st.tuples(st.just("pool"), st.sampled_from(list(Mode)), st.booleans()),
        st.tuples(st.just("borrow"), st.sampled_from([4, 5]), names | st.none()),
        st.tuples(st.just("pod"), st.sampled_from([65, 66]), st.booleans()),
    ),
    max_size=12,
)


class Cluster:
    """Mutable views behind one Inputs, as the agent keeps them."""

    def __init__(self) -> None:
        self.pools: dict[str, IPPool] = {"default": pool(vxlan=Mode.ALWAYS)}
        self.nodes: dict[str, Node] = {"node-1": NODES["node-1"]}
        self.affinities: dict[IPNetwork, Affinity] = {}
        self.borrowed: dict[IPAddress, str] = {}
        self.endpoints: dict[AttachmentKey, WorkloadEndpoint] = {}
        snapshot = Snapshot(
            in_sync=True,
            pools=self.pools,
            nodes=self.nodes,
            affinities=self.affinities,
            borrowed=self.borrowed,
        )
        self.inputs = replace(
            inputs(pool(), ipip=TUNL0, vxlan=VXLAN), snapshot=snapshot, endpoints=self.endpoints
        )
        self.told: dict[object, Entry] = {}
        self.incremental = Incremental(self.inputs)
        self.work()

    def change(self, step: tuple[object, ...]) -> None:
        match step:
            case ("claim", block, name, state):
                self.affinities[block] = Affinity(node=name, block=block, state=state)  # type: ignore[index, arg-type]
                self.incremental.on_block(block)  # type: ignore[arg-type]
            case ("unclaim", block):
                self.affinities.pop(block, None)  # type: ignore[call-overload]
                self.incremental.on_block(block)  # type: ignore[arg-type]
            case ("node", str(name), tunnel, mtu):
                self.nodes[name] = replace(
                    NODES[name],
                    vxlan_tunnel=tunnel,  # type: ignore[arg-type]
                    ipip_tunnel=tunnel,  # type: ignore[arg-type]
                    underlay_mtu=mtu,  # type: ignore[arg-type]
                )
                self.incremental.on_node(name)
            case ("no node", str(name)):
                self.nodes.pop(name, None)
                self.incremental.on_node(name)
            case ("pool", Mode() as mode, tunnel):
                self.pools["default"] = pool(ipip=mode) if tunnel else pool(vxlan=mode)
                self.incremental.on_everything(self.inputs)
            case ("borrow", last, user):
                address = ip_address(f"192.168.20.{last}")
                self.borrowed.pop(address, None)
                if user is not None:
                    self.borrowed[address] = str(user)
                self.incremental.on_borrowed(address)
            case ("pod", last, there):
                key = replace(WEB_KEY, container_id=str(last))
                self.endpoints.pop(key, None)
                if there:
                    address = ip_interface(f"192.168.221.{last}/32")
                    self.endpoints[key] = replace(WEB, addresses=(address,))
                self.incremental.on_endpoints([key])

    def work(self) -> None:
        for changes in self.incremental.work():
            for key, entry in changes:
                if entry is None:
                    del self.told[key]
                else:
                    self.told[key] = entry


@given(changes)
def test_small_steps_lead_where_a_fresh_computation_leads(steps: list[tuple[object, ...]]) -> None:
    cluster = Cluster()
    for step in steps:
        cluster.change(step)
        cluster.work()
    fresh = compute(cluster.inputs)
    expected = {key: entry for rows in fresh.entries.values() for key, entry in rows.items()}
    assert cluster.told == expected


@given(changes)
def test_changes_that_pile_up_lead_there_as_well(steps: list[tuple[object, ...]]) -> None:
    cluster = Cluster()
    for step in steps:
        cluster.change(step)
    cluster.work()
    fresh = compute(cluster.inputs)
    expected = {key: entry for rows in fresh.entries.values() for key, entry in rows.items()}
    assert cluster.told == expected
    assert cluster.incremental.is_complete


def test_the_stronger_class_wins_and_the_other_returns() -> None:
    cluster = Cluster()
    key = RouteKey(destination=host_network(ip_address("192.168.20.4")))
    cluster.change(("node", "node-2", ip_address("192.168.10.3"), None))
    cluster.change(("borrow", 4, "node-2"))
    cluster.work()
    remote = cluster.told[key]
    cluster.endpoints[WEB_KEY] = replace(WEB, addresses=(ip_interface("192.168.20.4/32"),))
    cluster.incremental.on_endpoints([WEB_KEY])
    cluster.work()
    assert cluster.told[key] == Route(
        key=key, scope=SCOPE_LINK, hops=(NextHop(device=VETH),), protocol=80
    )
    del cluster.endpoints[WEB_KEY]
    cluster.incremental.on_endpoints([WEB_KEY])
    cluster.work()
    assert cluster.told[key] == remote
