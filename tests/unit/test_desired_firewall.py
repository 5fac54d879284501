"""Which rules a node's tables should hold, in values and in nft's words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_interface, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.desired.elements import Elements
from podwire.desired.firewall import Firewall, firewall, of_endpoint, of_node
from podwire.desired.nfttables import Table, parse, script, tables, text, with_elements
from podwire.errors import BadInput
from podwire.model.addressing import host_network
from podwire.model.endpoint import WorkloadEndpoint
from podwire.model.felix import FelixSettings, decode_felix, settings_for
from podwire.model.nftelement import Element
from podwire.model.node import Node
from podwire.model.pool import Encapsulation, IPPool, Mode
from podwire.model.resource import Metadata
from podwire.model.snapshot import Snapshot

if TYPE_CHECKING:
    from podwire.model.resource import JSON

ENDPOINT = WorkloadEndpoint(
    metadata=Metadata(name="n1-k8s-web-eth0", namespace="default"),
    orchestrator="k8s",
    node="n1",
    container_id="c1",
    pod="web",
    endpoint="eth0",
    interface="cali0123456789a",
    mac="0A:00:00:00:00:01",
    addresses=(ip_interface("10.244.0.5/32"),),
)


def pool(name: str, cidr: str, **fields: object) -> IPPool:
    return IPPool(metadata=Metadata(name=name), cidr=ip_network(cidr), **fields)  # type: ignore[arg-type]


def snapshot(*pools: IPPool, felix: dict[str, FelixSettings] | None = None) -> Snapshot:
    return Snapshot(
        pools=MappingProxyType({each.name: each for each in pools}),
        felix=MappingProxyType(felix or {}),
    )


def rules(*pools: IPPool, felix: FelixSettings | None = None) -> str:
    settings = {} if felix is None else {"default": felix}
    return text("ip", tables(firewall(snapshot(*pools, felix=settings), "n1"))["ip"])


# --- NAT ----------------------------------------------------------------------------------------


def test_without_nat_no_connection_is_tracked() -> None:
    assert "type nat" not in rules(pool("plain", "10.244.0.0/16"))


def test_nat_leads_out_of_all_pools_and_never_between_them() -> None:
    told = rules(
        pool("out", "10.244.0.0/16", nat_outgoing=True),
        pool("in", "10.245.0.0/16"),
        pool("off", "10.246.0.0/16", disabled=True),
        pool("six", "fd00::/48", block_size=122, nat_outgoing=True),
    )
    assert 'ip saddr @masqueraded ip daddr != @pools counter name "nat-outgoing" masquerade' in told
    found = parse(told).elements
    # A disabled pool's pods still live.
    assert found["pools"] == {"10.244.0.0/15", "10.246.0.0/16"}
    assert found["masqueraded"] == {"10.244.0.0/16"}


def test_the_order_of_the_cluster_does_not_matter() -> None:
    one, two = pool("a", "10.1.0.0/16", nat_outgoing=True), pool("b", "10.2.0.0/16")
    assert firewall(snapshot(one, two), "n1") == firewall(snapshot(two, one), "n1")


# --- doors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "closed"),
    [
        ({}, set()),
        ({"ipip_mode": Mode.ALWAYS}, {"ipip"}),
        ({"vxlan_mode": Mode.CROSS_SUBNET}, {"vxlan"}),
    ],
)
def test_strangers_are_kept_from_the_tunnels_a_node_has(
    fields: dict[str, Mode], closed: set[str]
) -> None:
    # Without a tunnel of ours UDP 4789 is somebody else's.
    chain = parse(rules(pool("p", "10.244.0.0/16", **fields))).blocks["chain prerouting"]
    assert {kind for kind in ("ipip", "vxlan") if f"stranger-into-{kind}" in chain} == closed


def test_felix_configuration_opens_doors() -> None:
    pools = (pool("p", "10.244.0.0/16", vxlan_mode=Mode.ALWAYS),)
    closed, opened = (
        parse(rules(*pools, felix=felix))
        for felix in (
            FelixSettings(),
            FelixSettings(
                vxlan_from_pods=True,
                external_nodes=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
            ),
        )
    )
    assert "udp dport 4789 jump into-tunnel" in closed.blocks["chain from-pod"]
    assert "4789" not in opened.blocks["chain from-pod"]
    assert "ip protocol 4 jump into-tunnel" in opened.blocks["chain from-pod"]
    assert opened.elements["external-nodes"] == {"192.0.2.0/24"}


def test_a_nodes_own_felix_configuration_counts_field_by_field() -> None:
    known = {
        "default": FelixSettings(source_spoofing=True, ipip_from_pods=True),
        "node.n1": FelixSettings(source_spoofing=False),
    }
    assert settings_for("n1", known) == FelixSettings(source_spoofing=False, ipip_from_pods=True)
    assert settings_for("n2", known).source_spoofing
    assert settings_for("n2", {}) == FelixSettings()


def test_felix_configuration_is_read_as_calico_writes_it() -> None:
    spec: dict[str, JSON] = {
        "bpfEnabled": False,
        "workloadSourceSpoofing": "Any",
        "allowIPIPPacketsFromWorkloads": True,
        "externalNodesList": ["192.0.2.7", "198.51.100.0/24"],
    }
    assert decode_felix("f/default", {"spec": spec}) == FelixSettings(
        source_spoofing=True,
        ipip_from_pods=True,
        external_nodes=(ip_network("192.0.2.7/32"), ip_network("198.51.100.0/24")),
    )
    assert decode_felix("f/default", {"spec": {"bpfEnabled": False}}) == FelixSettings()
    with pytest.raises(BadInput, match="workloadSourceSpoofing"):
        decode_felix("f/default", {"spec": {"workloadSourceSpoofing": "Some"}})


# --- elements -----------------------------------------------------------------------------------


def test_a_node_may_send_from_every_address_it_is_listed_with() -> None:
    wire = {
        "spec": {
            "addresses": [
                {"address": "10.0.0.1/24", "type": "CalicoNodeIP"},
                {"address": "192.168.7.1", "type": "InternalIP"},
                {"address": "host-1", "type": "Hostname"},
                {"address": "fd00::1"},
                "nonsense",
            ]
        }
    }
    node = Node(metadata=Metadata(name="n1"), address=ip_interface("10.0.0.1/24"), wire=wire)
    assert {element.text for element in of_node(node)} == {"10.0.0.1", "192.168.7.1"}
    assert of_node(Node(metadata=Metadata(name="n1"))) == frozenset()


def test_a_pod_speaks_for_itself_alone() -> None:
    allowed = tuple(map(ip_network, ("198.51.100.0/25", "198.51.100.128/25", "2001:db8::/64")))
    endpoint = replace(ENDPOINT, allowed_source_prefixes=allowed)
    own = {
        ("arp", "pods", '"cali0123456789a" : goto from-pod'),
        ("arp", "senders", '"cali0123456789a" . 10.244.0.5 . 0a:00:00:00:00:01'),
    }
    assert told(of_endpoint(endpoint, spoofing=False)) == own
    assert told(of_endpoint(endpoint, spoofing=True)) == own | {
        ("arp", "senders", '"cali0123456789a" . 198.51.100.0/24 . 0a:00:00:00:00:01'),
        ("ip", "allowed-sources", '"cali0123456789a" . 198.51.100.0/24'),
        ("ip6", "allowed-sources", '"cali0123456789a" . 2001:db8::/64'),
    }


@pytest.mark.parametrize("changed", [{"interface": 'eth0"; drop'}, {"mac": ""}, {"addresses": ()}])
def test_a_pod_that_is_not_known_well_enough_is_left_alone(changed: dict[str, object]) -> None:
    assert not of_endpoint(replace(ENDPOINT, **changed), spoofing=True)  # type: ignore[arg-type]


def told(elements: frozenset[Element]) -> set[tuple[str, str, str]]:
    return {(element.family, element.set, element.text) for element in elements}


ELEMENTS = [
    Element(family="ip", set="nodes", network=host_network(IPv4Address(number)))
    for number in range(4)
]
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3), st.frozensets(st.sampled_from(ELEMENTS))),
    st.tuples(st.just("write"), st.booleans(), st.none()),
    st.tuples(st.just("admit"), st.none(), st.sampled_from(ELEMENTS)),
    st.tuples(st.just("list"), st.none(), st.none()),
)


@given(st.lists(STEPS))
def test_what_is_there_becomes_what_somebody_wants(steps: list[tuple[str, object, object]]) -> None:
    elements, wanted, kernel = Elements(), {}, set[Element]()

    def write() -> None:
        deleted, added = elements.changes()
        assert set(deleted) <= kernel  # to delete what is not there is refused, and all with it
        kernel.difference_update(deleted)
        kernel.update(added)
        elements.changed(deleted, added)
        elements.settled()

    for step, who, what in steps:
        if step == "put":
            assert isinstance(what, frozenset)
            elements.put(who, what)
            wanted[who] = what
        elif step == "admit":
            assert isinstance(what, Element)
            if what not in elements.there:
                kernel.add(what)
                elements.changed((), (what,))
        elif step == "list":
            kernel = set(elements.wanted("ip"))
            elements.found("ip", kernel)
            elements.settled()
        elif who:
            write()
    write()
    assert kernel == frozenset().union(*wanted.values()) == elements.there


# --- nft's words --------------------------------------------------------------------------------

NETWORKS = st.integers(0, 255).map(lambda n: ip_network(f"10.{n}.0.0/16"))
FIREWALLS = st.builds(
    Firewall,
    pools=st.frozensets(NETWORKS).map(lambda found: tuple(sorted(found))),
    masqueraded=st.frozensets(NETWORKS).map(lambda found: tuple(sorted(found))),
    external_nodes=st.frozensets(NETWORKS).map(lambda found: tuple(sorted(found))),
    tunnels=st.frozensets(st.sampled_from([Encapsulation.IPIP, Encapsulation.VXLAN])),
    tunnels_from_pods=st.frozensets(st.sampled_from([Encapsulation.IPIP, Encapsulation.VXLAN])),
)


@given(FIREWALLS, st.frozensets(st.sampled_from(ELEMENTS)))
def test_a_listing_says_what_was_written(wanted: Firewall, nodes: frozenset[Element]) -> None:
    for family, plain in tables(wanted).items():
        table = with_elements(plain, nodes if family == "ip" else ())
        assert parse(text(family, table)) == table


def test_what_is_foreign_in_our_table_goes_and_counters_stay() -> None:
    wanted = tables(firewall(snapshot(pool("p", "10.244.0.0/16")), "n1"))["arp"]
    found = Table(
        blocks={
            "counter spoofed-arp": "",
            "counter mine": "",
            "chain input": "\t\tdrop\n",
            "map pods": wanted.blocks["map pods"],
            "set senders": "\t\ttype ipv4_addr\n",
        }
    )
    lines = script("arp", wanted, found).split("table arp podwire {")[0].splitlines()
    assert lines == [
        "table arp podwire",
        "flush table arp podwire",
        "delete counter arp podwire mine",
        "delete chain arp podwire input",
        "flush map arp podwire pods",
        "delete set arp podwire senders",
    ]
    odd = script("arp", wanted, replace(found, odd=True)).splitlines()
    assert odd[:4] == [
        "table arp podwire",
        "delete table arp podwire",
        "table arp podwire",
        "flush table arp podwire",
    ]
